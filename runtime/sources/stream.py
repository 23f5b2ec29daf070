"""Video from a network address, through OpenCV's FFmpeg."""

import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..address import SCHEMES, redact, remove_secrets, scheme_of
from ..errors import ImageError, SourceError
from ..image import read_image
from .backlog import Backlog
from .live import LiveSource
from .opencv import CaptureDevice, ask_ffmpeg, fourcc_of, open_video
from .source import Capture, Device, GoneError

# RTSP over TCP unless the server has only UDP, whose losses smear the picture; nothing kept from the time in which
# the streams are looked at; and that time is short, since a server that says in its answer what it sends needs none.
_LOW_DELAY = "rtsp_flags;prefer_tcp|fflags;nobuffer|flags;low_delay"
_SHORT_LOOK = f"{_LOW_DELAY}|analyzeduration;200000"

# One that failed faster than this was refused, and may open with a longer look; seconds.
_REFUSED_S = 2.0

_REFUSED = "it cannot be opened"

_MOTION_JPEG = "MJPG"

# FFmpeg's parser puts out a picture of these codecs when the next one begins, when they come over RTP.
_HELD_CODECS = frozenset({"h264", "H264", "avc1", "hevc", "HEVC", "hev1", "hvc1", "H265", "h265"})

# A backlog that takes so long is thrown away, seconds.
_BEHIND_S = 1.0


def open_stream(address: str, *, capture: Capture) -> LiveSource:
    """Open an address.

    Raises:
        SourceError: It is of no kind that is known, nothing answers there, or what answers gives no video.
    """
    scheme = scheme_of(address)
    name = redact(address)
    if scheme not in SCHEMES:
        known = ", ".join(sorted(SCHEMES))
        raise SourceError(f"{name} is no address that is known; expected one of {known}, or a file's path")

    def explain(reason: str | None) -> str:
        said = ask_ffmpeg(address, capture.open_s) if reason == _REFUSED else reason
        if said is None:
            said = f"no answer within {capture.open_s:g} s" if reason is None else reason
        return f"{name} gives no video ({remove_secrets(said, address)}); {_advice(said)}"

    return LiveSource(name, _Opener(address, scheme, capture), capture=capture, explain=explain)


class _Opener:
    """Opens an address, again and again; one thread decodes unless it turned out to be too slow."""

    def __init__(self, address: str, scheme: str, capture: Capture) -> None:
        self._address = address
        self._capture = capture
        self._scheme = scheme
        # Every further thread keeps a picture back. 0 is FFmpeg's choice, from the number of cores.
        self._threads = 1

    def __call__(self) -> Device:
        video = self._open()
        codec = fourcc_of(video)
        timed = not self._scheme.startswith("http")
        if codec == _MOTION_JPEG and video.set(cv2.CAP_PROP_FORMAT, -1):
            # MJPEG over HTTP carries no times, and FFmpeg makes up a rate.
            return _PacketDevice(video, timed=timed)
        held = self._scheme in ("rtsp", "rtsps") and codec in _HELD_CODECS
        return _DecodingDevice(video, held=held, behind=self._use_more_threads)

    def _open(self) -> cv2.VideoCapture:
        start_s = time.monotonic()
        for options in (_SHORT_LOOK, _LOW_DELAY):
            left_s = self._capture.open_s - (time.monotonic() - start_s)
            video = open_video(
                self._address,
                cv2.CAP_FFMPEG,
                (
                    *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, round(1000 * left_s)),
                    *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, round(1000 * self._capture.stall_s)),
                    *_threads(self._threads),
                ),
                options=options,
            )
            if video is not None:
                return video
            if time.monotonic() - start_s > min(_REFUSED_S, self._capture.open_s / 2):
                raise GoneError(f"no answer within {self._capture.open_s:g} s")
        raise GoneError(_REFUSED)

    def _use_more_threads(self) -> None:
        self._threads = 0


class _PacketDevice(CaptureDevice):
    """A stream of whole JPEGs, which are decoded when they are taken: those passed over cost nothing."""

    def retrieve(self) -> NDArray[np.uint8] | None:
        """Give the JPEG's bytes."""
        found, packet = self._video.retrieve()
        return packet if found and packet.size else None

    def to_rgb(self, picture: NDArray[Any]) -> NDArray[np.uint8] | None:
        """Decode it."""
        try:
            return read_image(picture.tobytes())
        except ImageError:
            return None


class _DecodingDevice(CaptureDevice):
    """A stream of which every picture must be decoded, since each builds on those before it."""

    def __init__(self, video: cv2.VideoCapture, *, held: bool, behind: Callable[[], None]) -> None:
        """Take over what is open.

        Args:
            video: It.
            held: Whether a picture comes out only when the next one begins to come in.
            behind: Is called when decoding turns out to be slower than the stream.
        """
        super().__init__(video)
        self._held = held
        self._behind = behind
        self._backlog = Backlog()
        self._before_s: float | None = None

    def grab(self) -> float:
        """Wait for the next picture; give when it came in."""
        now_s = super().grab()
        behind_s = self._backlog.add(now_s, self._video.get(cv2.CAP_PROP_POS_MSEC) / 1000)
        if behind_s > _BEHIND_S:
            self._behind()
            raise GoneError(f"decoding fell {behind_s:.1f} s behind the stream; a smaller picture would help")
        came_s = self._before_s if self._held and self._before_s is not None else now_s
        self._before_s = now_s
        return came_s


def _advice(reason: str) -> str:
    """Give the next step for what FFmpeg said, by the words of its own sources."""
    if "401" in reason or "403" in reason:
        return "give the right user and password in the address, like rtsp://user:password@host/path"
    if "404" in reason:
        return "check the path, which the camera's manual names"
    if "resolve" in reason:
        return "check the host's name"
    if "refused" in reason:
        return "check host and port, and that the camera is on"
    return "check the address, and that the camera is on and sends video there"


def _threads(count: int) -> tuple[int, ...]:
    """Give how many threads decode, as OpenCV wants to hear it; OpenCV before 4.6 does not."""
    kind = getattr(cv2, "CAP_PROP_N_THREADS", None)
    return () if kind is None else (kind, count)

"""Video from a network address, through OpenCV's FFmpeg."""

import time

import cv2

from ..errors import SourceError
from .address import SCHEMES, redact, remove_secrets
from .live import LiveSource
from .opencv import CaptureDevice, ask_ffmpeg, open_video
from .source import Capture, GoneError

# RTSP over TCP unless the server has only UDP, whose losses smear the picture; nothing kept from the time in which
# the streams are looked at; and that time is short, since a server that says in its answer what it sends needs none.
_LOW_DELAY = "rtsp_flags;prefer_tcp|fflags;nobuffer|flags;low_delay"
_SHORT_LOOK = f"{_LOW_DELAY}|analyzeduration;200000"

# One that failed faster than this was refused, and may open with a longer look; seconds.
_REFUSED_S = 2.0

# FFmpeg's parser puts out a picture of these codecs when the next one begins, when they come over RTP.
_HELD_CODECS = frozenset({b"h264", b"H264", b"avc1", b"hevc", b"HEVC", b"hev1", b"hvc1", b"H265", b"h265"})


def open_stream(address: str, *, capture: Capture) -> LiveSource:
    """Open an address.

    Raises:
        SourceError: It is of no kind that is known, nothing answers there, or what answers gives no video.
    """
    scheme = address.partition("://")[0].lower()
    name = redact(address)
    if scheme not in SCHEMES:
        known = ", ".join(sorted(SCHEMES))
        raise SourceError(f"{name} is no address that is known; expected one of {known}, or a file's path")

    def explain(reason: str | None) -> str:
        said = ask_ffmpeg(address, capture.open_s) if reason == _REFUSED else reason
        if said is None:
            said = f"no answer within {capture.open_s:g} s" if reason is None else reason
        return f"{name} gives no video ({remove_secrets(said, address)}); {_advice(said)}"

    return LiveSource(name, lambda: _open(address, capture), capture=capture, explain=explain)


_REFUSED = "it cannot be opened"


def _open(address: str, capture: Capture) -> CaptureDevice:
    start_s = time.monotonic()
    for options in (_SHORT_LOOK, _LOW_DELAY):
        left_s = capture.open_s - (time.monotonic() - start_s)
        video = open_video(
            address,
            cv2.CAP_FFMPEG,
            (
                *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, round(1000 * left_s)),
                *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, round(1000 * capture.stall_s)),
                # Every further thread keeps a picture back.
                *(cv2.CAP_PROP_N_THREADS, 1),
            ),
            options=options,
        )
        if video is not None:
            codec = int(video.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little", signed=True)
            kind = address.partition("://")[0].lower()
            held = kind in ("rtsp", "rtsps") and codec in _HELD_CODECS
            # MJPEG over HTTP carries no times.
            return CaptureDevice(video, held=held, timed=not kind.startswith("http"))
        if time.monotonic() - start_s > min(_REFUSED_S, capture.open_s / 2):
            raise GoneError(f"no answer within {capture.open_s:g} s")
    raise GoneError(_REFUSED)


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

"""Opening a video with OpenCV: quietly, without pictures that wait in a buffer, and saying why it failed."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..frame import capture_time
from .source import GoneError

_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
_LOG_LEVEL = "OPENCV_FFMPEG_LOGLEVEL"

NO_MORE = "it gives no more pictures"
"""What a video says that went away."""

# AV_LOG_QUIET, AV_LOG_ERROR and AV_LOG_WARNING of libavutil/log.h.
_QUIET, _ERROR, _WARNING = "-8", "16", "24"

# OpenCV 5 moved the functions.
_LOGGING: Any = getattr(cv2.utils, "logging", cv2)

# LOG_LEVEL_SILENT and LOG_LEVEL_ERROR of opencv2/core/utils/logger.defines.hpp.
_SILENT, _ERRORS = 0, 2

# Without decoding, all that a file holds is read in a moment.
_CHILD = """
import sys, cv2
limit, through = map(int, sys.argv[1:])
video = cv2.VideoCapture(
    sys.stdin.read(), cv2.CAP_FFMPEG,
    [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, limit, cv2.CAP_PROP_READ_TIMEOUT_MSEC, limit],
)
count = 0
if through and video.set(cv2.CAP_PROP_FORMAT, -1):
    while video.grab():
        count += 1
print(count)
"""
_CHILD_MARK = "[OPENCV:FFMPEG:"


class CaptureDevice:
    """An open ``cv2.VideoCapture`` as a device of a live source."""

    def __init__(self, video: cv2.VideoCapture, *, stamped: bool = False, timed: bool = True) -> None:
        """Take over what is open.

        Args:
            video: It.
            stamped: Whether the position that it tells is the driver's time of capture (V4L2).
            timed: Whether it knows its frames a second, rather than guessing.
        """
        self._video = video
        self._stamped = stamped
        self.fps: float | None = stated_fps(video) if timed else None

    def grab(self) -> float:
        """Wait for the next picture; give when it was taken, or came in where that is not known."""
        if not self._video.grab():
            raise GoneError(NO_MORE)
        now_s = time.monotonic()
        if not self._stamped:
            return now_s
        return capture_time(self._video.get(cv2.CAP_PROP_POS_MSEC) / 1000, now_s)

    def retrieve(self) -> NDArray[Any] | None:
        """Decode it."""
        found, picture = self._video.retrieve()
        return picture if found else None

    def to_rgb(self, picture: NDArray[Any]) -> NDArray[np.uint8] | None:
        """Turn OpenCV's BGR, or gray, into RGB."""
        return to_rgb(picture)

    def release(self) -> None:
        """Let go of it."""
        self._video.release()


def to_rgb(picture: NDArray[Any]) -> NDArray[np.uint8]:
    """Turn a picture of OpenCV's into (height, width, 3) uint8 RGB."""
    if picture.ndim == 2 or picture.shape[2] == 1:
        code = cv2.COLOR_GRAY2RGB
    else:
        code = cv2.COLOR_BGR2RGB if picture.shape[2] == 3 else cv2.COLOR_BGRA2RGB
    if picture.dtype == np.uint16:  # a camera for depth or heat: the upper 8 bits
        picture = (picture >> 8).astype(np.uint8)
    return np.asarray(cv2.cvtColor(picture, code), np.uint8)


def stated_fps(video: cv2.VideoCapture) -> float | None:
    """Give the frames a second that a video says it has; None where that is no sensible number."""
    fps = video.get(cv2.CAP_PROP_FPS)
    return float(fps) if 0 < fps <= 1000 else None


def fourcc_of(video: cv2.VideoCapture) -> str:
    """Give the four letters of the format in which a video's pictures come."""
    code = int(video.get(cv2.CAP_PROP_FOURCC))
    return code.to_bytes(4, "little", signed=True).decode("latin-1")


def open_video(
    what: str | int, backend: int, settings: Sequence[int] = (), *, options: str | None = None
) -> cv2.VideoCapture | None:
    """Open a video; None where OpenCV cannot.

    OpenCV's and FFmpeg's own lines on stderr are silenced, since our errors say it in words for users, unless the
    user set their environment variables for debugging.

    Args:
        what: A path, an address, a pipeline, or a camera's number.
        backend: One of ``cv2.CAP_*``.
        settings: Properties to open it with, names and values in turn.
        options: FFmpeg's options, ``name;value|name;value``.
    """
    with _surroundings(options):
        try:
            video = cv2.VideoCapture(what, backend, list(settings))
        except cv2.error:
            return None
        if not video.isOpened():
            video.release()
            return None
    return video


def ask_ffmpeg(address: str, limit_s: float) -> str | None:
    """Give FFmpeg's reason for not opening an address or a file, from a process of its own; None if it has none.

    OpenCV tells only that it failed; FFmpeg says more, but to a terminal. The address goes through a pipe, since a
    command line can be read by every user of the machine.
    """
    return _in_child(address, limit_s, _WARNING)[1]


def read_through(address: str, limit_s: float) -> tuple[int, str | None]:
    """Read a video to its end without decoding it, as `ask_ffmpeg` does.

    Returns:
        How many pictures it holds, 0 where that takes too long, and the last error that FFmpeg met.
    """
    return _in_child(address, limit_s, _ERROR, through=True)


def _in_child(address: str, limit_s: float, level: str, *, through: bool = False) -> tuple[int, str | None]:
    # A program packed with its Python would start itself again.
    if getattr(sys, "frozen", False) or not Path(sys.executable or "").name.startswith("python"):
        return 0, None
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, str(round(1000 * limit_s)), str(int(through))],
            input=address,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=limit_s + 5,
            env=os.environ | {_LOG_LEVEL: level},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0, None
    lines = done.stdout.splitlines()
    said = [line.partition("] ")[2].strip() for line in lines if line.startswith(_CHILD_MARK)]
    return next((int(line) for line in lines if line.isdecimal()), 0), said[-1] if said else None


_change = threading.Condition()
_users = 0
_options: str | None = None
_ours: set[str] = set()
_level = 0


@contextmanager
def _surroundings(options: str | None) -> Iterator[None]:
    """Set FFmpeg's options, which OpenCV takes from the environment alone, and silence both, while a video is opened.

    Several threads may open with the same options at once; one that wants others waits, so that none gets another's.
    What the user set stays. Afterwards OpenCV is left at errors: its warnings repeat what the log says here.
    """
    global _users, _options, _level
    with _change:
        _change.wait_for(lambda: _users == 0 or _options == options)
        if _users == 0:
            _options = options
            if options is not None:
                _set(_OPTIONS, options)
            # FFmpeg takes its level when it is first used.
            if "OPENCV_FFMPEG_DEBUG" not in os.environ:
                _set(_LOG_LEVEL, _QUIET)
            if "OPENCV_LOG_LEVEL" not in os.environ:
                _level = min(_LOGGING.getLogLevel(), _ERRORS)
                _LOGGING.setLogLevel(_SILENT)
        _users += 1
    try:
        yield
    finally:
        with _change:
            _users -= 1
            if _users == 0:
                for name in _ours:
                    os.environ.pop(name, None)
                _ours.clear()
                if "OPENCV_LOG_LEVEL" not in os.environ:
                    _LOGGING.setLogLevel(_level)
                _change.notify_all()


def _set(name: str, value: str) -> None:
    if name not in os.environ:
        os.environ[name] = value
        _ours.add(name)

"""Cameras of this computer, through OpenCV: V4L2 on Linux, AVFoundation on macOS, Media Foundation on Windows."""

import logging
import os
import stat
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2

from ..video4linux import Camera, capabilities, find_cameras
from .live import LiveSource
from .opencv import CaptureDevice, fourcc_of, open_video
from .source import Capture, GoneError

__all__ = ["Camera", "cameras", "open_camera"]

_LOG = logging.getLogger(__name__)

_BACKENDS = {"linux": cv2.CAP_V4L2, "darwin": cv2.CAP_AVFOUNDATION, "win32": cv2.CAP_MSMF}

# Where the system's files begin, and where Linux keeps names of cameras that stay.
_ROOT = Path("/")
_STABLE = Path("/dev/v4l/by-id")
_PROCESSES = Path("/proc")

# The number of V4L2's devices in Linux (Documentation/admin-guide/devices.txt).
_MAJOR = 81

# So many names of programs are enough.
_MOST_HOLDERS = 3

# With two buffers the driver fills one while the other is read; with one it misses every second picture.
_BUFFERS = 2

# From this width on, raw pictures don't go through USB 2 at full rate.
_WIDE = 1280


def cameras(*, but: Path | None = None) -> tuple[Camera, ...]:
    """List the cameras of this computer; only Linux tells, elsewhere it is empty.

    A camera has several devices, of which one gives its pictures; the others are left out.

    Args:
        but: A device that is left out.
    """
    # What a container sees of its host in /sys alone is not here.
    return tuple(camera for camera in find_cameras(_ROOT, capabilities, but=but) if camera.path.exists())


def open_camera(which: int | Path, *, capture: Capture) -> LiveSource:
    """Open a camera by its number or device path.

    Raises:
        SourceError: It is absent, busy, may not be used, or gives no picture.
    """
    name = f"camera {which}"
    path = _ROOT / f"dev/video{which}" if isinstance(which, int) else which
    on_linux = sys.platform == "linux"
    stable = _stable_link(path) if on_linux else None

    def open_device() -> CaptureDevice:
        # Plugged in again, it may get another number.
        here = stable if stable is not None and stable.exists() else path
        if on_linux and not here.exists():
            raise GoneError(f"{here} does not exist")
        return _open(str(here) if on_linux else which, capture, name)

    def explain(reason: str | None) -> str:
        if reason is None:
            return f"{name} gives no picture within {capture.open_s:g} s; unplug it and plug it in again"
        if on_linux:
            return f"{_explain(name, path)}; {_others(path)}"
        # Elsewhere OpenCV tells no more than that.
        return (
            f"{name} cannot be opened: it is absent (check its cable and number), or busy (close what else uses it), "
            f"or forbidden ({_PERMISSION.get(sys.platform, 'see who may use its device')})"
        )

    return LiveSource(name, open_device, capture=capture, explain=explain)


_PERMISSION = {
    "darwin": "allow this terminal to use it in System Settings, Privacy & Security, Camera",
    "win32": "allow desktop apps to use it in Settings, Privacy & security, Camera",
}


def _open(what: int | str | Path, capture: Capture, name: str) -> CaptureDevice:
    video = open_video(
        str(what) if isinstance(what, Path) else what, _BACKENDS.get(sys.platform, cv2.CAP_ANY)
    )
    if video is None:
        raise GoneError("it cannot be opened")
    # The format decides which sizes there are, and the size which rates.
    wide = capture.size is not None and capture.size[0] >= _WIDE
    fourcc = capture.fourcc or ("MJPG" if wide and sys.platform == "linux" else None)
    wanted: dict[int, float] = {}
    if fourcc is not None:
        wanted[cv2.CAP_PROP_FOURCC] = cv2.VideoWriter.fourcc(*fourcc)
    if capture.size is not None:
        wanted |= {cv2.CAP_PROP_FRAME_WIDTH: capture.size[0], cv2.CAP_PROP_FRAME_HEIGHT: capture.size[1]}
    if capture.fps is not None:
        wanted[cv2.CAP_PROP_FPS] = capture.fps
    for key, value in wanted.items():
        video.set(key, value)
    video.set(cv2.CAP_PROP_BUFFERSIZE, _BUFFERS)
    _tell_differences(video, capture, name)
    return CaptureDevice(video, stamped=sys.platform == "linux")


def _tell_differences(video: cv2.VideoCapture, capture: Capture, name: str) -> None:
    size = round(video.get(cv2.CAP_PROP_FRAME_WIDTH)), round(video.get(cv2.CAP_PROP_FRAME_HEIGHT))
    if capture.size is not None and size != tuple(capture.size):
        _LOG.warning("%s gives %dx%d, not %dx%d", name, *size, *capture.size)
    fps = video.get(cv2.CAP_PROP_FPS)
    if capture.fps is not None and fps > 0 and abs(fps - capture.fps) > 0.5:
        _LOG.warning("%s gives %g frames a second, not %g", name, fps, capture.fps)
    if capture.fourcc is not None:
        fourcc = fourcc_of(video)
        if fourcc != capture.fourcc:
            _LOG.warning("%s gives the format %s, not %s", name, fourcc, capture.fourcc)


def _explain(name: str, path: Path) -> str:
    """Say what is wrong with a camera on Linux: absent, forbidden, busy, or else."""
    if not path.exists():
        return f"there is no {name}: {path} does not exist"
    if not _is_camera(path):
        return f"{path} is no camera's device"
    if not os.access(path, os.R_OK | os.W_OK):
        return (
            f"{name} may not be used: {path} allows it to others only; join its group with "
            f"`sudo usermod -aG {path.group()} $USER` and log in again"
        )
    holders = ", ".join(islice(_holders(path), _MOST_HOLDERS))
    if holders:
        return f"{name} is busy: {path} is held by {holders}; close that"
    return f"{name} gives no picture: {path} is busy, or gives no video; close what uses it, or unplug it"


def _is_camera(path: Path) -> bool:
    status = path.stat()
    return stat.S_ISCHR(status.st_mode) and os.major(status.st_rdev) == _MAJOR


def _others(path: Path) -> str:
    # The driver of the one that failed may hang.
    others = cameras(but=path)
    if not others:
        return "there is no other camera here"
    return "there is " + ", ".join(f"{camera.path} ({camera.name})" for camera in others)


def _holders(path: Path) -> Iterator[str]:
    """Name the other processes that have a device open; those of other users only root sees."""
    target = path.resolve()
    for process in sorted(_PROCESSES.glob("[0-9]*"), key=lambda process: int(process.name)):
        if process.name == str(os.getpid()):
            continue
        try:
            held = any(Path(link).resolve() == target for link in (process / "fd").iterdir())
        except OSError:  # gone meanwhile, or another user's
            continue
        if held:
            yield f"{_read(process / 'comm') or 'a process'} (process {process.name})"


def _stable_link(path: Path) -> Path | None:
    """Give the link that follows a camera when it is plugged in elsewhere; None where it has none."""
    if path.parent == _STABLE or not path.exists():
        return None
    links = sorted(_STABLE.iterdir()) if _STABLE.is_dir() else []
    return next((link for link in links if link.resolve() == path.resolve()), None)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""

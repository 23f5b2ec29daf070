"""Linux's cameras (Video4Linux): which there are, what they are called, and whether this user may open them.

It needs the standard library alone: the doctor lists cameras where OpenCV is what is missing.
"""

import os
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

# VIDIOC_QUERYCAP and its struct v4l2_capability: driver, card, bus, version, capabilities, those of this node
# (linux/videodev2.h).
_QUERY = 0x80685600
_ANSWER = struct.Struct("16s32s32sIII12x")
_CAPTURES = 0x1 | 0x1000  # V4L2_CAP_VIDEO_CAPTURE, V4L2_CAP_VIDEO_CAPTURE_MPLANE
_MEMORY_TO_MEMORY = 0x8000 | 0x4000  # V4L2_CAP_VIDEO_M2M, V4L2_CAP_VIDEO_M2M_MPLANE: a codec

# The Raspberry Pi's codecs, and its image processors, which capture what a program feeds to them. A user who may not
# open them has only the name to tell them by.
_NO_CAMERAS = ("bcm2835-codec", "bcm2835-isp", "pispbe", "rpivid", "rpi-hevc")


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera that this computer has.

    Attributes:
        path: What a program opens.
        name: What its driver calls it.
        refusal: Why it cannot be opened; empty where it can.
    """

    path: Path
    name: str
    refusal: str = ""


def capabilities(handle: int) -> int:
    """Ask the driver behind an open device what this node can do."""
    import fcntl  # Windows has none

    answer = fcntl.ioctl(handle, _QUERY, bytes(_ANSWER.size))
    return int(_ANSWER.unpack(answer)[5])


def find_cameras(
    root: Path = Path("/"), ask: Callable[[int], int] = capabilities, *, but: Path | None = None
) -> Iterator[Camera]:
    """List the cameras in the order of their numbers; a container's may be in /sys alone, and are refused.

    A camera has several devices, of which one gives its pictures; the others are left out.

    Args:
        root: Where the system's files begin.
        ask: Asks a driver.
        but: A device that is left out without a question, as one whose driver may hang.
    """
    about, devices = root / "sys/class/video4linux", root / "dev"
    names = {node.name for folder in (about, devices) for node in folder.glob("video*")}
    numbers = sorted(int(name[5:]) for name in names if re.fullmatch(r"video\d+", name))
    for device in (devices / f"video{number}" for number in numbers):
        node = about / device.name
        name = _text(node / "name") or "camera"
        if device == but or name.startswith(_NO_CAMERAS):
            continue
        try:
            handle = os.open(device, os.O_RDWR | os.O_NONBLOCK)
        except OSError as error:
            # A camera's second node gives metadata; which it is no closed device tells, but the first has index 0.
            if _text(node / "index") in ("", "0"):
                yield Camera(device, name, error.strerror or str(error))
            continue
        try:
            can = ask(handle)
        except OSError:
            can = 0
        finally:
            os.close(handle)
        if can & _CAPTURES and not can & _MEMORY_TO_MEMORY:
            yield Camera(device, name)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""

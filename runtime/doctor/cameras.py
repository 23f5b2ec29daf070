"""Cameras: which there are, what they are called, and whether this user may open them (Linux's Video4Linux)."""

import os
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .finding import Finding

# VIDIOC_QUERYCAP and its struct v4l2_capability: driver, card, bus, version, capabilities, those of this node
# (linux/videodev2.h).
_QUERY = 0x80685600
_ANSWER = struct.Struct("16s32s32sIII12x")
_CAPTURES = 0x1 | 0x1000  # V4L2_CAP_VIDEO_CAPTURE, V4L2_CAP_VIDEO_CAPTURE_MPLANE
_MEMORY_TO_MEMORY = 0x8000 | 0x4000  # V4L2_CAP_VIDEO_M2M, V4L2_CAP_VIDEO_M2M_MPLANE: a codec

# The Raspberry Pi's image processors, which capture what a program feeds to them.
_NO_CAMERAS = ("bcm2835-isp", "pispbe", "rpivid", "rpi-hevc")

# Ribbon cameras give raw sensor data here. What makes pictures of it: a Raspberry Pi's libcamera, a Jetson's Argus.
_RIBBON = {
    (
        "unicam",
        "rp1-cfe",
    ): "Open it as the source `picamera`, which needs `sudo apt install python3-picamera2`.",
    (
        "vi-output",
    ): "Open it as the source `csi:0`, which needs an OpenCV with GStreamer, such as JetPack's own.",
}


@dataclass(frozen=True, slots=True)
class Camera:
    """A camera.

    Attributes:
        device: What a program opens.
        name: What its driver calls it.
        refusal: Why it cannot be opened; empty where it can.
    """

    device: Path
    name: str
    refusal: str = ""


def capabilities(handle: int) -> int:
    """Ask the driver behind an open device what this node can do."""
    import fcntl  # Windows has none

    answer = fcntl.ioctl(handle, _QUERY, bytes(_ANSWER.size))
    return int(_ANSWER.unpack(answer)[5])


def cameras(root: Path = Path("/"), ask: Callable[[int], int] = capabilities) -> Iterator[Camera]:
    """List the cameras in the order of their numbers.

    Args:
        root: Where the system's files begin.
        ask: Asks a driver.
    """
    nodes = (root / "sys/class/video4linux").glob("video*")
    for node in sorted(nodes, key=lambda node: int(re.sub(r"\D", "", node.name) or 0)):
        name = _text(node / "name") or node.name
        device = root / "dev" / node.name
        if name.startswith(_NO_CAMERAS):
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


def camera_findings(root: Path = Path("/"), ask: Callable[[int], int] = capabilities) -> Iterator[Finding]:
    """Examine the cameras; one finding each, or one that says that there is none."""
    found = list(cameras(root, ask))
    if not found:
        yield Finding(
            "camera.none",
            "note",
            "no camera found",
            "Plug one in if one is wanted; in a container hand it in with `--device /dev/video0`.",
        )
    for camera in found:
        ident = f"camera.{camera.device.name}"
        details = {"device": str(camera.device), "name": camera.name}
        number = re.sub(r"\D", "", camera.device.name)
        if camera.refusal:
            yield Finding(
                ident,
                "problem",
                f"camera {number}, {camera.name}, cannot be opened ({camera.device}: {camera.refusal})",
                _refusal_cure(camera.device),
                details | {"reason": camera.refusal},
            )
        elif cure := next((cure for names, cure in _RIBBON.items() if camera.name.startswith(names)), ""):
            yield Finding(
                ident,
                "note",
                f"camera {number}, {camera.name}, is a ribbon camera, which gives raw sensor data here",
                cure,
                details,
            )
        else:
            yield Finding(ident, "ok", f"camera {number}: {camera.name}", details=details)


def _refusal_cure(device: Path) -> str:
    try:
        os.stat(device)  # noqa: PTH116
    except OSError:
        return "Hand the device into the container with `--device`, or plug the camera out and in again."
    if not os.access(device, os.R_OK | os.W_OK, effective_ids=True):
        return "Let this user open cameras with `sudo usermod -aG video $USER`, and log in again."
    return "Plug the camera out and in again, and look into `dmesg` for what its driver says."


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""

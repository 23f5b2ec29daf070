"""Cameras: which there are, what they are called, and whether this user may open them (Linux's Video4Linux)."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from ..video4linux import capabilities, find_cameras
from .finding import Finding

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


def camera_findings(root: Path = Path("/"), ask: Callable[[int], int] = capabilities) -> Iterator[Finding]:
    """Examine the cameras; one finding each, or one that says that there is none.

    Args:
        root: Where the system's files begin.
        ask: Asks a driver.
    """
    found = list(find_cameras(root, ask))
    if not found:
        yield Finding(
            "camera.none",
            "note",
            "no camera found",
            "Plug one in if one is wanted; in a container hand it in with `--device /dev/video0`.",
        )
    for camera in found:
        ident = f"camera.{camera.path.name}"
        details = {"device": str(camera.path), "name": camera.name}
        number = re.sub(r"\D", "", camera.path.name)
        if camera.refusal:
            yield Finding(
                ident,
                "problem",
                f"camera {number}, {camera.name}, cannot be opened ({camera.path}: {camera.refusal})",
                _refusal_cure(camera.path),
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

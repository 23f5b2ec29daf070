"""Lays out what Linux shows of video devices.

Drivers cannot be had in a test: devices are files, which answer in a driver's place what they hold.
"""

import os
from pathlib import Path

CAPTURE, METADATA, CODEC = 0x04200001, 0x04A00000, 0x04208000


def node(root: Path, number: int, name: str, can: int = CAPTURE, *, index: int = 0) -> Path:
    """Lay out a device, and give its path.

    Args:
        root: Where the system's files begin.
        number: The device's.
        name: What its driver calls it.
        can: What its driver says that it can do.
        index: Its place among the camera's devices.
    """
    about = root / "sys/class/video4linux" / f"video{number}"
    about.mkdir(parents=True)
    (about / "name").write_text(f"{name}\n")
    (about / "index").write_text(f"{index}\n")
    device = root / "dev" / f"video{number}"
    device.parent.mkdir(exist_ok=True)
    device.write_text(str(can))
    return device


def ask(handle: int) -> int:
    """Ask a device that `node` laid out, in the place of a driver."""
    return int(os.read(handle, 20))

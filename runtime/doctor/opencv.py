"""OpenCV: its wheels, whether it loads, what it reads and what it draws."""

import sys
from collections.abc import Generator, Mapping
from typing import Any

from .finding import Finding
from .loading import loading
from .screen import screen_is_named
from .wheels import wheels


def opencv() -> Generator[Finding, None, str | None]:
    """Examine OpenCV.

    Yields:
        What is found.

    Returns:
        What it draws windows with, ``NONE`` for nothing; None where it does not load.
    """
    plain, headless = ("opencv-python", "opencv-contrib-python"), ("opencv-python-headless",)
    values = yield from loading(
        "cv2",
        "opencv",
        "OpenCV",
        wheels("cv2"),
        keep=(*plain, *headless) if screen_is_named() else (*headless, *plain),
        without="no image can be read",
        more=lambda values: ", no windows" if values["gui"] == "NONE" else f", windows by {values['gui']}",
    )
    if values is None:
        return None
    yield video(values)
    yield fonts(values)
    return str(values["gui"])


def video(values: Mapping[str, Any]) -> Finding:
    """Say which ways there are to read video.

    Args:
        values: What `try_opencv` gives.
    """
    there = set(values["video"])
    wanted = ("FFMPEG", "V4L2") if sys.platform == "linux" else ("FFMPEG",)
    lacking = [name for name in wanted if name not in there]
    details = {"backends": sorted(there)}
    if lacking:
        what = {"FFMPEG": "video files and network streams", "V4L2": "cameras"}
        return Finding(
            "opencv.video",
            "note",
            f"OpenCV was built without {' and '.join(lacking)}: it cannot open "
            f"{' and '.join(what[name] for name in lacking)}",
            "Take the wheel from the package index instead: `pip install opencv-python-headless`.",
            details,
        )
    shown = [name for name in ("FFMPEG", "V4L2", "GSTREAMER") if name in there]
    without = "" if "GSTREAMER" in there else " (no GStreamer)"
    return Finding("opencv.video", "ok", f"video by {', '.join(shown)}{without}", details=details)


def fonts(values: Mapping[str, Any]) -> Finding:
    """Say whether labels beyond ASCII can be drawn.

    Args:
        values: What `try_opencv` gives.
    """
    if values["unicode"]:
        return Finding("opencv.fonts", "ok", "draws labels in any alphabet with its built-in font")
    return Finding(
        "opencv.fonts",
        "note",
        f"OpenCV {values['version']} draws ASCII only: other letters of a label come out as question marks",
        "For labels in other alphabets `pip install --upgrade` your OpenCV wheel to 5.0 or newer, which has a font.",
    )

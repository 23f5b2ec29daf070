"""OpenCV: its wheels, whether it loads, what it reads and what it draws."""

import sys
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from .child import attempt
from .finding import Finding
from .loading import load_failure, unmet
from .screen import screen_is_named
from .wheels import wheel_findings, wheels


def opencv() -> Generator[Finding, None, str | None]:
    """Examine OpenCV.

    Yields:
        What is found.

    Returns:
        What it draws windows with, ``NONE`` for nothing; None where it does not load.
    """
    found = wheels("cv2")
    outcome = attempt("try_opencv")
    # Of a mix that was half removed a wheel is left without its files.
    if outcome.missing == "cv2" and not found:
        yield Finding(
            "opencv.load",
            "problem",
            "OpenCV is not installed: no image can be read",
            "`pip install 'vit-edge[runtime]'`, or `'vit-edge[runtime-headless]'` on a device without a screen.",
        )
        return None
    plain, headless = ("opencv-python", "opencv-contrib-python"), ("opencv-python-headless",)
    keep = (*plain, *headless) if screen_is_named() else (*headless, *plain)
    broken = list(wheel_findings("opencv", found, keep=keep, version=outcome.values.get("version")))
    yield from broken
    if outcome.failure:
        yield load_failure("opencv", "OpenCV", found, outcome)
        return None
    values = outcome.values
    if not any(finding.severity == "problem" for finding in broken):
        origin = f"wheel {found[0].name}" if found else f"no wheel, from {Path(values['file']).parent}"
        windows = "no windows" if values["gui"] == "NONE" else f"windows by {values['gui']}"
        yield Finding(
            "opencv.load",
            "ok",
            f"OpenCV {values['version']} ({origin}), {windows}",
            details={**values, "wheels": [str(wheel) for wheel in found]},
        )
    for wheel in found:
        yield from unmet(wheel)
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

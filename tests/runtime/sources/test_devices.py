"""Cameras of a Raspberry Pi and of a Jetson: what is asked of picamera2, and pipelines in a real GStreamer.

No such camera is here: picamera2 is replaced by a module that does as its manual says (version 0.3, sections 4 to 6),
and pipelines take GStreamer's test picture.
"""

import os
import shutil
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import vit_edge.runtime
from vit_edge.errors import SourceError
from vit_edge.runtime import Capture, open_source

from ...streams import DEBIAN_PYTHON

CALLS: list[Any] = []


class Request:
    """A completed request of libcamera's."""

    def make_array(self, name: str) -> Any:
        assert name == "main"
        return np.full((48, 64, 3), (250, 20, 10), np.uint8)

    def get_metadata(self) -> dict[str, int]:
        return {"SensorTimestamp": time.monotonic_ns() - 40_000_000}

    def release(self) -> None:
        CALLS.append("release")


class Picamera2:
    """The calls of picamera2's class."""

    @staticmethod
    def global_camera_info() -> list[dict[str, Any]]:
        return [{"Model": "imx708", "Num": 0}]

    def __init__(self, number: int) -> None:
        CALLS.append(number)

    def create_video_configuration(self, **options: Any) -> dict[str, Any]:
        return options

    def configure(self, configuration: dict[str, Any]) -> None:
        CALLS.append(configuration)

    def start(self) -> None:
        CALLS.append("start")

    def capture_request(self) -> Request:
        time.sleep(0.02)
        return Request()

    def close(self) -> None:
        CALLS.append("close")


def test_a_raspberry_pis_camera_gives_fresh_rgb_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its format names are reversed, and its queue holds a picture from before it was asked."""
    monkeypatch.setitem(sys.modules, "picamera2", SimpleNamespace(Picamera2=Picamera2))
    CALLS.clear()
    with open_source("picamera", capture=Capture(size=(640, 480), fps=15)) as source:
        assert source.name == "picamera 0"
        assert source.live
        assert source.fps == 15
        frames = list(islice(source, 3))
        # The sensor's own time.
        assert time.monotonic() - frames[-1].captured_s >= 0.04
    assert frames[0].image[0, 0].tolist() == [250, 20, 10]
    assert CALLS[:3] == [
        0,
        {"main": {"size": (640, 480), "format": "BGR888"}, "controls": {"FrameRate": 15}, "queue": False},
        "start",
    ]
    assert CALLS.count("release") >= 3
    assert CALLS[-1] == "close"


def test_a_raspberry_pis_camera_that_is_not_there_says_what_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library, too: it comes with the system, not from an index."""
    monkeypatch.setitem(sys.modules, "picamera2", SimpleNamespace(Picamera2=Picamera2))
    with pytest.raises(SourceError, match=r"there is no picamera 1; there is picamera:0 \(imx708\)"):
        open_source("picamera:1")
    monkeypatch.setitem(sys.modules, "picamera2", None)
    with pytest.raises(SourceError, match=r"`sudo apt install python3-picamera2`"):
        open_source("picamera:0")


PIPELINES = """
import sys
from itertools import islice
from app.vision import SourceError, open_source

for text in sys.argv[1:]:
    try:
        with open_source(text) as source:
            frames = list(islice(source, 3))
            print(source.name, source.live, frames[0].image.shape, frames[0].image[0, 0].tolist())
    except SourceError as error:
        print(error)
"""


def test_a_pipeline_runs_in_a_real_gstreamer(tmp_path: Path) -> None:
    """The wheels of OpenCV have no GStreamer; the one that comes with a Jetson, and Debian's, do."""
    found = subprocess.run(
        [
            DEBIAN_PYTHON,
            "-c",
            "import cv2; assert 'GStreamer:                   YES' in cv2.getBuildInformation()",
        ],
        capture_output=True,
        check=False,
    )
    if found.returncode:
        pytest.skip("needs Debian's python3-opencv, an OpenCV with GStreamer")
    # The folder works by itself, and Debian's Python has nothing of ours.
    shutil.copytree(Path(vit_edge.runtime.__file__).parent, tmp_path / "app" / "vision")
    (tmp_path / "app" / "__init__.py").touch()
    (tmp_path / "main.py").write_text(PIPELINES)
    red = "videotestsrc is-live=true pattern=red ! video/x-raw,width=320,height=240,framerate=30/1"
    done = subprocess.run(
        [DEBIAN_PYTHON, "main.py", red, "absent user-pw=open-sesame ! appsink"],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == f"{red} True (240, 320, 3) [255, 0, 0]"
    assert second.startswith(
        "absent user-pw=… ! appsink gives no video (it does not run); see what `gst-launch-1.0 "
    )
    assert "open-sesame" not in done.stdout + done.stderr


def test_an_opencv_without_gstreamer_says_where_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """`csi:0` on a Jetson after `pip install opencv-python` is the usual way to meet it."""
    monkeypatch.setattr("cv2.videoio_registry.getBackends", list)
    for source in ("csi:0", "videotestsrc ! appsink"):
        with pytest.raises(
            SourceError, match=r"needs an OpenCV with GStreamer, and this one .* has none: take"
        ):
            open_source(source)

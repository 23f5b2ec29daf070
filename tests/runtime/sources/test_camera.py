"""Cameras: what is asked of the driver, what is said when it fails, and a driver that hangs.

No camera is here, so ``cv2.VideoCapture`` is replaced by a driver that the tests command; all else is the real thing,
with the folders that Linux keeps of its devices.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from vit_edge.errors import SourceError
from vit_edge.runtime import Capture, open_source
from vit_edge.runtime.sources import camera as camera_module
from vit_edge.runtime.sources import cameras

from ..video_devices import CAPTURE, METADATA, ask, node

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="plays a Linux camera's driver")

PERIOD_S = 0.02


@dataclass
class Driver:
    """What the replaced driver does, and what was asked of it."""

    present: bool = True
    gives: bool = True
    hangs: bool = False
    stamp_s: float = 0.0
    largest: tuple[int, int] = (1280, 720)
    opened: list[tuple[Any, int]] = field(default_factory=list)
    asked: list[tuple[int, float]] = field(default_factory=list)
    released: int = 0
    pictures: int = 0
    decoded: int = 0


class Video:
    """A ``cv2.VideoCapture`` of the commanded driver."""

    driver: Driver

    def __init__(self, what: Any, backend: int, settings: list[int]) -> None:
        self.driver.opened.append((what, backend))
        self.properties: dict[int, float] = {}
        self.open = self.driver.present

    def isOpened(self) -> bool:  # noqa: N802
        return self.open

    def set(self, key: int, value: float) -> bool:
        self.driver.asked.append((key, value))
        place = {cv2.CAP_PROP_FRAME_WIDTH: 0, cv2.CAP_PROP_FRAME_HEIGHT: 1}.get(key)
        self.properties[key] = value if place is None else min(value, self.driver.largest[place])
        return True

    def get(self, key: int) -> float:
        if key == cv2.CAP_PROP_POS_MSEC:
            return 1000 * (time.monotonic() - self.driver.stamp_s) if self.driver.stamp_s else 0.0
        return self.properties.get(key, 0.0)

    def grab(self) -> bool:
        time.sleep(PERIOD_S)
        while self.driver.hangs:
            time.sleep(0.01)
        self.driver.pictures += 1
        return self.driver.present and self.driver.gives

    def retrieve(self) -> tuple[bool, NDArray[np.uint8] | None]:
        self.driver.decoded += 1
        return True, np.full((2, 2, 3), (255, 0, self.driver.pictures % 256), np.uint8)  # blue first

    def release(self) -> None:
        self.driver.released += 1


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    """Give a driver, and two cameras in Linux's folders; the second has a node for its settings, as many have."""
    for number, (name, index) in enumerate(
        [("HD Webcam: HD Webcam", 0), ("Microscope", 0), ("Microscope", 1)]
    ):
        node(tmp_path, number, name, METADATA if index else CAPTURE, index=index)
    (tmp_path / "by-id").mkdir()
    (tmp_path / "by-id" / "usb-microscope").symlink_to(tmp_path / "dev" / "video1")
    monkeypatch.setattr(camera_module, "_ROOT", tmp_path)
    monkeypatch.setattr(camera_module, "capabilities", ask)
    monkeypatch.setattr(camera_module, "_STABLE", tmp_path / "by-id")
    # A plain file stands for a device node.
    monkeypatch.setattr(camera_module, "_is_camera", lambda path: True)
    Video.driver = Driver()
    monkeypatch.setattr(cv2, "VideoCapture", Video)
    yield Video.driver
    Video.driver.hangs = False


def test_a_camera_gives_rgb_frames_with_the_drivers_time(driver: Driver, tmp_path: Path) -> None:
    """The driver's stamp counts the time that a picture waited in its buffer; ours would not."""
    driver.stamp_s = 0.25
    with open_source(0) as source:
        assert source.name == "camera 0"
        assert source.live
        (frame,) = islice(source, 1)
        assert 0.25 <= time.monotonic() - frame.captured_s < 0.7
    assert frame.name == "camera 0"
    assert frame.image[0, 0].tolist()[1:] == [0, 255]
    assert driver.opened == [(str(tmp_path / "dev" / "video0"), cv2.CAP_V4L2)]
    assert driver.released == 1


def test_a_stamp_of_another_clock_is_not_believed(driver: Driver) -> None:
    """Some drivers stamp with the time of day; an age of fifty years helps nobody."""
    driver.stamp_s = -3600.0
    with open_source("0") as source:
        (frame,) = islice(source, 1)
        assert 0 <= time.monotonic() - frame.captured_s < 0.5


def test_the_driver_is_asked_for_the_format_before_the_size(driver: Driver) -> None:
    """The other way round V4L2 refuses sizes that only the new format has."""
    with open_source("1", capture=Capture(size=(640, 480), fps=15, fourcc="YUYV")):
        assert driver.asked == [
            (cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"YUYV")),
            (cv2.CAP_PROP_FRAME_WIDTH, 640),
            (cv2.CAP_PROP_FRAME_HEIGHT, 480),
            (cv2.CAP_PROP_FPS, 15),
            (cv2.CAP_PROP_BUFFERSIZE, 2),
        ]


def test_a_large_picture_is_asked_for_as_mjpg(driver: Driver) -> None:
    """Raw, a 720p webcam gives ten pictures a second, and people blame the model."""
    with open_source(0, capture=Capture(size=(1280, 720))):
        assert driver.asked[0] == (cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))


def test_what_the_camera_does_not_give_is_told(driver: Driver, caplog: pytest.LogCaptureFixture) -> None:
    """A driver takes any wish and answers with the nearest that it has."""
    with open_source(0, capture=Capture(size=(1920, 1080))):
        pass
    assert "camera 0 gives 1280x720, not 1920x1080" in caplog.text


def test_the_cameras_are_listed_with_their_names(driver: Driver) -> None:
    """A number says nothing; a node that gives no pictures would only confuse."""
    assert [(camera.path.name, camera.name) for camera in cameras()] == [
        ("video0", "HD Webcam: HD Webcam"),
        ("video1", "Microscope"),
    ]


def test_an_absent_camera_names_those_that_are_here(driver: Driver, tmp_path: Path) -> None:
    """The commonest mistake is the wrong number."""
    dev = tmp_path / "dev"
    with pytest.raises(SourceError) as caught:
        open_source(7)
    assert str(caught.value) == (
        f"there is no camera 7: {dev}/video7 does not exist; "
        f"there is {dev}/video0 (HD Webcam: HD Webcam), {dev}/video1 (Microscope)"
    )
    for path in dev.iterdir():
        path.unlink()
    with pytest.raises(SourceError, match=r"; there is no other camera here$"):
        open_source(0)


def test_a_busy_camera_names_who_holds_it(driver: Driver, tmp_path: Path) -> None:
    """'Cannot open camera' is most often a video call that runs on."""
    driver.gives = False
    device = tmp_path / "dev" / "video0"
    script = "import sys; file = open(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(device)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    holder.stdout.readline()
    try:
        message = rf"camera 0 is busy: .*video0 is held by \S+ \(process {holder.pid}\); close that; there is .*video1"
        with pytest.raises(SourceError, match=message):
            open_source(0)
        assert driver.released == 1
    finally:
        holder.communicate()


def test_a_forbidden_camera_says_how_to_be_allowed(
    driver: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Debian a new user is not in the group video."""
    driver.present = False
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may always
    with pytest.raises(SourceError, match=r"camera 0 may not be used: .*`sudo usermod -aG \w+ \$USER`"):
        open_source(0)


@pytest.mark.parametrize(
    ("platform", "where"),
    [("darwin", "System Settings, "), ("win32", "desktop apps"), ("freebsd14", "who may")],
)
def test_off_linux_the_three_causes_are_named(
    platform: str, where: str, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There nobody tells which it is, so one has to be able to go through them."""
    driver.present = False
    monkeypatch.setattr(camera_module, "sys", SimpleNamespace(platform=platform))
    message = rf"^camera 3 cannot be opened: it is absent \(check.*, or busy \(close.*, or forbidden \(.*{where}.*\)$"
    with pytest.raises(SourceError, match=message):
        open_source(3)
    assert driver.opened[0][0] == 3


def test_a_device_path_that_is_no_camera_is_refused() -> None:
    """The real folders of this machine, and OpenCV's real driver call."""
    with pytest.raises(
        SourceError, match=r"there is no camera /dev/video99: /dev/video99 does not exist; there is"
    ):
        open_source("/dev/video99")
    with pytest.raises(SourceError, match=r"/dev/null is no camera's device"):
        open_source("/dev/null")
    with pytest.raises(SourceError, match="expected a camera's number from 0, got -1"):
        open_source(-1)


def test_a_camera_that_was_plugged_in_again_is_found_under_its_new_number(
    driver: Driver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Linux gives a camera the next free number, and the program still holds the old one."""
    dev, link = tmp_path / "dev", tmp_path / "by-id" / "usb-microscope"
    with open_source(1) as source:
        next(iter(source))
        driver.present = False
        link.unlink()
        (dev / "video1").unlink()
        time.sleep(0.5)
        (dev / "video3").touch()
        link.symlink_to(dev / "video3")
        driver.present = True
        back_s = time.monotonic()
        next(frame for frame in source if frame.captured_s > back_s)
        assert driver.opened[-1][0] == str(link)
        assert [gap.reason for gap in source.gaps] == ["it gives no more pictures"]
        assert source.gaps[0].seconds > 0.45
    assert "camera 1 went away" in caplog.text
    assert "camera 1 is back after" in caplog.text


def test_the_pauses_before_opening_again_grow(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A camera that is away for a month must not be looked for five times a second."""
    with open_source(0) as source:
        driver.present = False
        opened: list[float] = []
        while len(opened) < 4:
            if len(driver.opened) - 1 > len(opened):
                opened.append(time.monotonic())
            time.sleep(0.005)
        pauses = np.diff(opened)
        assert (np.diff(pauses) > 0.04).all()
        assert len(source.gaps) == 1


@pytest.mark.parametrize("how", ["close", "timeout"])
def test_a_driver_that_hangs_holds_nobody(driver: Driver, how: str) -> None:
    """A bad USB hub stops a driver call for ever, and no time limit of the driver's helps."""
    with open_source(0, capture=Capture(stall_s=0.3)) as source:
        next(iter(source))
        driver.hangs = True
        if how == "close":
            threading.Timer(0.3, source.close).start()
            start = time.monotonic()
            assert len(list(source)) < 3
            assert time.monotonic() - start < 1.3
        else:
            threading.Timer(2.0, lambda: setattr(driver, "hangs", False)).start()
            start = time.monotonic()
            frame = next(frame for frame in source if frame.captured_s > start + 1)
            assert time.monotonic() - frame.captured_s < 0.3
            assert [gap.reason for gap in source.gaps] == ["no picture for 0.3 s"]
            assert len(driver.opened) == 2
    driver.hangs = False


def test_a_camera_that_opens_and_gives_nothing_is_an_error(driver: Driver) -> None:
    """It must not look like a source that has yet to begin."""
    driver.hangs = True
    with pytest.raises(SourceError, match=r"camera 0 gives no picture within 0\.5 s; unplug it"):
        open_source(0, capture=Capture(stall_s=0.5, open_s=0.5))


def test_pictures_that_nobody_takes_are_not_decoded(driver: Driver) -> None:
    """On a battery, a look once a minute must not cost what thirty a second do."""
    with open_source(0) as source:
        frames = iter(source)
        next(frames)
        time.sleep(0.6)
        assert driver.pictures > 15
        assert driver.decoded < 8
        asked_s = time.monotonic()
        assert next(frames).captured_s > asked_s - PERIOD_S
        assert source.dropped > 10


def test_counting_is_exact(driver: Driver) -> None:
    """Every picture is either given or dropped, also when the one who takes them is slow."""
    with open_source(0) as source:
        frames = []
        for frame in source:
            frames.append(frame)
            time.sleep(0.03 * (len(frames) % 3))
            if len(frames) == 30:
                break
        passed = frames[-1].number + 1 - len(frames)
    assert passed > 10
    assert passed <= source.dropped <= passed + 4  # and those that came after the last

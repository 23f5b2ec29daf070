"""Cameras are named, and one that this user may not open is a problem.

Drivers cannot be had in a test: devices are files, which answer in a driver's place what they hold.
"""

import os
from pathlib import Path

import pytest

from vit_edge.runtime.doctor.cameras import Camera, camera_findings, cameras

CAPTURE, METADATA, CODEC = 0x04200001, 0x04A00000, 0x04208000


def node(root: Path, number: int, name: str, can: int = CAPTURE, *, index: int = 0) -> Path:
    """Lay out what Linux shows of a video device."""
    about = root / "sys/class/video4linux" / f"video{number}"
    about.mkdir(parents=True)
    (about / "name").write_text(f"{name}\n")
    (about / "index").write_text(f"{index}\n")
    device = root / "dev" / f"video{number}"
    device.parent.mkdir(exist_ok=True)
    device.write_text(str(can))
    return device


def ask(handle: int) -> int:
    return int(os.read(handle, 20))


def test_a_camera_is_named_and_its_other_nodes_are_not(tmp_path: Path) -> None:
    """A USB camera has a second node for metadata, a board has codecs; none of them gives pictures."""
    second = node(tmp_path, 10, "Second camera")
    device = node(tmp_path, 0, "HD Webcam: HD Webcam")
    node(tmp_path, 1, "HD Webcam: HD Webcam", METADATA, index=1)
    node(tmp_path, 11, "bcm2835-codec-decode", CODEC)
    node(tmp_path, 13, "bcm2835-isp-capture0")
    assert list(cameras(tmp_path, ask)) == [
        Camera(device, "HD Webcam: HD Webcam"),
        Camera(second, "Second camera"),
    ]
    found = {finding.id: finding for finding in camera_findings(tmp_path, ask)}
    assert list(found) == ["camera.video0", "camera.video10"]
    assert found["camera.video0"].severity == "ok"
    assert found["camera.video0"].found == "camera 0: HD Webcam: HD Webcam"


def test_a_user_outside_the_group_video_is_told_how_to_join(tmp_path: Path) -> None:
    """The commonest reason why a service sees no camera."""
    device = node(tmp_path, 0, "HD Webcam")
    node(tmp_path, 1, "HD Webcam", METADATA, index=1).chmod(0)
    device.chmod(0)
    tmp_path.chmod(0o755)
    root = os.geteuid() == 0
    if root:  # whom no permission stops
        for folder in (*tmp_path.parents, tmp_path):
            if not folder.stat().st_mode & 0o001:
                folder.chmod(folder.stat().st_mode | 0o011)
        os.seteuid(65534)
    try:
        (finding,) = camera_findings(tmp_path, ask)
    finally:
        if root:
            os.seteuid(0)
    assert finding.severity == "problem"
    assert finding.found == f"camera 0, HD Webcam, cannot be opened ({device}: Permission denied)"
    assert "`sudo usermod -aG video $USER`" in finding.cure


def test_a_camera_that_a_container_lacks_is_told(tmp_path: Path) -> None:
    """It sees the host's /sys, and a /dev of its own."""
    node(tmp_path, 0, "HD Webcam").unlink()
    (finding,) = camera_findings(tmp_path, ask)
    assert finding.severity == "problem"
    assert "No such file or directory" in finding.found
    assert "`--device`" in finding.cure


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("unicam-image", "`picamera`"),
        ("rp1-cfe-csi2_ch0", "`picamera`"),
        ("vi-output, imx219 9-0010", "`csi:0`"),
    ],
)
def test_a_ribbon_camera_is_told_to_need_more(name: str, source: str, tmp_path: Path) -> None:
    """A Raspberry Pi's and a Jetson's: OpenCV opens it and gets no picture."""
    node(tmp_path, 0, name)
    (finding,) = camera_findings(tmp_path, ask)
    assert finding.severity == "note"
    assert "ribbon camera" in finding.found
    assert source in finding.cure


def test_what_no_driver_answers_for_is_no_camera(tmp_path: Path) -> None:
    """With the real question, which a file does not understand."""
    node(tmp_path, 0, "no camera")
    (finding,) = camera_findings(tmp_path)
    assert finding.id == "camera.none"
    assert finding.severity == "note"


def test_a_system_without_cameras_is_told(tmp_path: Path) -> None:
    """Nothing is wrong with that."""
    (finding,) = camera_findings(tmp_path)
    assert finding.found == "no camera found"

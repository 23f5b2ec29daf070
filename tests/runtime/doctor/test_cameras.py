"""Cameras are named, and one that this user may not open is a problem."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vit_edge.runtime.doctor.cameras import camera_findings
from vit_edge.runtime.sources import camera
from vit_edge.runtime.video4linux import Camera, find_cameras

from ..video_devices import CAPTURE, CODEC, METADATA, ask, node


@contextmanager
def outside_the_group(root: Path) -> Iterator[None]:
    """Be a user who may open none of the devices that `node` laid out."""
    for device in (root / "dev").iterdir():
        device.chmod(0)
    root.chmod(0o755)
    privileged = os.geteuid() == 0
    if privileged:  # whom no permission stops
        for folder in (*root.parents, root):
            if not folder.stat().st_mode & 0o001:
                folder.chmod(folder.stat().st_mode | 0o011)
        os.seteuid(65534)
    try:
        yield
    finally:
        if privileged:
            os.seteuid(0)
        for device in (root / "dev").iterdir():
            device.chmod(0o600)


def test_a_camera_is_named_and_its_other_nodes_are_not(tmp_path: Path) -> None:
    """A USB camera has a second node for metadata, a board has codecs; none of them gives pictures."""
    second = node(tmp_path, 10, "Second camera")
    device = node(tmp_path, 0, "HD Webcam: HD Webcam")
    node(tmp_path, 1, "HD Webcam: HD Webcam", METADATA, index=1)
    node(tmp_path, 11, "bcm2835-codec-decode", CODEC)
    node(tmp_path, 13, "bcm2835-isp-capture0")
    assert list(find_cameras(tmp_path, ask)) == [
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
    node(tmp_path, 1, "HD Webcam", METADATA, index=1)
    with outside_the_group(tmp_path):
        (finding,) = camera_findings(tmp_path, ask)
    assert finding.severity == "problem"
    assert finding.found == f"camera 0, HD Webcam, cannot be opened ({device}: Permission denied)"
    assert "`sudo usermod -aG video $USER`" in finding.cure


def test_a_user_outside_the_group_sees_the_same_cameras(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Raspberry Pi's codecs have an index of 0 as well, and no driver answers this user that they are none."""
    for number, (name, can, index) in enumerate(
        [
            ("HD Webcam", CAPTURE, 0),
            ("HD Webcam", METADATA, 1),
            ("Depth camera", CAPTURE, 0),
            ("bcm2835-codec-decode", CODEC, 0),
            ("bcm2835-codec-encode", CODEC, 0),
            ("bcm2835-isp-output0", 0x04200002, 0),
            ("bcm2835-isp-capture0", CAPTURE, 0),
            ("pispbe-output0", CAPTURE, 0),
            ("rpivid", CODEC, 0),
            ("rpi-hevc-dec", CODEC, 0),
        ]
    ):
        node(tmp_path, number, name, can, index=index)
    monkeypatch.setattr(camera, "_ROOT", tmp_path)
    monkeypatch.setattr(camera, "capabilities", ask)

    def listed() -> list[tuple[str, str]]:
        found = [(one.path.name, one.name) for one in find_cameras(tmp_path, ask)]
        # What an error names in the place of a camera that fails is what the doctor lists.
        assert found == [(one.path.name, one.name) for one in camera.cameras()]
        names = {finding.id for finding in camera_findings(tmp_path, ask)}
        assert names == {f"camera.{name}" for name, _ in found}
        return found

    inside = listed()
    assert inside == [("video0", "HD Webcam"), ("video2", "Depth camera")]
    with outside_the_group(tmp_path):
        assert listed() == inside
    second = node(tmp_path, 10, "Depth camera", CAPTURE, index=1)
    assert listed()[-1] == (second.name, "Depth camera")


def test_what_is_in_sys_alone_is_no_camera_of_this_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container sees its host's /sys: the doctor says what is lacking, and an error names no other camera."""
    node(tmp_path, 0, "HD Webcam").unlink()
    device = node(tmp_path, 1, "Microscope")
    monkeypatch.setattr(camera, "_ROOT", tmp_path)
    monkeypatch.setattr(camera, "capabilities", ask)
    assert [one.path for one in camera.cameras()] == [device]
    assert len(list(camera_findings(tmp_path, ask))) == 2
    assert camera.cameras(but=device) == ()


def test_a_camera_whose_driver_lets_nobody_in_is_to_be_plugged_in_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a bad cable; a socket in the device's place refuses as such a driver does, whoever asks."""
    device = node(tmp_path, 0, "HD Webcam")
    device.unlink()
    monkeypatch.chdir(device.parent)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as closed:
        closed.bind(device.name)
        (finding,) = camera_findings(tmp_path, ask)
    assert finding.severity == "problem"
    assert "No such device or address" in finding.found
    assert "look into `dmesg`" in finding.cure


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

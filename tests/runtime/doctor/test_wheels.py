"""Wheels that overwrite each other are found, whatever they are called."""

import subprocess
import sys
from pathlib import Path

import pytest

from vit_edge.runtime.doctor.loading import unmet
from vit_edge.runtime.doctor.wheels import Wheel, wheel_findings, wheels

from .machines import environment, examined, install

PLAIN = {"onnxruntime/__init__.py": "plain", "onnxruntime/capi/core.so": "core of the plain wheel"}
GPU = {
    "onnxruntime/__init__.py": "for graphics cards",
    "onnxruntime/capi/core.so": "core for graphics cards",
    "onnxruntime/capi/cuda.so": "cuda",
}
KEEP = ("onnxruntime-gpu", "onnxruntime")


def found_in(*folders: Path) -> tuple[Wheel, ...]:
    return wheels("onnxruntime", [str(folder) for folder in folders])


def test_two_wheels_of_one_module_are_a_problem(tmp_path: Path) -> None:
    """Both are listed by pip, and one runs with files of the other; whose they are decides what happens."""
    install(tmp_path, "onnxruntime", "1.32.0", PLAIN)
    install(tmp_path, "onnxruntime-gpu", "1.31.1", GPU)
    (finding,) = wheel_findings("onnxruntime", found_in(tmp_path), keep=KEEP, version=None)
    assert finding.severity == "problem"
    assert finding.id == "onnxruntime.wheels"
    for wheel in ("onnxruntime 1.32.0", "onnxruntime-gpu 1.31.1"):
        assert wheel in finding.found
    assert "2 files belong to both" in finding.found
    assert finding.found.endswith("mostly that of onnxruntime-gpu 1.31.1")
    assert "`pip install onnxruntime-gpu`" in finding.cure
    assert "`pip uninstall -y " in finding.cure


def test_the_wheel_that_was_written_last_is_named(tmp_path: Path) -> None:
    """Installed the other way round, CUDA has gone and pip still says that it is there."""
    install(tmp_path, "onnxruntime-gpu", "1.31.1", GPU)
    install(tmp_path, "onnxruntime", "1.32.0", PLAIN)
    (finding,) = wheel_findings("onnxruntime", found_in(tmp_path), keep=KEEP, version=None)
    assert finding.found.endswith("mostly that of onnxruntime 1.32.0")


def test_what_is_left_of_a_mix_is_damaged(tmp_path: Path) -> None:
    """To uninstall one of two takes the other's files away as well, and pip lists it as if nothing were missing."""
    install(tmp_path, "onnxruntime-gpu", "1.31.1", GPU)
    (tmp_path / "onnxruntime/capi/core.so").unlink()
    (finding,) = wheel_findings("onnxruntime", found_in(tmp_path), keep=KEEP, version=None)
    assert finding.severity == "problem"
    assert finding.id == "onnxruntime.damaged"
    assert finding.found.startswith("1 of 3 files of onnxruntime-gpu 1.31.1 are gone or changed")
    assert "onnxruntime/capi/core.so" in finding.found
    assert "`pip install --force-reinstall --no-deps onnxruntime-gpu==1.31.1`" in finding.cure


def test_one_whole_wheel_is_nothing_to_speak_of(tmp_path: Path) -> None:
    """Files that Python compiles later are not the wheel's."""
    install(tmp_path, "onnxruntime", "1.32.0", PLAIN | {"onnxruntime/__pycache__/__init__.pyc": "compiled"})
    (tmp_path / "onnxruntime/__pycache__/__init__.pyc").write_text("compiled anew")
    assert list(wheel_findings("onnxruntime", found_in(tmp_path), keep=KEEP, version=None)) == []


def test_a_wheel_in_another_folder_is_hidden_and_not_overwritten(tmp_path: Path) -> None:
    """As one of the user's site beside one of the environment."""
    install(tmp_path / "first", "onnxruntime", "1.32.0", PLAIN)
    install(tmp_path / "second", "onnxruntime", "1.20.0", PLAIN)
    (finding,) = wheel_findings(
        "onnxruntime", found_in(tmp_path / "first", tmp_path / "second"), keep=KEEP, version=None
    )
    assert finding.severity == "note"
    assert finding.found.startswith(f"onnxruntime 1.32.0 in {tmp_path / 'first'} hides onnxruntime 1.20.0")


def test_other_wheels_do_not_count(tmp_path: Path) -> None:
    """Their names alone are alike: onnxruntime-genai brings another module."""
    install(tmp_path, "onnxruntime-genai", "1.0", {"onnxruntime_genai/__init__.py": ""})
    assert found_in(tmp_path) == ()


def test_this_environment_has_one_wheel_of_each() -> None:
    """The records of real wheels are read, and are found whole."""
    for module in ("onnxruntime", "cv2"):
        (wheel,) = wheels(module)
        assert len(wheel.sizes) > 10
        assert wheel.damaged == ()


def test_an_older_numpy_than_a_wheel_wants_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pip warns of it once, while it installs, and never again."""
    install(tmp_path, "visionkit", "1.0", {"visionkit/__init__.py": ""}, requires="numpy>=999")
    monkeypatch.syspath_prepend(tmp_path)
    (wheel,) = wheels("visionkit")
    (finding,) = unmet(wheel)
    assert finding.id == "packages.numpy"
    assert finding.found.startswith("visionkit 1.0 wants numpy>=999, and numpy ")
    assert finding.cure == "`pip install 'numpy>=999'`."


def test_a_package_that_a_wheel_wants_and_that_is_absent_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after `pip install --no-deps`: the wheel may load, and fail later."""
    install(tmp_path, "visionkit", "1.0", {"visionkit/__init__.py": ""}, requires="visionkit-weights>=2")
    monkeypatch.syspath_prepend(tmp_path)
    (finding,) = unmet(wheels("visionkit")[0])
    assert finding.id == "packages.visionkit-weights"
    assert finding.found == (
        "visionkit 1.0 wants visionkit-weights>=2, and visionkit-weights is not installed"
    )
    assert finding.cure == "`pip install 'visionkit-weights>=2'`."


def test_what_a_wheel_wants_elsewhere_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV's wheel wants an old NumPy of an old Python only."""
    wants = 'numpy<1; python_version < "3"'
    install(tmp_path, "visionkit", "1.0", {"visionkit/__init__.py": ""}, requires=wants)
    monkeypatch.syspath_prepend(tmp_path)
    assert list(unmet(wheels("visionkit")[0])) == []


@pytest.mark.slow
def test_both_opencv_wheels_from_the_index_are_found(tmp_path: Path) -> None:
    """What people get whose other packages require one each; and after half a cure, what is left."""
    python = environment(tmp_path / "venv", "opencv-python", "opencv-python-headless")
    findings = examined(python=python)
    wheels_found = findings["opencv.wheels"]
    assert wheels_found["severity"] == "problem"
    assert {wheel["name"] for wheel in wheels_found["details"]["wheels"]} == {
        "opencv-python",
        "opencv-python-headless",
    }
    assert wheels_found["details"]["on_disk"].startswith("opencv-python-headless ")
    # The same environment has no ONNX Runtime.
    assert findings["onnxruntime.load"]["severity"] == "problem"
    assert "`pip install 'vit-edge[runtime]'`" in findings["onnxruntime.load"]["cure"]

    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    subprocess.run(
        [*pip, "uninstall", "-y", "-q", "opencv-python"], check=True, timeout=120, capture_output=True
    )
    findings = examined(python=python)
    assert findings["opencv.damaged"]["severity"] == "problem"
    assert findings["opencv.load"]["severity"] == "problem"
    subprocess.run(
        [*pip, "install", "-q", "--force-reinstall", "--no-deps", "opencv-python-headless"],
        check=True,
        timeout=300,
        capture_output=True,
    )
    findings = examined(python=python)
    assert findings["opencv.load"]["severity"] == "ok"
    assert not {"opencv.damaged", "opencv.wheels"} & set(findings)

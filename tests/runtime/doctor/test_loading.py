"""What is installed and does not load, crashes or hangs is named with its reason, and stops nothing."""

import os
import re
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest

from vit_edge.runtime.doctor import child
from vit_edge.runtime.doctor.engine import provider_finding
from vit_edge.runtime.doctor.opencv import fonts, video

from ..openvino import needs_openvino, run
from .machines import cured, environment, examined, module

OPENVINO = os.environ.get("VIT_EDGE_OPENVINO_PYTHON")

linux = pytest.mark.skipif(sys.platform != "linux", reason="libraries are found otherwise on other systems")


def mirror(package: Path, folder: Path, *, without: str) -> Path:
    """Copy a package and the libraries beside it by links, all but some of them, and give the folder.

    The loader looks for a library beside the file that wants it, by the name under which that was loaded.
    """
    places = [package, *package.parent.glob("*.libs")]
    for place in places:
        for file in place.rglob("*"):
            if file.is_file() and without not in file.name and "__pycache__" not in file.parts:
                copy = folder / file.relative_to(package.parent)
                copy.parent.mkdir(parents=True, exist_ok=True)
                # A module looks for what belongs to it beside the file that its own name leads to.
                if file.suffix == ".py":
                    shutil.copy(file, copy)
                else:
                    copy.symlink_to(file)
    return folder


def test_all_is_in_order_here() -> None:
    """The very environment in which all other tests pass."""
    findings = examined()
    assert findings["onnxruntime.load"]["severity"] == "ok"
    assert findings["onnxruntime.load"]["found"].startswith(f"ONNX Runtime {onnxruntime.__version__} (wheel ")
    assert findings["onnxruntime.cpu"] == {
        "id": "onnxruntime.cpu",
        "severity": "ok",
        "found": "cpu starts and computes rightly",
        "cure": "",
        "details": {},
    }
    assert findings["opencv.load"]["severity"] == "ok"
    assert findings["opencv.load"]["found"].startswith(f"OpenCV {cv2.__version__} (wheel opencv-")
    assert findings["opencv.video"]["severity"] == "ok"
    assert f"NumPy {version('numpy')}" in findings["system.python"]["found"]
    assert not any(finding["severity"] == "problem" for finding in findings.values())


def test_without_opencv_the_providers_are_examined_all_the_same(tmp_path: Path) -> None:
    """What is missing is told apart from what works."""
    absent = "raise ModuleNotFoundError(\"No module named 'cv2'\", name='cv2')"
    findings = examined(first=module(tmp_path, "cv2", absent))
    assert findings["onnxruntime.load"]["severity"] == "ok"
    assert findings["onnxruntime.cpu"]["severity"] == "ok"
    assert findings["opencv.load"]["severity"] == "problem"


@linux
def test_a_library_that_opencv_lacks_is_named(tmp_path: Path) -> None:
    """A real one is hidden from the real wheel; on a fresh machine without a screen it is libGL."""
    first = mirror(Path(cv2.__file__).parent, tmp_path, without="libavcodec")
    finding = examined(first=first, part="opencv.opencv")["opencv.load"]
    assert finding["severity"] == "problem"
    assert "does not load: libavcodec-" in finding["found"]
    assert "cannot open shared object file" in finding["found"]
    assert "libavcodec-" in finding["cure"]


def test_a_package_that_a_wheel_needs_is_named(tmp_path: Path) -> None:
    """The real OpenCV, with its NumPy hidden, as after `pip install --no-deps`."""
    absent = "raise ModuleNotFoundError(\"No module named 'numpy'\", name='numpy')"
    finding = examined(first=module(tmp_path, "numpy", absent), part="opencv.opencv")["opencv.load"]
    assert finding["severity"] == "problem"
    assert finding["found"].endswith(" does not load: No module named 'numpy'")
    assert re.fullmatch(
        r"Install it anew with all that it wants: `pip install --force-reinstall opencv-[\w-]+`\.",
        finding["cure"],
    )


@linux
@pytest.mark.parametrize(
    ("lacking", "what"), [("V4L2", "cameras"), ("FFMPEG", "video files and network streams")]
)
def test_an_opencv_that_lacks_a_way_to_read_video_is_told(lacking: str, what: str) -> None:
    """The real one, which lets its ways be taken away by a variable."""
    env = {f"OPENCV_VIDEOIO_PRIORITY_{lacking}": "0"}
    finding = examined(part="opencv.opencv", env=env)["opencv.video"]
    assert finding["severity"] == "note"
    assert finding["found"] == f"OpenCV was built without {lacking}: it cannot open {what}"
    assert "`pip install opencv-python-headless`" in finding["cure"]


CRASHES = """
import os, signal

__version__ = "1.32.0"

class InferenceSession:
    pass

def get_available_providers():
    return ["CPUExecutionProvider"]

def SessionOptions():
    os.kill(os.getpid(), signal.SIGSEGV)
"""


def test_a_provider_that_crashes_as_it_starts_is_told(tmp_path: Path) -> None:
    """The crash is real, and takes no more than the trial with it; who crashes is made up."""
    findings = examined(first=module(tmp_path, "onnxruntime", CRASHES), part="engine.engine")
    finding = findings["onnxruntime.cpu"]
    assert finding["severity"] == "problem"
    assert finding["found"] == "cpu does not start: its process was ended by SIGSEGV"
    assert finding["cure"].startswith("Install its wheel anew: `pip install --force-reinstall --no-deps ")


def test_a_desktops_library_is_cured_by_the_wheel_for_no_screen(tmp_path: Path) -> None:
    """The words are the loader's; this machine may well have the library."""
    text = "raise ImportError('libGL.so.1: cannot open shared object file: No such file or directory')"
    first = module(tmp_path, "cv2", text)
    about = first / "opencv_python-4.13.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: opencv-python\nVersion: 4.13.0\n")
    (about / "RECORD").write_text(f"cv2/__init__.py,sha256=,{len(text)}\n")
    finding = examined(first=first, part="opencv.opencv")["opencv.load"]
    assert "OpenCV (opencv-python 4.13.0" in finding["found"]
    assert "libGL.so.1" in finding["found"]
    assert "`pip uninstall -y opencv-python`, then `pip install opencv-python-headless`" in finding["cure"]


@pytest.mark.parametrize(
    ("text", "words", "cure"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "ended by SIGILL", "older"),
        ("raise ImportError('numpy.core.multiarray failed to import')", "multiarray", "another NumPy"),
        (
            'raise ImportError("/lib/libm.so.6: version `GLIBC_2.38\' not found")',
            "GLIBC_2.38",
            "update the system",
        ),
        (
            "print('noise'); raise RuntimeError('two\\nlines')",
            "does not load: two lines",
            "Install it anew: ",
        ),
    ],
    ids=["a crash", "another NumPy", "an old system", "anything else"],
)
def test_a_wheel_that_fails_as_it_loads_is_told_with_its_cure(
    text: str, words: str, cure: str, tmp_path: Path
) -> None:
    """A crash takes the whole process with it, and so happens in another one."""
    findings = examined(first=module(tmp_path, "onnxruntime", text))
    assert findings["onnxruntime.load"]["severity"] == "problem"
    assert words in findings["onnxruntime.load"]["found"]
    assert cure in findings["onnxruntime.load"]["cure"]
    # The rest was examined all the same.
    assert findings["opencv.load"]["severity"] == "ok"


def test_a_trial_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a window on a screen that is locked up."""
    monkeypatch.syspath_prepend(module(tmp_path, "cv2", "import time; time.sleep(100)"))
    outcome = child.attempt("try_opencv", timeout_s=0.5)
    assert outcome.failure == "it did not end within 0 s"


def test_neither_wheel_is_there(tmp_path: Path) -> None:
    """The examination tells what to install, and needs nothing of it, not even NumPy."""
    findings = examined(python=environment(tmp_path))
    for area, what in (("onnxruntime", "ONNX Runtime"), ("opencv", "OpenCV")):
        finding = findings[f"{area}.load"]
        assert finding["severity"] == "problem"
        assert finding["found"].startswith(f"{what} is not installed")
        assert "`pip install 'vit-edge[runtime]'`" in finding["cure"]


def test_an_opencv_without_video_or_fonts_is_told() -> None:
    """As of a distribution's own package; of no wheel on the index could it be made true."""
    without = {"version": "4.6.0", "video": ["CV_IMAGES", "V4L2"], "unicode": False}
    assert video(without).severity == "note"
    assert "without FFMPEG: it cannot open video files and network streams" in video(without).found
    assert fonts(without).severity == "note"


@linux
@pytest.mark.skipif(
    OPENVINO is None, reason="VIT_EDGE_OPENVINO_PYTHON names no environment with that provider"
)
def test_the_library_that_a_provider_lacks_is_named(tmp_path: Path) -> None:
    """The real OpenVINO provider, with OpenVINO's own library hidden from it."""
    assert OPENVINO is not None
    findings = examined(python=OPENVINO, part="engine.engine")
    assert findings["onnxruntime.openvino"]["severity"] == "ok"
    (package,) = Path(OPENVINO).parents[1].glob("lib/python3.*/site-packages/onnxruntime")
    first = mirror(package, tmp_path, without="libopenvino.so")
    findings = examined(python=OPENVINO, first=first, part="engine.engine")
    finding = findings["onnxruntime.openvino"]
    assert finding["severity"] == "problem"
    assert "openvino does not start: it lacks the library libopenvino.so." in finding["found"]
    assert "`pip install --force-reinstall onnxruntime-openvino`" in finding["cure"]
    # The processor's own provider works in the same wheel.
    assert findings["onnxruntime.cpu"]["severity"] == "ok"


LEAVES = """
from pathlib import Path
from vit_edge.runtime.doctor import try_onnxruntime as trial

trial.product = Path(sys.argv[1]).read_bytes
tell(**trial.provider("openvino"))
"""


@needs_openvino
def test_a_provider_that_starts_and_leaves_the_work_to_the_cpu_is_a_problem(tmp_path: Path) -> None:
    """ONNX Runtime calls that success, and the answer is right: here of a real product that OpenVINO does not know."""
    onnx = pytest.importorskip("onnx")
    given, doubled = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, (2, 4))
        for name in ("given", "doubled")
    )
    weights = onnx.numpy_helper.from_array(2 * np.eye(4, dtype=np.float32), "weights")
    node = onnx.helper.make_node("TransposeMatMul", ["given", "weights"], ["doubled"], domain="com.microsoft")
    graph = onnx.helper.make_graph([node], "trial", [given], [doubled], [weights])
    opsets = [onnx.helper.make_opsetid("", 13), onnx.helper.make_opsetid("com.microsoft", 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    (tmp_path / "trial.onnx").write_bytes(model.SerializeToString())
    (told,), _ = run(LEAVES, tmp_path / "trial.onnx")
    assert told == {"right": True, "ran_on": ["cpu"]}
    finding = provider_finding("openvino", child.Outcome(values=told), ())
    assert finding.severity == "problem"
    assert finding.found == "openvino starts and leaves even a small product to cpu"
    assert cured(finding.cure)


def test_a_provider_that_computes_wrongly_is_a_problem() -> None:
    """A driver's fault; none that computes wrongly is at hand, so that its answer is made up."""
    wrong = child.Outcome(values={"right": False, "ran_on": ["cuda"]})
    finding = provider_finding("cuda", wrong, ())
    assert finding.severity == "problem"
    assert finding.found == "cuda starts and computes a wrong product"
    assert finding.cure == "Update its driver and ONNX Runtime, or choose another provider."


@linux
@pytest.mark.slow
@pytest.mark.skipif(Path("/proc/driver/nvidia/version").exists(), reason="there is a GPU, which would work")
def test_cuda_without_its_libraries_is_a_problem_that_names_them(tmp_path: Path) -> None:
    """The commonest of all: ONNX Runtime itself goes on with the CPU and a line in the log."""
    python = environment(tmp_path / "venv", "onnxruntime-gpu")
    findings = examined(python=python)
    cuda = findings["onnxruntime.cuda"]
    assert cuda["severity"] == "problem"
    for library in ("libcublasLt.so.", "libcublas.so.", "libcuda.so.1"):
        assert any(name.startswith(library) for name in cuda["details"]["missing_libraries"])
    assert "cuda does not start: it lacks the libraries lib" in cuda["found"]
    assert "`pip install 'onnxruntime-gpu[cuda,cudnn]'`" in cuda["cure"]
    assert findings["onnxruntime.tensorrt"]["severity"] == "note"
    assert findings["onnxruntime.cpu"]["severity"] == "ok"


@linux
@pytest.mark.slow
def test_an_opencv_of_another_numpy_is_told(tmp_path: Path) -> None:
    """Built for NumPy 1, and NumPy 2 came with something else; with its own NumPy it draws ASCII only."""
    python = environment(tmp_path / "venv", "opencv-python-headless==4.9.0.80", "numpy<2")
    findings = examined(python=python)
    assert findings["opencv.load"]["severity"] == "ok"
    assert findings["opencv.fonts"]["severity"] == "note"
    assert "OpenCV 4.9.0 draws ASCII only" in findings["opencv.fonts"]["found"]
    python = environment(tmp_path / "other", "opencv-python-headless==4.9.0.80", "numpy>=2")
    finding = examined(python=python)["opencv.load"]
    assert finding["severity"] == "problem"
    assert "It was built for another NumPy" in finding["cure"]


def test_a_gpu_that_the_wheel_cannot_use_is_told(tmp_path: Path) -> None:
    """Of the driver only its mark in /proc is made up; the wheel without CUDA is real."""
    from vit_edge.runtime.doctor.engine import engine

    assert not any(finding.id == "onnxruntime.gpu" for finding in engine(tmp_path))
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    (tmp_path / "proc/driver/nvidia/version").touch()
    (finding,) = (finding for finding in engine(tmp_path) if finding.id == "onnxruntime.gpu")
    assert finding.severity == "note"
    assert "`pip install 'vit-edge[runtime-gpu]'`" in finding.cure

"""OpenCV is loaded while the session opens, and what goes wrong in either is told as if nothing was done at once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import vit_edge
from vit_edge.runtime.beside import beside_opencv

from .onnx_writer import colour_model, flat_colour, save_picture


def run(script: str, *arguments: Path) -> list[str]:
    """Run a script in a new process, where OpenCV is not loaded yet."""
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(Path(vit_edge.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_session_opens_while_opencv_is_loaded() -> None:
    """Both take half of the time to the first answer."""
    script = """
import sys, threading
from vit_edge.runtime.beside import beside_opencv
print(beside_opencv(lambda: (threading.current_thread().name, "the work")))
print("cv2" in sys.modules)
print(beside_opencv(lambda: threading.current_thread().name))
"""
    assert run(script) == ["('vit-edge-open', 'the work')", "True", "MainThread"]


def test_nothing_loads_opencv_before_the_session(tmp_path: Path) -> None:
    """One import at the head of a module, and both are done one after the other again."""
    (tmp_path / "model.onnx").write_bytes(colour_model())
    picture = save_picture(tmp_path / "blue.png", flat_colour("blue"))
    script = """
import sys
from vit_edge.runtime import Classifier
print("cv2" in sys.modules)
print(Classifier(sys.argv[1])(sys.argv[2]).label)
"""
    assert run(script, tmp_path / "model.onnx", picture) == ["False", "blue"]


def test_what_the_session_refuses_is_raised(tmp_path: Path) -> None:
    """In the thread that called, with its own class and sentence."""
    script = """
import sys
from vit_edge.runtime import Classifier, ModelError
try:
    Classifier(sys.argv[1])
except ModelError as error:
    print(error)
"""
    (tmp_path / "a.onnx").write_bytes(colour_model()[:-1] + b"!")
    assert run(script, tmp_path / "a.onnx") == [
        f"{tmp_path / 'a.onnx'} was changed or damaged since its export; copy it again or export it anew"
    ]


def test_an_opencv_that_does_not_load_is_raised() -> None:
    """Its wheel with windows does not, on a machine without a screen."""
    script = """
import sys
sys.modules.pop("cv2", None)
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name == "cv2":
            raise ImportError("libGL.so.1: cannot open shared object file")
sys.meta_path.insert(0, Blocker())
from vit_edge.runtime.beside import beside_opencv
try:
    beside_opencv(lambda: print("opened"))
except ImportError as error:
    print(error)
"""
    assert run(script) == ["opened", "libGL.so.1: cannot open shared object file"]


def test_work_is_done_here_where_opencv_is_loaded_already() -> None:
    """A thread for nothing."""
    import cv2  # noqa: F401

    assert beside_opencv(lambda: 3) == 3
    with pytest.raises(KeyError):
        beside_opencv(lambda: {"present": 1}["absent"])

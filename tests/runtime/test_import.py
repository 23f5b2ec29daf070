"""The runtime is light: what it imports is what a device has."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import vit_edge.runtime

from .onnx_writer import colour_model, flat_colour, save_picture

FOLDER = Path(vit_edge.runtime.__file__).parent

ALLOWED = {"numpy", "onnxruntime", "cv2"}

# Any of these would cost a device seconds and hundreds of megabytes, or is not installed there.
FORBIDDEN = (
    "torch",
    "torchvision",
    "onnx",
    "onnxscript",
    "typer",
    "click",
    "rich",
    "safetensors",
    "PIL",
    "timm",
)

BLOCKER = f"""
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        assert name.partition(".")[0] not in {FORBIDDEN!r}, f"the runtime imports {{name}}"

sys.meta_path.insert(0, Blocker())
"""


def run(script: str, *arguments: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKER + script, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(Path(vit_edge.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    model = tmp_path / "colours.onnx"
    model.write_bytes(colour_model())
    return model, save_picture(tmp_path / "green.png", flat_colour("green"))


def test_the_runtime_answers_without_torch(files: tuple[Path, Path]) -> None:
    """The whole of the public surface, with everything that belongs to the workshop out of reach."""
    script = f"""
from vit_edge.runtime import *
print(Classifier(sys.argv[1])(sys.argv[2]).label, *(set(sys.modules) & {set(FORBIDDEN)!r}))
"""
    assert run(script, *files) == "green"


def test_importing_it_loads_only_the_errors_and_labels() -> None:
    """The command line's help names its classes on machines that have neither ONNX Runtime nor OpenCV."""
    script = "import vit_edge.runtime; print(sorted({'numpy', 'onnxruntime', 'cv2'} & set(sys.modules)))"
    assert run(script) == "[]"


def test_the_classifier_loads_nothing_that_an_answer_does_not_need(files: tuple[Path, Path]) -> None:
    """Each of these takes milliseconds of every start, and only a failure, a log or a compilation needs it."""
    spared = ("importlib.metadata", "email", "logging", "shutil", "tempfile", "concurrent.futures", "socket")
    script = f"""
import numpy, onnxruntime, cv2
before = set(sys.modules)
from vit_edge.runtime import Classifier
Classifier(sys.argv[1])(sys.argv[2])
print(sorted({set(spared)!r} & (set(sys.modules) - before)))
"""
    assert run(script, *files) == "[]"


def test_no_module_imports_more_than_a_device_has() -> None:
    """Read from the source, so that what is imported only seldom counts too."""
    modules = sorted(FOLDER.glob("**/*.py"))
    assert len(modules) > 8
    for module in modules:
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                roots = {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                roots = {(node.module or "").partition(".")[0]}
            elif isinstance(node, ast.ImportFrom):
                # One dot more than there are folders down to it would leave the folder.
                depth = len(module.relative_to(FOLDER).parts)
                assert node.level <= depth, f"{module.name} imports from above its folder, line {node.lineno}"
                continue
            else:
                continue
            strange = roots - ALLOWED - sys.stdlib_module_names
            assert not strange, f"{module.name} imports {strange}, line {node.lineno}"


def test_the_public_names_are_these() -> None:
    """All else is free to change; a name that goes or comes here is a change for users."""
    assert vit_edge.runtime.__all__ == [
        "Answer",
        "Capture",
        "Classifier",
        "Compiled",
        "Fan",
        "Frame",
        "Gap",
        "GrabSink",
        "ImageError",
        "JsonSink",
        "Label",
        "Labels",
        "Metadata",
        "ModelError",
        "Prediction",
        "Preprocessing",
        "ProviderError",
        "RecordSink",
        "Score",
        "Sink",
        "SinkError",
        "Source",
        "SourceError",
        "Summary",
        "TextSink",
        "VitEdgeError",
        "Watch",
        "WatchError",
        "WindowSink",
        "compile_model",
        "open_source",
        "read_image",
        "watch",
    ]
    for name in vit_edge.runtime.__all__:
        assert getattr(vit_edge.runtime, name).__name__ == name


def test_a_name_that_it_has_not_is_an_attribute_error() -> None:
    """Names are looked up late, which must not turn a typing mistake into another error."""
    with pytest.raises(AttributeError, match=r"module 'vit_edge.runtime' has no attribute 'Clasifier'"):
        vit_edge.runtime.Clasifier  # noqa: B018
    assert not hasattr(vit_edge.runtime, "__wrapped__")


def test_opencv_is_loaded_before_onnx_runtime() -> None:
    """Else the threads that it starts take a core from the session that opens meanwhile, 20 to 30 ms on two cores."""
    script = """
from vit_edge.runtime import Classifier
print(*(name for name in sys.modules if name in ("cv2", "onnxruntime")))
"""
    assert run(script) == "cv2 onnxruntime"

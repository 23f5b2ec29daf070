"""CUDA's and TensorRT's providers for real, where a GPU is at hand; and what a machine without one is told.

VIT_EDGE_GPU_PYTHON names a python with onnxruntime-gpu, numpy and OpenCV.
"""

import ctypes
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vit_edge.runtime import Classifier

from .onnx_writer import colour_model, flat_colour, save_picture
from .openvino import run_elsewhere

PYTHON = os.environ.get("VIT_EDGE_GPU_PYTHON")


def has_gpu() -> bool:
    """Ask NVIDIA's driver, as CUDA itself does."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int()
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


needs_wheel = pytest.mark.skipif(
    PYTHON is None, reason="VIT_EDGE_GPU_PYTHON names no python with onnxruntime-gpu"
)
needs_gpu = pytest.mark.skipif(
    PYTHON is None or not has_gpu(), reason="needs an NVIDIA GPU and VIT_EDGE_GPU_PYTHON"
)

SCRIPT = """
import json, sys
from contextlib import contextmanager
from vit_edge.runtime import *

compiled = []

@contextmanager
def compiling(title):
    compiled.append(title)
    yield

try:
    with Classifier(sys.argv[1], sys.argv[2], compiling=compiling) as classifier:
        answers = classifier([sys.argv[3]] * 20, batch_size=20)
        print(json.dumps({
            "provider": classifier.provider,
            "placement": classifier.placement,
            "top": [[score.probability for score in answer.top] for answer in answers],
            "compiled": compiled,
        }))
except VitEdgeError as error:
    print(json.dumps({"error": type(error).__name__, "text": str(error)}))
"""


def opened(folder: Path, provider: str) -> tuple[dict[str, Any], str]:
    model = folder / "colours.onnx"
    model.write_bytes(colour_model())
    picture = save_picture(folder / "green.png", flat_colour("green"))
    cache = str(folder / "cache")
    done = run_elsewhere(PYTHON or "", SCRIPT, model, provider, picture, VIT_EDGE_CACHE=cache)
    told: dict[str, Any] = json.loads(done.stdout)
    return told, done.stderr


@needs_wheel
@pytest.mark.skipif(has_gpu(), reason="this machine has a GPU")
@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_without_cuda_the_library_that_is_missing_is_named(provider: str, tmp_path: Path) -> None:
    """ONNX Runtime would log it, print of a fallback, and run on the CPU."""
    told, errors = opened(tmp_path, provider)
    assert errors == ""
    assert told["error"] == "ProviderError"
    assert told["text"].startswith(f"the provider {provider} does not start (its library needs lib")
    assert ".so" in told["text"]
    assert "pip install" in told["text"]


@needs_gpu
@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_graph_runs_on_the_gpu_and_answers_as_on_the_cpu(provider: str, tmp_path: Path) -> None:
    """More images than TensorRT's engine takes at once are cut into batches that it takes."""
    told, _ = opened(tmp_path, provider)
    assert told["provider"] == provider
    assert told["placement"][provider] > 0
    here = Classifier(colour_model(), "cpu")(flat_colour("green"))
    expected = [[score.probability for score in here.top]] * 20
    np.testing.assert_allclose(told["top"], expected, rtol=1e-3)


@needs_gpu
def test_tensorrts_engine_is_built_once(tmp_path: Path) -> None:
    """Minutes for a network of real size; a damaged one is built anew."""
    first, _ = opened(tmp_path, "tensorrt")
    assert first["compiled"] == [f"compiling {tmp_path / 'colours.onnx'} for tensorrt"]
    assert opened(tmp_path, "tensorrt")[0]["compiled"] == []
    (engine,) = (tmp_path / "cache").rglob("*.engine")
    engine.write_bytes(engine.read_bytes()[: engine.stat().st_size // 2])
    assert opened(tmp_path, "tensorrt")[0]["compiled"] == first["compiled"]

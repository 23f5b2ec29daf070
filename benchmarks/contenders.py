"""What `latency.py` times: each contender answers images, and may live in another interpreter."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from vit_edge.export.targets import target
from vit_edge.reference import torch_logits
from vit_edge.runtime.preprocess import Preprocessing, normalise

Crop = NDArray[np.uint8]
Logits = NDArray[np.float32]

# In each turn a contender answers so often, after so many answers that are not counted.
_WARM_UPS, _RUNS = 3, 5


class Contender(Protocol):
    """Something that answers images and can be timed."""

    def logits(self, crop: Crop) -> Logits:
        """Answer one image: (height, width, 3) uint8 to (1, classes)."""
        ...

    def turn(self, crop: Crop) -> float:
        """Answer an image a few times, and give the mean time in milliseconds."""
        ...


@dataclass(frozen=True)
class Here:
    """A contender in this process: a function of its own input, made of an image beforehand."""

    given: Callable[[Crop], Any]
    run: Callable[[Any], Logits]

    def logits(self, crop: Crop) -> Logits:
        """Answer one image."""
        return self.run(self.given(crop))

    def turn(self, crop: Crop) -> float:
        """Time a few answers."""
        given = self.given(crop)
        for _ in range(_WARM_UPS):
            self.run(given)
        start = time.perf_counter()
        for _ in range(_RUNS):
            self.run(given)
        return (time.perf_counter() - start) * 1e3 / _RUNS


def torch_module(module: nn.Module, preprocessing: Preprocessing, threads: int) -> Here:
    """Run a module in torch."""

    def run(pixels: NDArray[np.float32]) -> Logits:
        torch.set_num_threads(threads)
        return torch_logits(module, pixels)

    return Here(lambda crop: normalise(crop, preprocessing)[None], run)


def file(path: Path, preprocessing: Preprocessing, threads: int) -> Here:
    """Open an ONNX file on ONNX Runtime's CPU provider."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    opened = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    source = opened.get_inputs()[0]
    raw = source.type == "tensor(uint8)"
    return Here(
        lambda crop: crop[None] if raw else normalise(crop, preprocessing)[None],
        lambda given: np.asarray(opened.run(None, {source.name: given})[0]),
    )


def openvino_model(model: Any, preprocessing: Preprocessing, threads: int) -> Here:
    """Compile for OpenVINO's processor plugin, bf16 allowed."""
    import openvino as ov

    compiled = ov.Core().compile_model(
        model,
        "CPU",
        {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "bf16", "PERFORMANCE_HINT": "LATENCY"},
    )
    return Here(
        lambda crop: normalise(crop, preprocessing)[None], lambda given: np.asarray(compiled(given)[0])
    )


def nncf_model(path: Path, preprocessing: Preprocessing, crops: list[Crop]) -> Any:
    """Quantize with NNCF: transformer preset, mixed."""
    import nncf
    import openvino as ov

    return nncf.quantize(
        ov.Core().read_model(path),
        nncf.Dataset([normalise(crop, preprocessing)[None] for crop in crops]),
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(crops),
    )


class Elsewhere:
    """A file on ONNX Runtime's OpenVINO provider, which lives in another environment, bf16 allowed."""

    def __init__(self, path: Path, python: Path, preprocessing: Preprocessing, threads: int) -> None:
        self._preprocessing = preprocessing
        aim = target("openvino")
        task = [str(path), aim.provider_name, aim.provider_options(threads), threads]
        self._child = subprocess.Popen(
            [str(python), "-c", _CHILD, json.dumps(task)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        if self._line() != "ready":
            sys.exit(f"{python} does not run {path.name} on {aim.provider_name}")

    def logits(self, crop: Crop) -> Logits:
        """Answer one image."""
        self._send("answer", crop)
        return np.frombuffer(bytes.fromhex(self._line()), np.float32)[None]

    def turn(self, crop: Crop) -> float:
        """Time a few answers."""
        self._send("time", crop)
        return float(self._line())

    def close(self) -> None:
        """End the other interpreter."""
        self._child.kill()

    def _send(self, task: str, crop: Crop) -> None:
        assert self._child.stdin is not None
        pixels = normalise(crop, self._preprocessing)
        self._child.stdin.write(f"{task} {pixels.nbytes} {json.dumps(pixels.shape)}\n".encode())
        self._child.stdin.write(pixels.tobytes())
        self._child.stdin.flush()

    def _line(self) -> str:
        assert self._child.stdout is not None
        return self._child.stdout.readline().decode().strip()


# Needs nothing but numpy and ONNX Runtime. That the provider has not handed the graph on is what the session tells.
_CHILD = f"""
import json, os, sys, time
answers = os.fdopen(os.dup(1), "w"); os.dup2(2, 1)
import numpy as np, onnxruntime
path, provider, options, threads = json.loads(sys.argv[1])
settings = onnxruntime.SessionOptions()
settings.intra_op_num_threads = threads
settings.log_severity_level = 3
session = onnxruntime.InferenceSession(path, settings, providers=[(provider, options)])
source = session.get_inputs()[0]
def say(text):
    print(text, file=answers, flush=True)
say("ready" if session.get_providers()[0] == provider else "fallback")
while line := sys.stdin.buffer.readline():
    task, size, shape = line.decode().split(" ", 2)
    pixels = np.frombuffer(sys.stdin.buffer.read(int(size)), np.float32).reshape(json.loads(shape))[None]
    run = lambda: session.run(None, {{source.name: pixels}})[0]
    if task == "answer":
        say(run().astype(np.float32).tobytes().hex())
        continue
    for _ in range({_WARM_UPS}):
        run()
    start = time.perf_counter()
    for _ in range({_RUNS}):
        run()
    say((time.perf_counter() - start) * 1e3 / {_RUNS})
"""

"""Times INT8 against float32, ONNX Runtime's own quantizer and torch, on the real ViT-Tiny at batch 1.

With the ``dev`` extra installed: ``python benchmarks/latency.py --shared DIR``, where DIR holds what
``benchmarks/accuracy.py`` names. All contenders take turns in one run, one thread and then two; beside each time
stands the agreement with torch on the 800 images, which no contender has seen. With the ``peers`` extra, OpenVINO's
INT8 model of NNCF takes part as well (transformer preset, the same calibration images, bf16 allowed).
"""

import argparse
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import quantize_dynamic

from vit_edge.checkpoint import Checkpoint, load_checkpoint
from vit_edge.cli.progress import progress
from vit_edge.data import list_images
from vit_edge.evaluation import compare
from vit_edge.export import Options, Precision, export_module
from vit_edge.reference import torch_logits
from vit_edge.runtime.image import read_image
from vit_edge.runtime.labels import Labels
from vit_edge.runtime.preprocess import Preprocessing, preprocess

PREPROCESSING = Preprocessing.parse("resize=248,crop=224,interpolation=bicubic,mean=0.5,std=0.5")
"""What the weights were trained with."""

# The calibration images that every contender with a choice is given.
CALIBRATION = 128

Pixels = NDArray[np.float32]
Contender = Callable[[Pixels], NDArray[np.float32]]


def main() -> None:
    """Make the contenders, time them, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--shared", type=Path, default=Path("../shared"), help="the folder of model and images"
    )
    parser.add_argument("--rounds", type=int, default=15, help="turns of each contender")
    options = parser.parse_args()
    data = options.shared / "data"
    checkpoint = load_checkpoint(
        options.shared / "models" / "vit_tiny_patch16_224.safetensors",
        labels=Labels.read(data / "imagenet1k_classes.txt"),
        preprocessing=PREPROCESSING,
    )
    calibration = list_images(data / "calibration250")[:CALIBRATION]
    images = [pixels(path) for path in list_images(data / "imagenet_val800")]
    with tempfile.TemporaryDirectory() as folder:
        makers = contenders(checkpoint, data / "calibration250", calibration, Path(folder))
        reference = np.concatenate([torch_logits(checkpoint.model, image) for image in images])
        for threads in (1, 2):
            torch.set_num_threads(threads)
            runners = {name: make(threads) for name, make in makers.items()}
            times = timed(runners, images[0], options.rounds)
            if threads == 1:
                agreement = {name: agreed(run, images, reference, name) for name, run in runners.items()}
            base = times["ONNX Runtime, float32"]
            print(
                f"\n{f'{threads} thread' + 's' * (threads > 1):34} {'ms':>7} {'/ float32':>10} {'agreement':>10}"
            )
            for name, value in times.items():
                print(f"{name:34} {value:7.2f} {value / base:10.2f} {100 * agreement[name]:8.2f} %")


def contenders(
    checkpoint: Checkpoint, folder: Path, calibration: tuple[Path, ...], scratch: Path
) -> dict[str, Callable[[int], Contender]]:
    """Make the files, and give for each contender what opens it on so many threads."""
    exported = {}
    for precision in ("float32", "int8"):
        exported[precision] = scratch / f"{precision}.onnx"
        export(checkpoint, folder, exported[precision], precision)
    defaults = scratch / "defaults.onnx"
    quantize_dynamic(exported["float32"], defaults)
    makers: dict[str, Callable[[int], Contender]] = {
        "torch, float32": lambda threads: lambda image: torch_logits(checkpoint.model, image),
        "ONNX Runtime, float32": lambda threads: session(exported["float32"], threads),
        "quantize_dynamic, defaults": lambda threads: session(defaults, threads),
        "vit-edge, int8": lambda threads: session(exported["int8"], threads),
    }
    if importlib.util.find_spec("nncf") and importlib.util.find_spec("openvino"):
        quantized = nncf_model(exported["float32"], calibration)
        makers["OpenVINO, int8 (NNCF), bf16"] = lambda threads: openvino(quantized, threads)
    return makers


def export(checkpoint: Checkpoint, folder: Path, output: Path, precision: Precision) -> None:
    """Export with the calibration images alone: the others are to measure."""
    export_module(
        checkpoint.model,
        output,
        labels=checkpoint.labels or (),
        preprocessing=PREPROCESSING,
        calibrate=folder,
        options=Options(precision=precision, samples=CALIBRATION),
    )


def session(path: Path, threads: int) -> Contender:
    """Open a file in ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    opened = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda image: np.asarray(opened.run(None, {"pixels": image})[0])


def nncf_model(path: Path, calibration: tuple[Path, ...]) -> Any:
    """Quantize with NNCF."""
    import nncf
    import openvino as ov

    images = nncf.Dataset([pixels(path) for path in calibration])
    return nncf.quantize(
        ov.Core().read_model(path),
        images,
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(calibration),
    )


def openvino(model: Any, threads: int) -> Contender:
    """Compile for OpenVINO's processor plugin."""
    import openvino as ov

    compiled = ov.Core().compile_model(
        model,
        "CPU",
        {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "bf16", "PERFORMANCE_HINT": "LATENCY"},
    )
    return lambda image: np.asarray(compiled(image)[0])


def pixels(path: Path) -> Pixels:
    """Give an image as the network takes it: (1, 3, height, width)."""
    return preprocess(read_image(path), PREPROCESSING)[None]


def timed(runners: dict[str, Contender], image: Pixels, rounds: int) -> dict[str, float]:
    """Let the contenders take turns; the median of each one's turns, in milliseconds."""
    found: dict[str, list[float]] = {name: [] for name in runners}
    with progress("timing", total=rounds, unit="rounds") as advance:
        for _ in range(rounds):
            for name, run in runners.items():
                # Threads that still spin from the turn before would slow this one down.
                time.sleep(0.05)
                for _ in range(3):
                    run(image)
                start = time.perf_counter()
                for _ in range(5):
                    run(image)
                found[name].append((time.perf_counter() - start) * 1e3 / 5)
            advance()
    return {name: statistics.median(values) for name, values in found.items()}


def agreed(run: Contender, images: list[Pixels], reference: NDArray[np.float32], name: str) -> float:
    """Give the share of images with torch's answer."""
    with progress(name, total=len(images), unit="images") as advance:
        answers = []
        for image in images:
            answers.append(run(image))
            advance()
    return compare(reference, np.concatenate(answers)).agreement


if __name__ == "__main__":
    main()

"""Times INT8 against ONNX Runtime's float32 and own quantizer, torch and OpenVINO, at batch 1.

With the ``dev`` and ``peers`` extras installed: ``python benchmarks/latency.py --shared DIR``, where DIR holds what
``benchmarks/accuracy.py`` names. All contenders take turns in one run, one thread and then two; beside each time
stands the agreement with torch on 800 images that no contender has seen. ``--sizes tiny,small,base`` takes the larger
networks too, with random weights, which serve for the speed alone. ``--openvino-python`` names an interpreter with
the onnxruntime-openvino wheel; then files for that provider take part, answered and timed there.
"""

import argparse
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contenders import Contender, Crop, Elsewhere, file, nncf_model, openvino_model, torch_module
from onnxruntime.quantization import quantize_dynamic
from torch import nn

from vit_edge.checkpoint import load_checkpoint
from vit_edge.cli.progress import note, progress
from vit_edge.data import labelled_images, list_images
from vit_edge.evaluation import Comparison, compare
from vit_edge.export import Export, Options, export_module
from vit_edge.models import ViT, named
from vit_edge.runtime.image import read_image
from vit_edge.runtime.labels import Labels
from vit_edge.runtime.preprocess import Preprocessing, crop_pixels

PREPROCESSING = Preprocessing.parse("resize=248,crop=224,interpolation=bicubic,mean=0.5,std=0.5")
"""What the weights were trained with."""

# The calibration images that every contender with a choice is given.
CALIBRATION = 128

# Of random weights nothing is to be learnt: as many images as show that a graph runs, any answers, a short search.
_RANDOM = Options(precision="int8", samples=8, min_agreement=0.0, max_drift=float("inf"), budget_s=60.0)

FLOAT, PEER = "ONNX Runtime, float32", "OpenVINO, int8 (NNCF), bf16"


@dataclass(frozen=True)
class Size:
    """A network with what is known of it: its module, its export options, and images to judge it by."""

    name: str
    module: nn.Module
    options: Options
    crops: list[Crop]
    targets: list[int] | None


def main() -> None:
    """Make the contenders, time them, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--shared", type=Path, default=Path("../shared"), help="the folder of model and images"
    )
    parser.add_argument(
        "--sizes", default="tiny", help="of tiny (real weights), small and base (random ones)"
    )
    parser.add_argument("--openvino-python", type=Path, help="an interpreter with onnxruntime-openvino")
    parser.add_argument(
        "--schedule", default="auto", help="of token merging, as BLOCK:TOKENS,...; auto searches"
    )
    parser.add_argument("--rounds", type=int, default=15, help="turns of each contender")
    options = parser.parse_args()
    data = options.shared / "data"
    labels = Labels.read(data / "imagenet1k_classes.txt")
    schedule = options.schedule
    for name in options.sizes.split(","):
        size = _size(name, options.shared, labels)
        with tempfile.TemporaryDirectory() as folder:
            maker = Maker(size, labels, data / "calibration250", Path(folder), options.openvino_python)
            makers = maker.contenders(schedule)
            # Larger networks may merge no more, by depth and share, than the real one bears.
            schedule = maker.schedule or schedule
            _print_times(size, makers, options.rounds)


def _size(name: str, shared: Path, labels: Labels) -> Size:
    if name == "tiny":
        checkpoint = load_checkpoint(
            shared / "models" / "vit_tiny_patch16_224.safetensors", labels=labels, preprocessing=PREPROCESSING
        )
        samples = labelled_images(shared / "data" / "imagenet_val800", labels)
        return Size(
            "tiny (real weights)",
            checkpoint.model,
            Options(precision="int8", samples=CALIBRATION),
            [crop(sample.path) for sample in samples],
            [sample.target or 0 for sample in samples],
        )
    torch.manual_seed(0)
    images = list_images(shared / "data" / "calibration250")[-4:]
    module = ViT(named(f"vit_{name}_patch16_224", classes=1000)).eval()
    return Size(f"{name} (random weights)", module, _RANDOM, [crop(path) for path in images], None)


@dataclass
class Maker:
    """Makes the contenders of one network."""

    size: Size
    labels: Labels
    calibration: Path
    folder: Path
    openvino_python: Path | None
    schedule: str | None = None

    def contenders(self, schedule: str) -> dict[str, Callable[[int], Contender]]:
        """Make the files, and give for each contender what opens it on so many threads."""
        module = self.size.module
        plain = self._export("float32", precision="float32", min_agreement=None, max_drift=None)
        defaults = self.folder / "defaults.onnx"
        quantize_dynamic(plain.path, defaults)
        exact = self._export("exact", input="uint8")
        fastest = self._export("fastest", input="uint8", pick="fastest")
        merged = self._export("merged", input="uint8", merge_tokens=schedule, pick="fastest")
        if merged.chosen is not None:
            self.schedule = _schedule(merged.candidates[merged.chosen].recipe)
        makers: dict[str, Callable[[int], Contender]] = {
            "torch, float32": lambda threads: torch_module(module, PREPROCESSING, threads),
            FLOAT: lambda threads: file(plain.path, PREPROCESSING, threads),
            "quantize_dynamic, defaults": lambda threads: file(defaults, PREPROCESSING, threads),
            "vit-edge": lambda threads: file(exact.path, PREPROCESSING, threads),
            "vit-edge, --pick fastest": lambda threads: file(fastest.path, PREPROCESSING, threads),
            f"vit-edge, merged {self.schedule}": lambda threads: file(merged.path, PREPROCESSING, threads),
        }
        if importlib.util.find_spec("nncf") and importlib.util.find_spec("openvino"):
            images = list_images(self.calibration)[: self.size.options.samples]
            quantized = nncf_model(plain.path, PREPROCESSING, [crop(path) for path in images])
            note(f"OpenVINO: bf16 allowed, NNCF's preset mixed for transformers, {len(images)} images")
            makers[PEER] = lambda threads: openvino_model(quantized, PREPROCESSING, threads)
        if (python := self.openvino_python) is not None:
            static = self._export("openvino", targets=("openvino",), target_python=python)
            makers["vit-edge, OpenVINO provider, bf16"] = lambda threads: Elsewhere(
                static.path, python, PREPROCESSING, threads
            )
        return makers

    def _export(self, name: str, **changes: Any) -> Export:
        """Export with the calibration images alone: the others are to measure."""
        start = time.perf_counter()
        result = export_module(
            self.size.module,
            self.folder / f"{name}.onnx",
            labels=self.labels,
            preprocessing=PREPROCESSING,
            calibrate=self.calibration,
            options=replace(self.size.options, **changes),
        )
        recipe = result.candidates[result.chosen].recipe if result.chosen is not None else result.precision
        seconds = time.perf_counter() - start
        note(f"{self.size.name}, {name}: {recipe}; {result.bytes / 1e6:.2f} MB in {seconds:.0f} s")
        return result


def _schedule(recipe: str) -> str | None:
    """Read the schedule of token merging out of a recipe's name."""
    _, found, schedule = recipe.partition("merged ")
    return schedule if found else None


def _print_times(size: Size, makers: dict[str, Callable[[int], Contender]], rounds: int) -> None:
    agreement: dict[str, Comparison] = {}
    for threads in (1, 2):
        runners = {name: make(threads) for name, make in makers.items()}
        times = timed(runners, size.crops[0], rounds)
        if threads == 1 and size.targets is not None:
            agreement = compared(size, runners)
        print(
            f"\n{f'{size.name}, {threads} thread' + 's' * (threads > 1):52} {'ms':>7} {'/ float32':>9} "
            f"{'/ OpenVINO':>10} {'agreement':>9} {'drift':>7} {'drop (95 %)':>20}"
        )
        for name, value in times.items():
            peer = f"{value / times[PEER]:.2f}" if PEER in times else "-"
            print(
                f"{name:52} {value:7.2f} {value / times[FLOAT]:9.2f} {peer:>10} {_answers(agreement.get(name))}"
            )
        for runner in runners.values():
            if isinstance(runner, Elsewhere):
                runner.close()


def _answers(comparison: Comparison | None) -> str:
    if comparison is None or comparison.accuracy is None:
        return f"{'-':>9} {'-':>7} {'-':>20}"
    low, high = comparison.accuracy.drop_interval
    drop = f"{comparison.accuracy.drop:.2f} ({low:.2f}..{high:.2f})"
    return f"{100 * comparison.agreement:7.2f} % {comparison.drift:7.4f} {drop:>20}"


def timed(runners: dict[str, Contender], image: Crop, rounds: int) -> dict[str, float]:
    """Let the contenders take turns; the median of each one's turns, in milliseconds."""
    found: dict[str, list[float]] = {name: [] for name in runners}
    with progress("timing", total=rounds, unit="rounds") as advance:
        for _ in range(rounds):
            for name, runner in runners.items():
                # Threads that still spin from the turn before would slow this one down.
                time.sleep(0.05)
                found[name].append(runner.turn(image))
            advance()
    return {name: statistics.median(values) for name, values in found.items()}


def compared(size: Size, runners: dict[str, Contender]) -> dict[str, Comparison]:
    """Compare each contender's answers with torch's."""
    answers = {}
    for name, runner in runners.items():
        with progress(name, total=len(size.crops), unit="images") as advance:
            rows = []
            for image in size.crops:
                rows.append(runner.logits(image))
                advance()
            answers[name] = np.concatenate(rows)
    reference = next(iter(answers.values()))
    return {name: compare(reference, logits, size.targets) for name, logits in answers.items()}


def crop(path: Path) -> Crop:
    """Give an image resized and cropped: (height, width, 3) uint8."""
    return crop_pixels(read_image(path), PREPROCESSING)


if __name__ == "__main__":
    main()

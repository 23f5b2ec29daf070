"""Measures what a real ViT loses on its way to float32 and INT8 files, beside what it may lose.

With the ``dev`` extra installed: ``python benchmarks/accuracy.py --shared DIR``, where DIR holds
``models/vit_tiny_patch16_224.safetensors``, ``data/calibration250``, ``data/imagenet_val800`` and
``data/imagenet1k_classes.txt``. It exports both files itself, or takes one that is there with ``--model``; a few
minutes. The exit status is 1 where a target is missed.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vit_edge.checking import Report, check_model, require_same
from vit_edge.checkpoint import Checkpoint, load_checkpoint
from vit_edge.cli.progress import progress
from vit_edge.data import labelled_images
from vit_edge.evaluation import Accuracy
from vit_edge.export import Options, Precision, export_module
from vit_edge.runtime import Classifier
from vit_edge.runtime.labels import Labels
from vit_edge.runtime.preprocess import Preprocessing

PREPROCESSING = Preprocessing.parse("resize=248,crop=224,interpolation=bicubic,mean=0.5,std=0.5")
"""What the weights were trained with."""


@dataclass(frozen=True)
class Row:
    """A number beside its target."""

    name: str
    value: str
    target: str
    met: bool


def main() -> None:
    """Print a table for each precision."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--shared", type=Path, default=Path("../shared"), help="the folder with models and data"
    )
    parser.add_argument("--model", type=Path, help="measure this file, in place of exporting both")
    options = parser.parse_args()
    weights = options.shared / "models" / "vit_tiny_patch16_224.safetensors"
    if not weights.is_file():
        parser.error(f"{options.shared} lacks the model; name its folder with --shared")
    checkpoint = load_checkpoint(
        weights,
        labels=Labels.read(options.shared / "data" / "imagenet1k_classes.txt"),
        preprocessing=PREPROCESSING,
    )
    with tempfile.TemporaryDirectory(prefix="vit-edge-") as folder:
        paths = [options.model] if options.model else exported(checkpoint, options.shared, Path(folder))
        met = [measured(path, checkpoint, options.shared) for path in paths]
    sys.exit(0 if all(met) else 1)


def exported(checkpoint: Checkpoint, shared: Path, folder: Path) -> Iterator[Path]:
    """Export the model, one precision after the other; calibration images alone choose and fit."""
    assert checkpoint.labels is not None
    precisions: tuple[Precision, ...] = ("float32", "int8")
    for precision in precisions:
        print(f"exporting to {precision}", file=sys.stderr)
        yield export_module(
            checkpoint.model,
            folder / f"{precision}.onnx",
            labels=checkpoint.labels,
            preprocessing=PREPROCESSING,
            calibrate=shared / "data" / "calibration250",
            # Here the answers are measured; the speed has a benchmark of its own.
            options=Options(precision=precision, min_speedup=0),
        ).path


def measured(path: Path, checkpoint: Checkpoint, shared: Path) -> bool:
    """Print a file's numbers, and say whether all targets are met."""
    with Classifier(path) as classifier:
        samples = labelled_images(shared / "data" / "imagenet_val800", classifier.labels)
        preprocessing = require_same(checkpoint, classifier)
        with progress("checking", total=len(samples), unit="images") as advance:
            for event in check_model(classifier, checkpoint.model, preprocessing, samples):
                if isinstance(event, Report):
                    report = event
                else:
                    advance()
        precision = str(classifier.metadata.recipe["precision"])
    comparison, size = report.comparison, path.stat().st_size / 1e6
    assert comparison.accuracy is not None
    rows = _TARGETS.get(precision, _no_targets)(report, comparison.accuracy, size)
    print(f"\n{precision + f', {comparison.images} images':24} {'measured':>28} {'target':>16}")
    for row in rows:
        print(f"{row.name:24} {row.value:>28} {row.target:>16} {'' if row.met else 'MISSED'}".rstrip())
    return all(row.met for row in rows)


def _float32(report: Report, accuracy: Accuracy, size: float) -> list[Row]:
    comparison = report.comparison
    same = comparison.images - len(comparison.flips)
    return [
        Row("agreement with torch", f"{same} of {comparison.images}", "all", not comparison.flips),
        Row(
            "largest logit drift",
            f"{comparison.max_abs_drift:.2e}",
            "below 1e-3",
            comparison.max_abs_drift < 1e-3,
        ),
        *_no_targets(report, accuracy, size),
    ]


def _int8(report: Report, accuracy: Accuracy, size: float) -> list[Row]:
    agreement = report.comparison.agreement
    return [
        Row("agreement with torch", f"{100 * agreement:.2f} %", "at least 92 %", agreement >= 0.92),
        Row("top-1 drop", _drop(accuracy), "at most 1 point", accuracy.drop <= 1),
        Row("size", f"{size:.2f} MB", "below 8 MB", size < 8),
        *_no_targets(report, accuracy, size)[:2],
    ]


def _no_targets(report: Report, accuracy: Accuracy, size: float) -> list[Row]:
    return [
        Row("top-1", f"{100 * accuracy.reference_top1:.2f} -> {100 * accuracy.model_top1:.2f} %", "", True),
        Row("logit drift, relative", f"{report.comparison.drift:.2e}", "", True),
        Row("drop", _drop(accuracy), "", True),
        Row("file", f"{size:.2f} MB", "", True),
    ]


def _drop(accuracy: Accuracy) -> str:
    low, high = accuracy.drop_interval
    return f"{accuracy.drop:.2f} ({low:.2f} to {high:.2f})"


_TARGETS: dict[str, Callable[[Report, Accuracy, float], list[Row]]] = {"float32": _float32, "int8": _int8}


if __name__ == "__main__":
    main()

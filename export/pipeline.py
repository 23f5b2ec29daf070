"""The export itself: trace, passes, and after each step the answers of the new graph against torch's."""

import random
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import onnx

from ..data import Sample, labelled_images, list_images
from ..errors import ExportError, OptionError
from ..evaluation import Bounds, Comparison, compare
from ..runtime.cores import usable_cores
from ..runtime.labels import Labels
from ..runtime.metadata import Metadata
from ..runtime.preprocess import Preprocessing
from ..runtime.processor import processor
from .file import write_model
from .graph import named
from .images import Images, Runner, Tick
from .int8 import quantize
from .limits import oldest_onnxruntime
from .options import Options
from .passes import Float16, Simplify
from .recorder import Recorder, Step
from .speed import race

if TYPE_CHECKING:
    from torch import nn

T = TypeVar("T")

# onnxsim takes seconds on a large ViT; one that hangs must not hang the export.
_SIMPLIFY_TIMEOUT_S = 600.0

# Batch sizes that the dynamic axis is proven at, beside one; the last is also the one whose agreement is stored.
_BATCHES = (2, 5)


@dataclass(frozen=True, slots=True)
class Export:
    """A finished export.

    Attributes:
        path: The file.
        bytes: Its size.
        precision: What was shipped: ``float32``, ``float16`` or ``int8``.
        reason: Why that is not INT8, where ``auto`` chose.
        comparison: The shipped graph against torch, on the images of `checked_on`.
        checked_on: The folder that had the last word.
        batched_agreement: The share of images whose answer in a batch of 5 is the one that they get alone; None for
            a graph of a fixed batch size.
        latency_ms, float32_ms: The time of an answer of the shipped graph and of the float graph, taken in turns on
            this machine; None where INT8 was not shipped.
        steps: All steps, in order.
    """

    path: Path
    bytes: int
    precision: str
    reason: str | None
    comparison: Comparison
    checked_on: str
    batched_agreement: float | None
    latency_ms: float | None
    float32_ms: float | None
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """Where the network came from: a name for people, the weights' SHA-256, and the sizes of a known network."""

    name: str
    sha256: str
    network: dict[str, Any]


def run(
    module: "nn.Module",
    *,
    labels: Labels,
    preprocessing: Preprocessing,
    output: Path,
    source: Source,
    calibrate: Path | None,
    check: Path | None,
    options: Options,
) -> Iterator[Tick | Step | Export]:
    """Export a classifier to one ONNX file; yields progress, each step, and last the result.

    Args:
        module: Maps (batch, 3, height, width) float32 to (batch, classes) logits.
        labels: The classes in the order of the logits.
        preprocessing: From an image to the module's input.
        output: The file to write; it appears whole, at the end, or not at all.
        source: Where the module came from.
        calibrate: Images that choose and fit. A folder of any shape; labels are not used.
        check: Images with labels (a folder per class) that can only veto.
        options: Precision, graph and bounds.

    Raises:
        OptionError: Neither folder is given, or the file exists.
        ExportError: A step failed, or its answers broke its bounds.
        ImageError, DataError: The images are not usable.
    """
    # Here, so that the command line's help and a pass in a process apart need no torch.
    from .trace import trace

    if output.exists() and not options.force:
        raise OptionError(f"{output} exists; give --force to replace it, or another name with -o")
    if not output.parent.is_dir():
        raise OptionError(f"there is no folder {output.parent}; make it, or write elsewhere with -o")
    fitting, checking = _gather(calibrate, check, labels, preprocessing, options)
    recorder = Recorder(fitting, options)

    yield Tick("tracing", 0, 1)
    start = time.perf_counter()
    traced = trace(module, size=preprocessing.crop, opset=options.opset, batch=options.batch)
    seconds = time.perf_counter() - start
    yield Tick("tracing", 1, 1)
    _require_classes(traced, labels)
    yield from fitting.answer(module)
    base = yield from recorder.record("Trace", named(traced), seconds, options.bounds["float32"])
    if base is None:
        raise ExportError(f"the traced graph does not give torch's answers: {recorder.problem}")
    if options.simplify:
        simplified = yield from recorder.apply(
            Simplify(), base, options.bounds["float32"], timeout_s=_SIMPLIFY_TIMEOUT_S
        )
        base = base if simplified is None else simplified

    reason = None
    for precision in _order(options):
        bounds = options.bounds[precision]
        model: onnx.ModelProto | None = base
        if precision == "int8":
            model = yield from quantize(recorder, base)
        elif precision == "float16":
            model = yield from recorder.apply(Float16(), base, bounds)
        if model is not None:
            rival = base if precision == "int8" else None
            try:
                verdict = yield from _veto(model, module, recorder, checking, bounds, options, rival=rival)
                recorder.problem = verdict.problem
            # A graph that answers one image may still fail on a batch.
            except ExportError as error:
                recorder.problem = str(error)
            if recorder.problem is None:
                break
        if options.precision != "auto" or precision == "float32":
            raise ExportError(f"{precision} broke its bound: {recorder.problem}; {_ADVICE[precision]}")
        reason = f"{precision} broke its bound: {recorder.problem}"

    assert model is not None
    metadata = Metadata(
        labels=labels,
        preprocessing=preprocessing,
        source={"name": source.name, "sha256": source.sha256, "network": source.network},
        recipe={
            "precision": precision,
            "steps": recorder.kept(model).steps,
            "target": "cpu",
            "provider": "CPUExecutionProvider",
            "processor": processor(),
            "batch": options.batch or "any",
            "opset": options.opset,
            "oldest_onnxruntime": oldest_onnxruntime(model),
        },
        proof=verdict.proof(bounds, reason),
    )
    size = write_model(model, metadata, output, force=options.force)
    final = verdict.checked or verdict.fitted
    yield Export(
        path=output,
        bytes=size,
        precision=precision,
        reason=reason,
        comparison=final,
        checked_on=checking.name if checking else fitting.name,
        batched_agreement=verdict.batched_agreement,
        latency_ms=verdict.latency_ms,
        float32_ms=verdict.rival_ms,
        steps=tuple(recorder.steps),
    )


_ADVICE = {
    "int8": "allow more with --min-agreement, --max-drift, --max-drop or --min-speedup, or choose --precision auto",
    "float16": "allow more with --min-agreement, --max-drift or --max-drop, or choose --precision float32",
    "float32": "the graph is not sound for this model; try --no-simplify or another --opset",
}


@dataclass
class _Verdict:
    """What was measured on a finished graph before it ships."""

    fitted: Comparison
    checked: Comparison | None = None
    batched_agreement: float | None = None
    latency_ms: float | None = None
    rival_ms: float | None = None
    problem: str | None = None
    fitted_on: str = ""
    checked_on: str = ""

    def proof(self, bounds: Bounds, reason: str | None) -> dict[str, Any]:
        """Give what the file says of its agreement with torch."""
        proof: dict[str, Any] = {
            "reference": "torch float32",
            "calibration": {"set": self.fitted_on, **self.fitted.to_dict()},
            "bounds": {
                "min_agreement": bounds.min_agreement,
                "max_drift": bounds.max_drift,
                "max_drop": bounds.max_drop,
            },
        }
        if self.checked is not None:
            proof["check"] = {"set": self.checked_on, **self.checked.to_dict()}
        if self.batched_agreement is not None:
            proof["batched"] = {"batch": _BATCHES[-1], "agreement_with_alone": self.batched_agreement}
        if self.latency_ms is not None and self.rival_ms is not None:
            proof["latency_ms"] = {
                "int8": round(self.latency_ms, 3),
                "float32": round(self.rival_ms, 3),
                "threads": usable_cores(),
            }
        if reason is not None:
            proof["not_int8"] = reason
        return proof


def _veto(
    model: onnx.ModelProto,
    module: "nn.Module",
    recorder: Recorder,
    checking: Images | None,
    bounds: Bounds,
    options: Options,
    *,
    rival: onnx.ModelProto | None,
) -> Generator[Tick | Step, None, _Verdict]:
    """Check a graph at other batch sizes, against a rival's speed, and on the images that only veto."""
    fitting = recorder.images
    verdict = _Verdict(fitted=recorder.kept(model).comparison, fitted_on=fitting.name)
    if options.batch is None:
        for size in _BATCHES:
            agreement = yield from _batched_agreement(model, fitting, size)
            if agreement < bounds.min_batched_agreement:
                verdict.problem = (
                    f"in batches of {size}, {100 * agreement:.2f} % of the images keep the answer that they get "
                    f"alone, at least {100 * bounds.min_batched_agreement:g} % wanted"
                )
                return verdict
        verdict.batched_agreement = agreement
    if rival is not None:
        pixels = fitting.pixels(fitting.paths[0])
        pixels = np.repeat(pixels, options.batch or 1, axis=0)
        verdict.rival_ms, verdict.latency_ms = yield from race((rival, model), pixels)
        if verdict.rival_ms < options.min_speedup * verdict.latency_ms:
            verdict.problem = (
                f"an answer takes {verdict.latency_ms:.2f} ms and in float32 {verdict.rival_ms:.2f} ms, at least "
                f"{options.min_speedup:g} times as fast wanted"
            )
            return verdict
    if checking is not None:
        if checking.reference is None:
            yield from checking.answer(module)
        measurement = checking.measure(model, "checking")
        yield from measurement
        verdict.checked, verdict.checked_on = measurement.comparison, checking.name
        verdict.problem = bounds.broken_by(measurement.comparison)
    return verdict


def _batched_agreement(model: onnx.ModelProto, images: Images, size: int) -> Generator[Tick, None, float]:
    """Run the images in batches and alone, and give the share of the same answers."""
    runner = Runner(model)
    pixels = [images.pixels(path) for path in images.paths]
    # A full batch at least once, however few images there are.
    pixels += pixels[: -len(pixels) % size] if len(pixels) >= size else pixels * size
    alone, batched = [], []
    for start in range(0, len(pixels) - size + 1, size):
        part = pixels[start : start + size]
        alone += [runner(one) for one in part]
        batched.append(runner(np.concatenate(part)))
        yield Tick(f"batches of {size}", start + size, len(pixels))
    return compare(np.concatenate(alone), np.concatenate(batched)).agreement


def _gather(
    calibrate: Path | None,
    check: Path | None,
    labels: Labels,
    preprocessing: Preprocessing,
    options: Options,
) -> tuple[Images, Images | None]:
    """Find the images that every step is measured on, and those that have the last word."""
    if calibrate is None and check is None:
        raise OptionError(
            "the answers of the exported model are checked on real images: give a folder of them with --calibrate, "
            "or with labels (a folder per class) with --check"
        )
    checking = None
    if check is not None:
        samples = labelled_images(check, labels)
        checking = _images(check, [s.path for s in samples], [_target(s) for s in samples], preprocessing)
        if calibrate is None:
            chosen = _spread(samples, options.samples)
            fitting = _images(check, [s.path for s in chosen], [_target(s) for s in chosen], preprocessing)
            # With labels of few images a drop means little: only the whole set vetoes on it.
            fitting.targets = None
            return fitting, checking
    assert calibrate is not None
    return _images(calibrate, _spread(list_images(calibrate), options.samples), None, preprocessing), checking


def _images(
    folder: Path, paths: Sequence[Path], targets: Sequence[int] | None, preprocessing: Preprocessing
) -> Images:
    return Images(folder.name, paths, targets, preprocessing)


def _target(sample: Sample) -> int:
    assert sample.target is not None
    return sample.target


def _spread(items: Sequence[T], count: int) -> list[T]:
    """Choose some of many, the same ones each time, in random order: folders sort their images by class."""
    return random.Random(0).sample(list(items), min(count, len(items)))


def _order(options: Options) -> tuple[str, ...]:
    return ("int8", "float32") if options.precision == "auto" else (options.precision,)


def _require_classes(model: onnx.ModelProto, labels: Labels) -> None:
    classes = model.graph.output[0].type.tensor_type.shape.dim[-1].dim_value
    if classes != len(labels):
        raise OptionError(
            f"the model has {classes} outputs but {len(labels)} labels were given; give one for each"
        )

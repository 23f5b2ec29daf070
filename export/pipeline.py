"""The export itself: float graph, passes, and after each step the new graph's answers against the network's."""

import sys
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxruntime

from ..data import Sample, labelled_images, list_images
from ..errors import ExportError, OptionError
from ..evaluation import Bounds, Comparison
from ..runtime.cores import usable_cores
from ..runtime.labels import Labels
from ..runtime.metadata import Metadata
from ..runtime.preprocess import Preprocessing
from ..runtime.processor import processor
from ..runtime.session import PROVIDERS
from ..scores import Scores
from .capsule import Packed, pack
from .elsewhere import Elsewhere
from .file import write_model
from .graph import fixed_batch, named
from .images import Images, Tick, spread
from .int8 import Quantized, quantize
from .limits import oldest_onnxruntime
from .network import Network
from .options import Options
from .pareto import Row
from .passes import FixBatch, Float16, FuseNorms, RawPixels, Simplify
from .recorder import Recorder, Step
from .scoring import labelled_for_scores, score
from .sensitivity import Sensitivity
from .targets import Target, target
from .verdict import Verdict, veto

# So many candidates at most are shown the images that can only veto: who tries long enough finds one that passes by
# chance.
_TRIES = 3

# onnxsim takes seconds on a large ViT; one that hangs must not hang the export.
_SIMPLIFY_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Export:
    """A finished export.

    Attributes:
        path: The file.
        bytes: Its size.
        target: What it is for.
        precision: What was shipped: ``float32``, ``float16`` or ``int8``.
        reason: Why that is not INT8, where ``auto`` chose.
        comparison: The shipped graph against the reference, on the images of `checked_on`.
        checked_on: The folder that had the last word.
        batched_agreement: The share of images whose answer in a batch of 5 is the one that they get alone; None for
            a graph of a fixed batch size.
        latency_ms, float32_ms: The time of an answer of the shipped graph and of the float graph, taken in turns on
            this machine; None where INT8 was not shipped, or its provider is not at hand.
        candidates: The INT8 graphs that were found, as measured.
        chosen: The place of the shipped one among them.
        sensitivities: The linear layers, the one whose quantization harms most first.
        complete: Whether the time was enough for the whole search.
        scores: The temperature and the threshold, or why there is no temperature.
        steps: All steps, in order.
        capsule: The pictures in the file that `vit-edge verify` replays: where they come from, how many they are, and
            the bytes that they take; None without a capsule.
    """

    path: Path
    bytes: int
    target: str
    precision: str
    reason: str | None
    comparison: Comparison
    checked_on: str
    batched_agreement: float | None
    latency_ms: float | None
    float32_ms: float | None
    candidates: tuple[Row, ...]
    chosen: int | None
    sensitivities: tuple[Sensitivity, ...]
    complete: bool
    scores: Scores
    steps: tuple[Step, ...]
    capsule: Packed | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, ready for JSON."""
        return {
            "path": str(self.path),
            "bytes": self.bytes,
            "target": self.target,
            "precision": self.precision,
            "reason": self.reason,
            "checked_on": self.checked_on,
            **self.comparison.to_dict(),
            "batched_agreement": self.batched_agreement,
            "latency_ms": self.latency_ms,
            "float32_ms": self.float32_ms,
            "candidates": [row.to_dict() for row in self.candidates],
            "chosen": self.chosen,
            "sensitivities": [layer.to_dict() for layer in self.sensitivities],
            "complete": self.complete,
            "scores": self.scores.to_dict(),
            "steps": [step.to_dict() for step in self.steps],
            "capsule": None if self.capsule is None else self.capsule.to_dict(),
        }


@dataclass(frozen=True, slots=True)
class Source:
    """Where the network came from: a name for people, the weights' SHA-256, and the sizes of a known network."""

    name: str
    sha256: str
    network: dict[str, Any]


def run(
    network: Network,
    *,
    labels: Labels,
    preprocessing: Preprocessing,
    output: Path,
    source: Source,
    calibrate: Path | None,
    check: Path | None,
    options: Options,
) -> Iterator[Tick | Step | Export]:
    """Export a classifier to one ONNX file a target; yields progress, each step, and each file when it is written.

    Args:
        network: What is exported; its own answers are the reference.
        labels: The classes in the order of the logits.
        preprocessing: From an image to the network's input.
        output: The file to write; it appears whole, at the end, or not at all. With several targets the name of each
            goes in front of the suffix.
        source: Where the network came from.
        calibrate: Images that choose and fit. A folder of any shape; where it holds a folder per class, those labels
            fit the temperature of the scores, and nothing else.
        check: Images with labels (a folder per class) that can only veto.
        options: Precision, graph, targets and bounds.

    Raises:
        OptionError: Neither folder is given, or a file exists.
        ExportError: A step failed, or its answers broke its bounds.
        ImageError, DataError: The images are not usable.
    """
    targets = [target(name) for name in options.targets]
    if options.merge_tokens is not None:
        _require_merging(targets, options)
    outputs = {one.name: _output(output, one, targets) for one in targets}
    for path in outputs.values():
        if path.exists() and not options.force:
            raise OptionError(f"{path} exists; give --force to replace it, or another name with -o")
    if not output.parent.is_dir():
        raise OptionError(f"there is no folder {output.parent}; make it, or write elsewhere with -o")
    if isinstance(options.capsule, Path):
        # An empty folder is told before the work, not after it.
        list_images(options.capsule)
    places = {one.name: _elsewhere(one, options) for one in targets}
    fitting, checking = _gather(calibrate, check, labels, preprocessing, options)
    labelled = labelled_for_scores(calibrate, labels, preprocessing, options)
    recorder = Recorder(fitting, options)
    base = yield from _base(recorder, network, labels, preprocessing, min(one.max_opset for one in targets))
    shared = len(recorder.steps)
    packer = yield from pack(options.capsule, network, preprocessing, fitting)
    for one in targets:
        before = len(recorder.steps)
        shipped = yield from _ship(recorder, base, network, checking, one, places[one.name])
        scores = yield from score(
            shipped.model,
            shipped.verdict,
            fitting=fitting,
            checking=checking,
            labelled=labelled,
            elsewhere=places[one.name],
            threshold=options.threshold,
        )
        metadata = Metadata(
            labels=labels,
            preprocessing=preprocessing,
            source={"name": source.name, "sha256": source.sha256, "network": source.network},
            recipe=_recipe(shipped, recorder, one, options),
            proof=_proof(shipped, network, options),
            scores=scores.to_dict(),
        )
        verdict, search = shipped.verdict, shipped.search
        text, packed = yield from packer(shipped.model, places[one.name])
        yield Export(
            path=outputs[one.name],
            bytes=write_model(shipped.model, metadata, outputs[one.name], capsule=text, force=options.force),
            target=one.name,
            precision=shipped.precision,
            reason=shipped.reason,
            comparison=verdict.checked or verdict.fitted,
            checked_on=verdict.checked_on or verdict.fitted_on,
            batched_agreement=verdict.batched_agreement,
            latency_ms=shipped.latency_ms,
            float32_ms=shipped.float_ms,
            candidates=search.rows if search else (),
            chosen=shipped.chosen,
            sensitivities=search.sensitivities if search else (),
            complete=search.complete if search else True,
            scores=scores,
            steps=tuple(recorder.steps[:shared] + recorder.steps[before:]),
            capsule=packed,
        )


@dataclass(frozen=True, slots=True)
class _Shipped:
    """A graph that kept its bounds, and how it came to be the one."""

    model: onnx.ModelProto
    precision: str
    reason: str | None
    verdict: Verdict
    provider: str
    search: Quantized | None
    chosen: int | None = None

    @property
    def latency_ms(self) -> float | None:
        """The time of an answer, where it was measured."""
        return (
            None if self.search is None or self.chosen is None else self.search.rows[self.chosen].latency_ms
        )

    @property
    def float_ms(self) -> float | None:
        """The same for the float graph, measured in turns with it."""
        return None if self.search is None or self.chosen is None else self.search.float_ms


def _base(
    recorder: Recorder, network: Network, labels: Labels, preprocessing: Preprocessing, max_opset: int
) -> Generator[Tick | Step, None, onnx.ModelProto]:
    """Get the float graph that all precisions and targets begin with."""
    options, exact = recorder.options, recorder.options.bounds["float32"]
    yield Tick("tracing", 0, 1)
    start = time.perf_counter()
    traced = network.graph(size=preprocessing.crop, opset=min(options.opset, max_opset), batch=options.batch)
    seconds = time.perf_counter() - start
    yield Tick("tracing", 1, 1)
    _require_classes(traced, labels)
    yield from recorder.images.answer(network)
    base = yield from recorder.record("Trace", named(traced), seconds, exact)
    if base is None:
        raise ExportError(f"the traced graph does not give {network.reference}'s answers: {recorder.problem}")
    if options.simplify:
        base = (yield from recorder.apply(Simplify(), base, exact, timeout_s=_SIMPLIFY_TIMEOUT_S)) or base
    # Old exporters write a norm in nine operators; the means among them tell where that may be.
    if any(node.op_type == "ReduceMean" for node in base.graph.node):
        base = (yield from recorder.apply(FuseNorms(), base, exact)) or base
    if options.input == "uint8":
        raw = yield from recorder.apply(RawPixels(preprocessing.mean, preprocessing.std), base, exact)
        if raw is None:
            raise ExportError(f"the graph cannot take raw pixels: {recorder.problem}")
        base = raw
    return base


def _ship(
    recorder: Recorder,
    base: onnx.ModelProto,
    network: Network,
    checking: Images | None,
    aim: Target,
    elsewhere: Elsewhere | None,
) -> Generator[Tick | Step, None, _Shipped]:
    """Make the graph for a target, in the best precision that keeps its bounds."""
    options, reasons = recorder.options, list[str]()
    search = None
    for precision in _order(options, aim):
        bounds = options.bounds[precision]
        choices: list[tuple[int | None, onnx.ModelProto]] = [(None, base)]
        if precision == "int8":
            search = yield from quantize(recorder, base, aim, elsewhere)
            choices = [(place, search.models[place]) for place in search.order[:_TRIES]]
            recorder.problem = search.problem
        elif precision == "float16":
            half = yield from recorder.apply(Float16(), base, bounds)
            choices = [] if half is None else [(None, half)]
        problems = []
        for chosen, choice in choices:
            passed = yield from _tried(recorder, choice, bounds, network, checking, elsewhere)
            if passed is not None:
                model, verdict = passed
                provider = PROVIDERS["cpu"] if elsewhere is None else aim.provider_name
                reason = "; ".join(reasons) or None
                return _Shipped(model, precision, reason, verdict, provider, search, chosen)
            problems.append(recorder.problem)
            if search is not None and chosen is not None:
                search = search.without(chosen, str(recorder.problem))
        # What was preferred tells most.
        recorder.problem = problems[0] if problems else recorder.problem
        # A schedule of merging that was asked for is not left out in silence either.
        asked = options.precision != "auto" or options.merge_tokens not in (None, "auto")
        if asked or precision == "float32":
            raise ExportError(f"{precision} broke its bound: {recorder.problem}; {_ADVICE[precision]}")
        reasons.append(f"{precision} broke its bound: {recorder.problem}")
    raise AssertionError("float32 ships or raises")


def _tried(
    recorder: Recorder,
    choice: onnx.ModelProto,
    bounds: Bounds,
    network: Network,
    checking: Images | None,
    elsewhere: Elsewhere | None,
) -> Generator[Tick | Step, None, tuple[onnx.ModelProto, Verdict] | None]:
    """Have the last word on a graph; None where it does not ship, with the recorder's `problem` set."""
    batch = recorder.options.batch
    model: onnx.ModelProto | None = choice
    if batch is not None and fixed_batch(choice) is None:
        model = yield from recorder.apply(FixBatch(batch), choice, bounds)
    if model is None:
        return None
    try:
        verdict = yield from veto(
            model,
            recorder.kept(model).comparison,
            network=network,
            fitting=recorder.images,
            checking=checking,
            bounds=bounds,
            any_batch=batch is None,
            elsewhere=elsewhere,
        )
    # A graph that answers one image may still fail on a batch.
    except ExportError as error:
        recorder.problem = str(error)
        return None
    recorder.problem = verdict.problem
    return (model, verdict) if verdict.problem is None else None


_ADVICE = {
    "int8": "allow more with --min-agreement, --max-drift, --max-drop or --min-speedup, or choose --precision auto",
    "float16": "allow more with --min-agreement, --max-drift or --max-drop, or choose --precision float32",
    "float32": "the graph is not sound for this model; try --no-simplify or another --opset",
}


def _recipe(shipped: _Shipped, recorder: Recorder, aim: Target, options: Options) -> dict[str, Any]:
    model = shipped.model
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return {
        "precision": shipped.precision,
        "steps": recorder.kept(model).steps,
        "target": aim.name,
        "provider": shipped.provider,
        "processor": processor(),
        "batch": options.batch or "any",
        "opset": opset,
        "oldest_onnxruntime": oldest_onnxruntime(model),
    }


def _proof(shipped: _Shipped, network: Network, options: Options) -> dict[str, Any]:
    found: dict[str, Any] = {"reference": network.kind}
    found |= shipped.verdict.to_dict(options.bounds[shipped.precision])
    if shipped.latency_ms is not None and shipped.float_ms is not None:
        found["latency_ms"] = {
            shipped.precision: round(shipped.latency_ms, 3),
            "float32": round(shipped.float_ms, 3),
            "threads": usable_cores(),
        }
    if shipped.reason is not None:
        found["not_int8"] = shipped.reason
    if shipped.search is not None:
        found["candidates"] = [row.to_dict() for row in shipped.search.rows]
        found["chosen"] = shipped.chosen
        found["pick"] = options.pick
    return found


def _require_merging(targets: Sequence[Target], options: Options) -> None:
    """Refuse to merge tokens where the graph that ships would not."""
    if options.precision not in ("auto", "int8"):
        raise OptionError(
            f"tokens are merged in INT8 graphs, not in {options.precision}; leave out --merge-tokens or --precision"
        )
    for one in targets:
        if not one.fused:
            raise OptionError(
                f"tokens can be merged for the targets cpu and cpu-avx2, not for {one.name}; "
                "leave out --merge-tokens"
            )


def _output(output: Path, one: Target, targets: Sequence[Target]) -> Path:
    """Give a target's file: with several, its name goes in front of the suffix."""
    return output if len(targets) == 1 else output.with_name(f"{output.stem}.{one.name}{output.suffix}")


def _elsewhere(aim: Target, options: Options) -> Elsewhere | None:
    """Give where a target's provider is at hand; None for the CPU provider, and where it is not."""
    if aim.provider == "cpu":
        return None
    if options.target_python is not None:
        place = Elsewhere(aim, options.target_python)
        # Told before the search, not after it.
        place.require()
        return place
    here = aim.provider_name in onnxruntime.get_available_providers()
    return Elsewhere(aim, Path(sys.executable)) if here else None


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
            chosen = spread(samples, options.samples)
            fitting = _images(check, [s.path for s in chosen], [_target(s) for s in chosen], preprocessing)
            # With labels of few images a drop means little: only the whole set vetoes on it.
            fitting.targets = None
            return fitting, checking
    assert calibrate is not None
    return _images(calibrate, spread(list_images(calibrate), options.samples), None, preprocessing), checking


def _images(
    folder: Path, paths: Sequence[Path], targets: Sequence[int] | None, preprocessing: Preprocessing
) -> Images:
    return Images(folder.name, paths, targets, preprocessing)


def _target(sample: Sample) -> int:
    assert sample.target is not None
    return sample.target


def _order(options: Options, aim: Target) -> tuple[str, ...]:
    """Give the precisions to try, best first."""
    if options.precision != "auto":
        return (options.precision,)
    return ("float16" if aim.recipe == "float16" else "int8", "float32")


def _require_classes(model: onnx.ModelProto, labels: Labels) -> None:
    sides = model.graph.output[0].type.tensor_type.shape.dim
    classes = sides[-1].dim_value if sides else 0
    # A graph made elsewhere may leave the number open; a wrong one then shows in the first comparison.
    if classes and classes != len(labels):
        raise OptionError(
            f"the model has {classes} outputs but {len(labels)} labels were given; give one for each"
        )

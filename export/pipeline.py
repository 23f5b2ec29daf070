"""The export itself: float graph, passes, and after each step the new graph's answers against the network's."""

import sys
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import onnx
import onnxruntime

from ..data import labelled_images, list_images
from ..errors import ExportError, OptionError
from ..runtime.labels import Labels
from ..runtime.metadata import Metadata
from ..runtime.preprocess import Preprocessing
from .capsule import pack
from .elsewhere import Elsewhere
from .file import write_model
from .graph import named
from .images import Images, Tick, labelled, spread
from .network import Network
from .options import Options
from .passes import FuseNorms, RawPixels, Simplify
from .recorder import Recorder, Step
from .result import Export, Source
from .scoring import labelled_for_scores, score
from .shipping import proof_of, recipe_of, ship
from .targets import Target, target

# onnxsim takes seconds on a large ViT; one that hangs must not hang the export.
_SIMPLIFY_TIMEOUT_S = 600.0


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
        shipped = yield from ship(recorder, base, network, checking, one, places[one.name])
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
            recipe=recipe_of(shipped, recorder, one, options),
            proof=proof_of(shipped, network, options),
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
    checking = None if check is None else labelled(check, labelled_images(check, labels), preprocessing)
    if calibrate is not None:
        name, paths = calibrate.name, list_images(calibrate)
    else:
        assert checking is not None
        name, paths = checking.name, tuple(checking.paths)
    # Without labels: of few images a drop means little, and only the whole set vetoes on it.
    return Images(name, spread(paths, options.samples), None, preprocessing), checking


def _require_classes(model: onnx.ModelProto, labels: Labels) -> None:
    sides = model.graph.output[0].type.tensor_type.shape.dim
    classes = sides[-1].dim_value if sides else 0
    # A graph made elsewhere may leave the number open; a wrong one then shows in the first comparison.
    if classes and classes != len(labels):
        raise OptionError(
            f"the model has {classes} outputs but {len(labels)} labels were given; give one for each"
        )

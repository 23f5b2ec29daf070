"""From a float graph to the INT8 graph for a target: exact rewrites that pay, candidates, and the choice among them."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx
from numpy.typing import NDArray

from ..errors import ExportError
from ..runtime.cores import usable_cores
from .elsewhere import Elsewhere
from .images import Tick
from .options import Options
from .pareto import Row, judged, preferred
from .passes import ClassTokenOnly, FuseAttention, Pass, QuantizeDynamic, SplitGemm, Unflatten
from .recipe import EXACT, Candidate, Workbench
from .recorder import Recorder, Step
from .rewrite import observe
from .schedule import Sites, check_schedule, parse_schedule, schedules
from .search import search
from .sensitivity import Sensitivity
from .speed import race
from .targets import Target

# Norms are one operator, products stand apart from their biases and on tokens: what all that follows looks for.
_PLAIN: tuple[Pass, ...] = (SplitGemm(), Unflatten())

# Each of these is to make the graph faster. Fusing leaves a reshape of its own.
_FASTER: tuple[tuple[Pass, ...], ...] = ((FuseAttention(), Unflatten()), (ClassTokenOnly(),))

# A rewrite that gains less than this share of the time is left out: the simpler graph is the better one.
_GAIN = 0.01


@dataclass(frozen=True, slots=True)
class Quantized:
    """What became of a float graph.

    Attributes:
        models: The INT8 graphs, in the order in which they were built.
        rows: The same as measured.
        order: The places of those that can ship, the preferred one first.
        sensitivities: The linear layers, most harmful first.
        float_ms: The time of one answer of the float graph, measured in the same run; None where it was not.
        complete: Whether the time was enough for the whole search.
        problem: Why none ships.
    """

    models: tuple[onnx.ModelProto, ...]
    rows: tuple[Row, ...]
    order: tuple[int, ...]
    sensitivities: tuple[Sensitivity, ...]
    float_ms: float | None
    complete: bool
    problem: str | None

    def without(self, place: int, problem: str) -> "Quantized":
        """Give the same with a candidate that does not ship after all."""
        rows = tuple(
            replace(row, problem=problem, best=False) if place == other else row
            for other, row in enumerate(self.rows)
        )
        return replace(self, rows=rows, order=tuple(other for other in self.order if other != place))


def quantize(
    recorder: Recorder, base: onnx.ModelProto, target: Target, elsewhere: Elsewhere | None
) -> Generator[Tick | Step, None, Quantized]:
    """Search the INT8 graph for a target.

    Args:
        recorder: Runs and measures the steps.
        base: The float graph.
        target: What the graph is for.
        elsewhere: Where the target's provider can be timed; None where it is the CPU provider of this interpreter, or
            is not at hand.
    """
    options = recorder.options
    bounds = options.bounds["int8"]
    graph = yield from _rewritten(recorder, base, target)
    bench = Workbench(recorder, target, graph)
    found = yield from search(
        bench,
        budget_s=options.budget_s,
        bounds=bounds,
        merges=_merges(options, graph),
        must_merge=options.merge_tokens not in (None, "auto"),
    )
    candidates = found.candidates
    if not candidates:
        return Quantized((), (), (), found.sensitivities, None, found.complete, recorder.problem)
    runners = [place for place, one in enumerate(candidates) if bounds.broken_by(one.comparison) is None]
    float_ms, times = yield from _timed(
        recorder, base, [candidates[place].model for place in runners], target, elsewhere
    )
    latencies = dict(zip(runners, times, strict=True))
    rows = judged(
        [
            Row(str(one.recipe), one.model.ByteSize(), one.comparison, latencies.get(place), None)
            for place, one in enumerate(candidates)
        ],
        bounds,
        float_ms=float_ms,
        min_speedup=options.min_speedup,
    )
    asked = _asked_for(candidates, options)
    order = tuple(asked[place] for place in preferred([rows[place] for place in asked], options.pick))
    problem = None
    if not order:
        # Where none could be built, the last step says why.
        problem = _nearest([rows[place] for place in asked]) if asked else recorder.problem
    return Quantized(
        tuple(one.model for one in candidates),
        rows,
        order,
        found.sensitivities,
        float_ms,
        found.complete,
        problem,
    )


def _asked_for(candidates: Sequence[Candidate], options: Options) -> list[int]:
    """Where one schedule of token merging was asked for, what does not merge is there to compare with."""
    free = options.merge_tokens in (None, "auto")
    return [place for place, one in enumerate(candidates) if free or one.recipe.merged]


def _nearest(rows: Sequence[Row]) -> str | None:
    """Give why the candidate that drifts least cannot ship."""
    return min(rows, key=lambda row: row.comparison.drift).problem


def _merges(options: Options, graph: onnx.ModelProto) -> tuple[Sites, ...]:
    if options.merge_tokens is None:
        return ()
    attentions = _attentions(graph)
    if not attentions:
        raise ExportError(
            "no fused attention was found in this network, and tokens are merged by its keys; leave out --merge-tokens"
        )
    tokens = observe(graph).shapes[attentions[0].input[0]][1][0]
    if options.merge_tokens == "auto":
        return schedules(len(attentions), tokens)
    asked = parse_schedule(options.merge_tokens)
    check_schedule(asked, depth=len(attentions), tokens=tokens)
    return (asked,)


def _attentions(graph: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in graph.graph.node if node.op_type in ("Attention", "MultiHeadAttention")]


def _rewritten(
    recorder: Recorder, base: onnx.ModelProto, target: Target
) -> Generator[Tick | Step, None, onnx.ModelProto]:
    """Rewrite a graph exactly; what the target does not run faster is left out."""
    graph = base
    for rewrite in _PLAIN:
        graph = (yield from recorder.apply(rewrite, graph, EXACT)) or graph
    if not target.fused:
        return graph
    stages, names = [graph], [""]
    for group in _FASTER:
        before = graph
        for rewrite in group:
            graph = (yield from recorder.apply(rewrite, graph, EXACT)) or graph
        if graph is not before and _shape(graph) != _shape(before):
            stages.append(graph)
            names.append(repr(group[0]))
    if len(stages) == 1:
        return graph
    # What a rewrite gains shows once the products are quantized, since they are what is left in the way.
    quantizer = QuantizeDynamic(bits=target.weight_bits)
    quantized = [quantizer(stage) for stage in stages]
    times = yield from race(quantized, _one_input(recorder, graph), "timing rewrites")
    # Tokens are merged by the keys of fused attention, so that it stays then.
    fused = (place for place, stage in enumerate(stages) if _attentions(stage))
    best = first = next(fused, 0) if recorder.options.merge_tokens is not None else 0
    for place in range(first + 1, len(stages)):
        if times[place] < (1 - _GAIN) * times[best]:
            best = place
    for place in range(best + 1, len(stages)):
        yield recorder.leave_out(
            names[place],
            stages[place],
            f"it does not pay here: {times[place]:.2f} ms, without it {times[best]:.2f} ms",
        )
    return stages[best]


def _shape(graph: onnx.ModelProto) -> list[str]:
    return sorted(node.op_type for node in graph.graph.node)


def _timed(
    recorder: Recorder,
    base: onnx.ModelProto,
    models: Sequence[onnx.ModelProto],
    target: Target,
    elsewhere: Elsewhere | None,
) -> Generator[Tick | Step, None, tuple[float | None, Sequence[float | None]]]:
    """Time the float graph and the candidates in turns, where the target's provider is at hand."""
    if not models:
        return None, []
    pixels = _one_input(recorder, base)
    if target.provider == "cpu":
        times = yield from race((base, *models), pixels)
    elif elsewhere is not None:
        times = yield from elsewhere.race((base, *models), pixels, threads=usable_cores())
    else:
        return None, [None] * len(models)
    return times[0], times[1:]


def _one_input(recorder: Recorder, model: onnx.ModelProto) -> NDArray[Any]:
    images = recorder.images
    return images.given(model, images.paths[0], batch=recorder.options.batch or 1)

"""Which graph ships for a target: the best precision that keeps its bounds, and what the file says of it."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import onnx

from ..errors import ExportError
from ..evaluation import Bounds
from ..runtime.cores import usable_cores
from ..runtime.processor import processor
from ..runtime.session import PROVIDERS
from .elsewhere import Elsewhere
from .graph import fixed_batch
from .images import Images, Tick
from .int8 import Quantized, quantize
from .limits import oldest_onnxruntime
from .network import Network
from .options import Options
from .passes import FixBatch, Float16
from .recorder import Recorder, Step
from .targets import Target
from .verdict import Verdict, veto

# So many candidates at most are shown the images that can only veto: who tries long enough finds one that passes by
# chance.
_TRIES = 3

_ADVICE = {
    "int8": "allow more with --min-agreement, --max-drift, --max-drop or --min-speedup, or choose --precision auto",
    "float16": "allow more with --min-agreement, --max-drift or --max-drop, or choose --precision float32",
    "float32": "the graph is not sound for this model; try --no-simplify or another --opset",
}


@dataclass(frozen=True, slots=True)
class Shipped:
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


def ship(
    recorder: Recorder,
    base: onnx.ModelProto,
    network: Network,
    checking: Images | None,
    aim: Target,
    elsewhere: Elsewhere | None,
) -> Generator[Tick | Step, None, Shipped]:
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
                return Shipped(model, precision, reason, verdict, provider, search, chosen)
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


def recipe_of(shipped: Shipped, recorder: Recorder, aim: Target, options: Options) -> dict[str, Any]:
    """Say how a graph came to be, for the file."""
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


def proof_of(shipped: Shipped, network: Network, options: Options) -> dict[str, Any]:
    """Say how well a graph keeps the reference's answers, and how fast it is, for the file."""
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


def _order(options: Options, aim: Target) -> tuple[str, ...]:
    """Give the precisions to try, best first."""
    if options.precision != "auto":
        return (options.precision,)
    return ("float16" if aim.recipe == "float16" else "int8", "float32")

"""Runs the steps of an export, and measures each one's answers against torch's."""

import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import onnx

from ..errors import ExportError
from ..evaluation import Bounds, Comparison
from .graph import named
from .images import Images, Tick
from .isolation import run_isolated
from .options import Options
from .passes import Pass


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the export, measured.

    Attributes:
        name: The step; for a pass its ``repr``.
        seconds: How long it took, the measurement left out.
        bytes: The size of the graph after it.
        comparison: Its answers against torch's; None where there was no graph to run.
        problem: Why its result is not used; None where it is.
    """

    name: str
    seconds: float
    bytes: int
    comparison: Comparison | None
    problem: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, ready for JSON."""
        values: dict[str, Any] = {"name": self.name, "seconds": round(self.seconds, 3), "bytes": self.bytes}
        if self.comparison is not None:
            values |= {
                "images": self.comparison.images,
                "agreement": round(self.comparison.agreement, 6),
                "drift": self.comparison.to_dict()["drift"],
            }
        return values | {"problem": self.problem}


@dataclass(frozen=True, slots=True)
class Kept:
    """A graph that kept its bounds, its answers against torch's, and the names of the steps that made it."""

    model: onnx.ModelProto
    comparison: Comparison
    steps: tuple[str, ...]


class Recorder:
    """Runs steps, measures each on the fitting images, and keeps the list of them.

    Attributes:
        images: What the steps are measured on.
        options: What the export was asked for.
        steps: All steps so far.
        problem: Why the last step's result is not used; None where it is.
    """

    def __init__(self, images: Images, options: Options) -> None:
        self.images = images
        self.options = options
        self.steps: list[Step] = []
        self.problem: str | None = None
        self._kept: list[Kept] = []

    def kept(self, model: onnx.ModelProto) -> Kept:
        """Give what is known of a graph that a step returned."""
        return next(kept for kept in self._kept if kept.model is model)

    def apply(
        self,
        step: Pass,
        model: onnx.ModelProto,
        bounds: Bounds,
        *,
        timeout_s: float | None = None,
        count: int | None = None,
    ) -> Generator[Tick | Step, None, onnx.ModelProto | None]:
        """Call a pass and measure its result.

        Args:
            step: The pass.
            model: What it is called with.
            bounds: What its result must keep.
            timeout_s: Run the pass in a process of its own, for at most so long.
            count: How many images its result is measured on; all unless given.

        Returns:
            The new model; None where the pass failed or its result broke the bounds, with `problem` set.
        """
        start = time.perf_counter()
        try:
            result = step(model) if timeout_s is None else run_isolated(step, model, timeout_s=timeout_s)
        except ExportError as error:
            problem = str(error)
        # A pass meets graphs that nobody has seen: whatever it raises costs that step, never the export.
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            problem = f"{step} failed ({reason})"
        else:
            seconds = time.perf_counter() - start
            return (
                yield from self.record(repr(step), named(result), seconds, bounds, before=model, count=count)
            )
        self.problem = problem
        yield self._note(Step(repr(step), time.perf_counter() - start, model.ByteSize(), None, problem))
        return None

    def record(
        self,
        name: str,
        model: onnx.ModelProto,
        seconds: float,
        bounds: Bounds,
        *,
        before: onnx.ModelProto | None = None,
        count: int | None = None,
    ) -> Generator[Tick | Step, None, onnx.ModelProto | None]:
        """Measure the result of a step on the graph *before*; None where it broke its bounds, with `problem` set."""
        measurement = self.images.measure(model, name.partition("(")[0], count=count)
        comparison = None
        try:
            yield from measurement
        except ExportError as error:
            self.problem = str(error)
        else:
            comparison = measurement.comparison
            self.problem = bounds.broken_by(comparison)
        yield self._note(Step(name, seconds, model.ByteSize(), comparison, self.problem))
        if self.problem or comparison is None:
            return None
        steps = () if before is None else self.kept(before).steps
        self._kept.append(Kept(model, comparison, (*steps, name)))
        return model

    def leave_out(self, name: str, model: onnx.ModelProto, problem: str) -> Step:
        """Note that a step's graph is not used after all, though it kept its bounds."""
        return self._note(Step(name, 0.0, model.ByteSize(), self.kept(model).comparison, problem))

    def _note(self, step: Step) -> Step:
        self.steps.append(step)
        return step

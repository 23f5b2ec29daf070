"""Searches the recipe for INT8: from cheap to dear, by the logits' drift on the calibration images alone."""

import math
import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace

from ..evaluation import Bounds
from ..quantizers import METHODS
from .images import Tick
from .massive import Channels
from .passes.scale_tokens import one_sided
from .recipe import Candidate, Recipe, Workbench
from .recorder import Step
from .schedule import Sites
from .sensitivity import Sensitivity, rank

# SmoothQuant's own search found its best between a half and nine tenths.
_STRENGTHS = (0.5, 0.7, 0.9)

# Of the time that is left, so much at most goes into ranking layers.
_RANKING_SHARE = 0.6

# A layer in float that lowers the drift by less than this share is not worth four times its size.
_WORTH = 0.02

# Layers with scales per token: the most harmful quarter of those behind an activation function, half, all; then also
# the others whose output is no wider than their input.
_TOKEN_SCALED = (0.25, 0.5, 1.0)


@dataclass(frozen=True, slots=True)
class Found:
    """What a search came to.

    Attributes:
        candidates: All that could be built, in the order in which they were.
        sensitivities: The linear layers, most harmful first.
        complete: Whether the time was enough for all that the search tries.
    """

    candidates: tuple[Candidate, ...]
    sensitivities: tuple[Sensitivity, ...]
    complete: bool


def search(
    bench: Workbench, *, budget_s: float, bounds: Bounds, merges: Sequence[Sites], must_merge: bool
) -> Generator[Tick | Step, None, Found]:
    """Build candidates, each better founded than the last, until nothing more helps or the time is over.

    Args:
        bench: Builds and measures recipes.
        budget_s: How long the search may take. What has begun is finished; the first recipe is built in any case.
        bounds: What the answers must keep; layers go back to float until they do.
        merges: Schedules of token merging to try on what was found.
        must_merge: Whether these are tried even when the time is over.
    """
    run = _Search(bench, time.monotonic(), budget_s)
    if bench.target.recipe == "dynamic":
        yield from run.among(Recipe(strength=strength) for strength in (None, *_STRENGTHS))
        strength = run.best.recipe.strength if run.best else None
        side = [Recipe(activations=method, strength=strength) for method in METHODS]
    else:
        yield from run.among(Recipe(activations=method) for method in METHODS)
        method = run.best.recipe.activations if run.best else METHODS[0]
        yield from run.among(Recipe(activations=method, strength=strength) for strength in _STRENGTHS)
        side = []
    if run.best is None:
        return run.found()
    found = bench.channels_of(run.best.recipe)
    if bench.splits(run.best.recipe):
        side.append(replace(run.best.recipe, split=False))
    yield from run.beside(side)
    yield from run.rank(found)
    # It costs the device nothing, so that all that follows builds on it.
    yield from run.among([replace(run.best.recipe, learned=True)])
    if bench.target.recipe == "dynamic":
        yield from run.token_scales(found)
        yield from run.strengths_again()
    yield from run.back_to_float(bounds)
    merged = [replace(run.best.recipe, merged=sites) for sites in merges]
    yield from run.beside(merged, in_any_case=must_merge)
    return run.found()


class _Search:
    """The state of a search: what is best so far, and how much time is left."""

    def __init__(self, bench: Workbench, start: float, budget_s: float) -> None:
        self._bench = bench
        self._end = start + budget_s
        self._candidates: list[Candidate] = []
        self._sensitivities: tuple[Sensitivity, ...] = ()
        self._complete = True
        self.best: Candidate | None = None

    def found(self) -> Found:
        return Found(tuple(self._candidates), self._sensitivities, self._complete)

    def among(self, recipes: Iterable[Recipe]) -> Generator[Tick | Step, None, None]:
        """Build recipes; the one that drifts least of all so far is the best."""
        yield from self._build(recipes, improves=True)

    def beside(
        self, recipes: Iterable[Recipe], *, in_any_case: bool = False
    ) -> Generator[Tick | Step, None, None]:
        """Build recipes for the table, that nothing more is built on."""
        yield from self._build(recipes, improves=False, in_any_case=in_any_case)

    def rank(self, channels: tuple[Channels, ...]) -> Generator[Tick | Step, None, None]:
        """Rank the layers of the best candidate."""
        assert self.best is not None
        now = time.monotonic()
        self._sensitivities = yield from rank(
            self.best.floats,
            self.best.model,
            self._bench.recorder.images,
            spreads={layer.linear.node: layer.ratio for layer in channels},
            deadline=now + _RANKING_SHARE * max(0.0, self._end - now),
        )
        self._complete &= all(layer.alone is not None for layer in self._sensitivities)

    def token_scales(self, channels: tuple[Channels, ...]) -> Generator[Tick | Step, None, None]:
        """Give layers scales per token, most harmful first.

        A product then pays for a multiplication of its output: where that is narrower than its input, it is small.
        """
        assert self.best is not None
        found = {layer.linear.node: layer for layer in channels if layer.linear.splits}
        narrow = [
            layer.layer
            for layer in self._sensitivities
            if layer.layer in found and layer.shape[1] <= layer.shape[0]
        ]
        activated = [name for name in narrow if one_sided(found[name].lowest, found[name].highest)]
        chosen = [tuple(activated[: math.ceil(share * len(activated))]) for share in _TOKEN_SCALED]
        recipe = self.best.recipe
        yield from self.among(
            [
                replace(recipe, token_scales=layers)
                for layers in dict.fromkeys((*chosen, tuple(narrow)))
                if layers
            ]
        )

    def strengths_again(self) -> Generator[Tick | Step, None, None]:
        """Migrate by other strengths: what else was done since may have moved the best one."""
        assert self.best is not None
        recipe = self.best.recipe
        yield from self.among([replace(recipe, strength=strength) for strength in _STRENGTHS])

    def back_to_float(self, bounds: Bounds) -> Generator[Tick | Step, None, None]:
        """Leave the most harmful layers in float, twice as many each time, while that helps enough or must be."""
        assert self.best is not None
        ranked = [layer.layer for layer in self._sensitivities if layer.without is not None]
        # All but the last; with that in float too, nothing would be left in INT8.
        most, count = len(ranked) - 1, 1
        while count <= most:
            before = self.best
            yield from self.among([replace(before.recipe, keep_float=tuple(ranked[:count]))])
            helped = self.best.drift < (1 - _WORTH * count) * before.drift
            if not helped and bounds.broken_by(self.best.comparison) is None:
                return
            count = most if count < most < 2 * count else 2 * count

    def _build(
        self, recipes: Iterable[Recipe], *, improves: bool, in_any_case: bool = False
    ) -> Generator[Tick | Step, None, None]:
        for recipe in recipes:
            if self._candidates and time.monotonic() >= self._end and not in_any_case:
                self._complete = False
                return
            candidate = yield from self._bench.build(recipe)
            if candidate is None or candidate in self._candidates:
                continue
            self._candidates.append(candidate)
            if improves and (self.best is None or candidate.drift < self.best.drift):
                self.best = candidate

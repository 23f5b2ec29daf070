"""A recipe says how a float graph becomes INT8; the workbench builds it pass by pass, and measures every graph."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import onnx
from numpy.typing import NDArray

from ..evaluation import Bounds, Comparison
from ..quantizers import Histograms, Method
from .graph import fixed_batch, takes_bytes
from .images import Tick
from .massive import Channels, channels
from .moments import moments
from .passes import (
    LearnRounding,
    MergeTokens,
    MigrateScales,
    Pass,
    QuantizeDynamic,
    QuantizePatches,
    QuantizeStatic,
    ScaleTokens,
    SplitChannels,
)
from .passes.static import sites as products
from .ranges import collect
from .recorder import Recorder, Step
from .schedule import Sites, format_schedule
from .targets import Target

EXACT = Bounds(min_agreement=0.999, max_drift=1e-5, max_drop=0.1, min_batched_agreement=0.0)
"""What a rewrite in float must keep: the logits may move by a hundred-thousandth of their spread."""

# A candidate is judged when the search is over: one that is not good enough yet may become so.
_ANYTHING = Bounds(
    min_agreement=0.0, max_drift=float("inf"), max_drop=float("inf"), min_batched_agreement=0.0
)

# Images on which ranges, massive channels and second moments are found.
_FITTING_IMAGES = 64

# What few images say of many channels holds for these images alone: rounding is learned on more.
_ROUNDING_IMAGES = 128

# Exact rewrites are proven on so many: they move every image's logits alike.
_PROOF_IMAGES = 32


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way of quantizing a network.

    Attributes:
        activations: ``dynamic``, or the method that fixes static ranges: a `Method`.
        strength: Of scale migration; None for none.
        split: Whether massive channels stand apart; else layers that have some stay in float.
        learned: Whether weights are rounded as the calibration images ask for.
        token_scales: The layers with an activation scale per token.
        keep_float: The layers left in float, beside those that the recipe itself leaves.
        merged: Where tokens are merged.
    """

    activations: str = "dynamic"
    strength: float | None = None
    split: bool = True
    learned: bool = False
    token_scales: tuple[str, ...] = ()
    keep_float: tuple[str, ...] = ()
    merged: Sites = ()

    def __str__(self) -> str:
        parts = ["dynamic" if self.activations == "dynamic" else f"static {self.activations}"]
        if self.strength is not None:
            parts.append(f"migrated {self.strength:g}")
        if not self.split:
            parts.append("massive layers in float")
        if self.token_scales:
            parts.append(f"{len(self.token_scales)} scaled per token")
        if self.learned:
            parts.append("rounding learned")
        if self.keep_float:
            parts.append(f"{len(self.keep_float)} in float")
        if self.merged:
            parts.append(f"merged {format_schedule(self.merged)}")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A recipe carried out.

    Attributes:
        recipe: What was done.
        floats: The float graph before tokens were merged and products quantized; but for merging, each product's
            output has the same name in *model*.
        model: The quantized graph.
        comparison: Its answers on the calibration images against the reference's.
    """

    recipe: Recipe
    floats: onnx.ModelProto
    model: onnx.ModelProto
    comparison: Comparison

    @property
    def drift(self) -> float:
        """How far its logits are from the reference's."""
        return self.comparison.drift


@dataclass
class _Prepared:
    """A float graph on the way, and what was found out about it; each only when it is asked for."""

    model: onnx.ModelProto
    keep_float: tuple[str, ...] = ()
    channels: tuple[Channels, ...] | None = None
    histograms: Histograms | None = None


@dataclass
class Workbench:
    """Builds recipes for one network and target, and keeps what they share.

    Attributes:
        recorder: Runs and measures the passes.
        target: Whose recipe is built.
        base: The float graph, rewritten exactly.
    """

    recorder: Recorder
    target: Target
    base: onnx.ModelProto
    _prepared: dict[Any, _Prepared | None] = field(init=False, default_factory=dict)
    _unsplit: _Prepared = field(init=False)
    _done: dict[Recipe, Candidate | None] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._unsplit = _Prepared(self.base)

    def build(self, recipe: Recipe) -> Generator[Tick | Step, None, Candidate | None]:
        """Carry out a recipe; None where it cannot be, with the recorder's `problem` set."""
        if recipe not in self._done:
            self._done[recipe] = yield from self._build(recipe)
        return self._done[recipe]

    def channels_of(self, recipe: Recipe) -> tuple[Channels, ...]:
        """Give how the channels spread at the products that a recipe, built before, quantizes."""
        prepared = self._prepared[_migrated_key(recipe)]
        assert prepared is not None
        return self._channels(prepared)

    def splits(self, recipe: Recipe) -> bool:
        """Tell whether a recipe, built before, has massive channels apart."""
        split = self._prepared[("split", recipe.split)]
        return split is not None and split.model is not self.base

    def batches(self, model: onnx.ModelProto, count: int = _FITTING_IMAGES) -> Iterator[NDArray[Any]]:
        """Give calibration images in a graph's own layout, one by one."""
        images, batch = self.recorder.images, fixed_batch(model) or 1
        for path in images.paths[:count]:
            yield images.given(model, path, batch=batch)

    def _build(self, recipe: Recipe) -> Generator[Tick | Step, None, Candidate | None]:
        prepared = yield from self._migrate(recipe)
        if prepared is None:
            return None
        floats = prepared.model
        if recipe.learned:
            learned = yield from self._learn(recipe, prepared)
            if learned is None:
                return None
            floats = learned.model
        model: onnx.ModelProto | None = floats
        keep_float = tuple(dict.fromkeys((*prepared.keep_float, *recipe.keep_float)))
        bits = self.target.weight_bits
        steps: list[Pass] = []
        if recipe.merged:
            steps.append(MergeTokens(recipe.merged, fused=True))
        if takes_bytes(self.base) and self.target.fused:
            steps.append(QuantizePatches(bits))
        if recipe.activations == "dynamic":
            if scaled := self._token_ranges(recipe, prepared):
                steps.append(ScaleTokens(scaled, bits))
            steps.append(QuantizeDynamic(keep_float, bits))
        else:
            steps.append(self._static(recipe, prepared, keep_float))
        for number, step in enumerate(steps, start=1):
            assert model is not None
            model = yield from self.recorder.apply(
                step, model, _ANYTHING, count=None if number == len(steps) else _PROOF_IMAGES
            )
            if model is None:
                return None
        assert model is not None
        return Candidate(recipe, floats, model, self.recorder.kept(model).comparison)

    def _split(self, recipe: Recipe) -> Generator[Tick | Step, None, _Prepared | None]:
        key = ("split", recipe.split)
        if key not in self._prepared:
            self._prepared[key] = yield from self._split_channels(self._unsplit, recipe)
        return self._prepared[key]

    def _split_channels(self, before: _Prepared, recipe: Recipe) -> Generator[Tick | Step, None, _Prepared]:
        yield Tick("looking for massive channels", 0, 1)
        found = [layer for layer in self._channels(before) if layer.massive]
        yield Tick("looking for massive channels", 1, 1)
        whole = tuple(layer.linear.node for layer in found)
        split = tuple((layer.linear.node, layer.massive) for layer in found if layer.linear.splits)
        if recipe.split and split:
            model = yield from self.recorder.apply(
                SplitChannels(split), before.model, EXACT, count=_PROOF_IMAGES
            )
            if model is not None:
                apart = {name for name, _ in split}
                return _Prepared(model, tuple(name for name in whole if name not in apart))
        return _Prepared(before.model, whole, before.channels)

    def _migrate(self, recipe: Recipe) -> Generator[Tick | Step, None, _Prepared | None]:
        key = _migrated_key(recipe)
        if key not in self._prepared:
            before = yield from self._split(recipe)
            result = before
            if before is not None and recipe.strength is not None:
                maxima = {layer.linear.input: layer.maxima for layer in self._channels(before)}
                model = yield from self.recorder.apply(
                    MigrateScales(recipe.strength, maxima),
                    before.model,
                    EXACT,
                    count=_PROOF_IMAGES,
                )
                result = None if model is None else self._migrated(model, before.keep_float, recipe)
            self._prepared[key] = result
        return self._prepared[key]

    def _migrated(self, model: onnx.ModelProto, keep_float: tuple[str, ...], recipe: Recipe) -> _Prepared:
        """Take back what stays in float for channels that are massive no longer, since their scales have moved."""
        migrated = _Prepared(model, keep_float)
        if recipe.split and keep_float:
            massive = {layer.linear.node for layer in self._channels(migrated) if layer.massive}
            migrated.keep_float = tuple(name for name in keep_float if name in massive)
        return migrated

    def _learn(self, recipe: Recipe, before: _Prepared) -> Generator[Tick | Step, None, _Prepared | None]:
        key = ("learn", *_migrated_key(recipe))
        if key not in self._prepared:
            model: onnx.ModelProto | None = before.model
            groups = moments(before.model, lambda: self.batches(before.model, _ROUNDING_IMAGES))
            yield Tick("learning the rounding", 0, 1)
            for group in groups:
                if model is not None:
                    step = LearnRounding(group, before.keep_float, self.target.weight_bits)
                    model = yield from self.recorder.apply(step, model, _ANYTHING, count=_PROOF_IMAGES)
                yield Tick("learning the rounding", 1, 1)
            self._prepared[key] = None if model is None else _Prepared(model, before.keep_float)
        return self._prepared[key]

    def _static(self, recipe: Recipe, prepared: _Prepared, keep_float: tuple[str, ...]) -> QuantizeStatic:
        sites = products(prepared.model)
        if prepared.histograms is None:
            # Attention's own products stay in float: in INT8 they cost more answers than they save time.
            names = [name for site in sites if site.kind in ("linear", "attention") for name in site.inputs]
            prepared.histograms = collect(prepared.model, names, self.batches(prepared.model))
        method: Method = recipe.activations  # type: ignore[assignment]  # any other word is `dynamic`
        ranges = prepared.histograms.ranges(method, symmetric=self.target.symmetric)
        # The patch embedding stays in float: pixels quantized twice lose more than its share of the time is worth.
        patches = tuple(site.node for site in sites if site.kind == "patches")
        return QuantizeStatic(
            ranges,
            method,
            self.target.symmetric,
            self.target.weight_bits,
            (*keep_float, *patches),
        )

    def _token_ranges(self, recipe: Recipe, prepared: _Prepared) -> tuple[tuple[str, float, float], ...]:
        return tuple(
            (layer.linear.node, layer.lowest, layer.highest)
            for layer in self._channels(prepared)
            # A layer that goes back to float needs no scales.
            if layer.linear.node in set(recipe.token_scales) - set(recipe.keep_float)
        )

    def _channels(self, prepared: _Prepared) -> tuple[Channels, ...]:
        if prepared.channels is None:
            prepared.channels = channels(prepared.model, self.batches(prepared.model))
        return prepared.channels


def _migrated_key(recipe: Recipe) -> tuple[Any, ...]:
    return ("migrate", recipe.split, recipe.strength)

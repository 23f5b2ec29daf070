"""Layers that compute in float what their INT8 forms will compute, so that training can make up for the rounding.

The grids are those of a static export: weights symmetric with a scale for each output, inputs unsigned with a zero
point, or around 0 for devices that want them so. The patch embedding stays in float, as it does there.
Gradients pass the rounding as if it were not there, and stop where a value is cut off (the straight-through estimator,
Bengio et al. 2013; Jacob et al. 2018, section 3).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from .ranges import Grid, GrowingHistogram, Method, Range
from .weights import largest_integer


class SimulatedLinear(nn.Linear):
    """A linear layer that rounds its input and weights to 8 bits; it keeps the parameters of the one that it replaces.

    Attributes:
        range: What the input's grid spans; None computes in float, as if it were the layer that it replaces.
        symmetric: Whether the input's grid lies even around 0.
        weight_bits: Of the weights' grid, 7 or 8.
    """

    range: Range | None = None
    symmetric: bool = False
    weight_bits: int = 8

    def forward(self, values: Tensor) -> Tensor:
        """Take (..., inputs) to (..., outputs)."""
        if self.range is None:
            return super().forward(values)
        return functional.linear(
            on_grid(values, self.range, symmetric=self.symmetric),
            on_weight_grid(self.weight, bits=self.weight_bits),
            self.bias,
        )


def on_grid(values: Tensor, span: Range, *, symmetric: bool = False) -> Tensor:
    """Round values to the 8-bit grid that a static export lays over their range."""
    grid = Grid.over(span, symmetric=symmetric)
    return torch.fake_quantize_per_tensor_affine(values, grid.scale, grid.zero, grid.lowest, grid.highest)


def on_weight_grid(weight: Tensor, *, bits: int = 8) -> Tensor:
    """Round weights, (outputs, inputs), to the grid that an export chooses (see `column_scales`)."""
    most = largest_integer(bits)
    largest = weight.detach().abs().amax(dim=1)
    scales = (largest.double() / most).float()
    scales = torch.where(scales < torch.finfo(torch.float32).tiny, torch.ones_like(scales), scales)
    zeros = torch.zeros_like(scales, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight.float(), scales, zeros, 0, -most, most)


def simulate(model: nn.Module, *, symmetric: bool = False, weight_bits: int = 8) -> None:
    """Put simulated layers in the place of a network's linear ones, in place; names and parameters stay.

    Args:
        model: The network.
        symmetric: Whether the inputs' grids lie even around 0, as some devices want them.
        weight_bits: Of the weights' grids, 7 or 8.
    """
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is nn.Linear:
                twin = _like(layer)
                twin.symmetric, twin.weight_bits = symmetric, weight_bits
                setattr(parent, name, twin)


def ranges(model: nn.Module) -> dict[str, Range]:
    """Give the input range of each simulated layer, by its name."""
    return {name: layer.range for name, layer in _simulated(model) if layer.range is not None}


def set_ranges(model: nn.Module, spans: Mapping[str, Range]) -> None:
    """Set the input range of each simulated layer, in place."""
    for name, layer in _simulated(model):
        layer.range = spans.get(name)


def measure_ranges(
    model: nn.Module, run: Callable[[], None], *, method: Method = "mixed"
) -> dict[str, Range]:
    """Measure what the inputs of a network's simulated layers span while it computes in float, as an export does.

    Args:
        model: The network.
        run: Runs it on images.
        method: How a range is chosen, as an export's.
    """
    layers = dict(_simulated(model))
    counted = {name: GrowingHistogram() for name in layers}
    with _in_float(model), _watched(model, counted):
        run()
    return {
        name: growing.histogram().range(method, symmetric=layers[name].symmetric)
        for name, growing in counted.items()
    }


def _like(layer: nn.Linear) -> SimulatedLinear:
    # Not by its constructor, which would make weights of its own.
    twin: SimulatedLinear = object.__new__(SimulatedLinear)
    twin.__dict__ = dict(layer.__dict__)
    return twin


def _simulated(model: nn.Module) -> Iterator[tuple[str, SimulatedLinear]]:
    for name, layer in model.named_modules():
        if isinstance(layer, SimulatedLinear):
            yield name, layer


@contextmanager
def _in_float(model: nn.Module) -> Iterator[None]:
    before = ranges(model)
    set_ranges(model, {})
    try:
        yield
    finally:
        set_ranges(model, before)


@contextmanager
def _watched(model: nn.Module, counted: Mapping[str, GrowingHistogram]) -> Iterator[None]:
    def counter(growing: GrowingHistogram) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, inputs: growing.add(inputs[0].detach().float().cpu().numpy())

    handles = [layer.register_forward_pre_hook(counter(counted[name])) for name, layer in _simulated(model)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

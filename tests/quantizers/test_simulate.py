"""Simulated quantizers beside the INT8 graph that an export makes of the same weights."""

import numpy as np
import pytest
import torch
from torch import nn

from vit_edge.export.targets import target
from vit_edge.models import ViT, ViTConfig
from vit_edge.quantizers import quantized_weights
from vit_edge.quantizers.simulate import (
    SimulatedLinear,
    measure_ranges,
    on_grid,
    on_weight_grid,
    ranges,
    set_ranges,
    simulate,
)

from ..export.networks import small_vit

CONFIG = ViTConfig((16, 16), patch_size=8, width=32, depth=2, heads=2, mlp_width=64, classes=7)


def network() -> ViT:
    return small_vit(0.2, CONFIG)


def pixels(count: int = 8) -> torch.Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def simulated(*, symmetric: bool = False, weight_bits: int = 8) -> ViT:
    model = network()
    simulate(model, symmetric=symmetric, weight_bits=weight_bits)

    def run() -> None:
        model(pixels())

    set_ranges(model, measure_ranges(model, run))
    return model


def test_names_and_parameters_stay() -> None:
    """The checkpoint of a network that was trained so is a checkpoint like any other."""
    plain, model = network(), network()
    before = dict(model.named_parameters())
    simulate(model)
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert all(parameter is before[name] for name, parameter in model.named_parameters())
    assert sum(isinstance(layer, SimulatedLinear) for layer in model.modules()) == 4 * 2 + 1
    assert type(model.patch_embed.proj) is nn.Conv2d  # an export leaves it in float


@pytest.mark.parametrize("bits", [8, 7])
def test_weights_lie_on_the_grid_that_an_export_chooses(bits: int) -> None:
    """Rounded otherwise, the network would learn to live with errors that it will not meet."""
    weight = torch.randn(5, 9, generator=torch.Generator().manual_seed(0))
    weight[3] = 0
    stored, scales = quantized_weights(weight.numpy().T, bits=bits)
    expected = (stored * scales).T
    np.testing.assert_allclose(on_weight_grid(weight, bits=bits).numpy(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["openvino", "tensorrt", "cpu-avx2"])
def test_the_answers_are_those_of_the_static_graph(name: str) -> None:
    """Training and export have to speak of the same network, rounding for rounding."""
    import onnx

    from vit_edge.export.graph import named
    from vit_edge.export.images import Runner
    from vit_edge.export.passes import QuantizeStatic, SplitGemm, Unflatten
    from vit_edge.export.passes.static import sites
    from vit_edge.export.ranges import collect
    from vit_edge.export.trace import trace

    plain = network()
    symmetric, bits = target(name).symmetric, target(name).weight_bits
    graph: onnx.ModelProto = named(
        Unflatten()(named(SplitGemm()(named(trace(plain, size=(16, 16), opset=20)))))
    )
    products = [site for site in sites(graph) if site.kind == "linear"]
    patches = tuple(site.node for site in sites(graph) if site.kind == "patches")
    names = [name for site in products for name in site.inputs]
    histograms = collect(graph, names, [pixels().numpy()])
    spans = histograms.ranges("mixed", symmetric=symmetric)
    static = QuantizeStatic(spans, "mixed", symmetric, bits, keep_float=patches)(graph)
    model = simulated(symmetric=symmetric, weight_bits=bits)
    with torch.no_grad():
        ours, float_answers = model(pixels()).numpy(), plain(pixels()).numpy()
    theirs = Runner(static)(pixels().numpy())
    error = np.abs(theirs - float_answers).max()
    assert np.abs(ours - theirs).max() < 0.05 * error


def test_gradients_pass_the_rounding_and_stop_at_the_cut() -> None:
    """A rounded step has no slope of its own; what is cut off cannot be mended by moving it a little."""
    values = torch.tensor([-5.0, -0.3, 0.2, 0.9, 7.0], requires_grad=True)
    on_grid(values, (-1.0, 1.0)).sum().backward()  # type: ignore[no-untyped-call]
    assert values.grad is not None
    assert values.grad.tolist() == [0, 1, 1, 1, 0]


def test_ranges_are_kept_by_name_and_set_anew() -> None:
    """A run that is resumed, and the average of its weights, need the grids as well."""
    model = simulated()
    spans = ranges(model)
    assert len(spans) == 4 * 2 + 1
    set_ranges(model, {})
    assert ranges(model) == {}
    set_ranges(model, spans)
    assert ranges(model) == spans


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_layer_learns_through_its_rounding(symmetric: bool) -> None:
    """The parameters that an optimizer holds are those that the simulated layer reads."""
    holder = nn.Sequential(nn.Linear(4, 3))
    optimizer = torch.optim.SGD(holder.parameters(), lr=0.1)
    simulate(holder, symmetric=symmetric)
    values = torch.randn(8, 4)
    set_ranges(holder, {"0": (-3.0, 3.0)})
    losses = []
    for _ in range(30):
        loss = holder(values).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]

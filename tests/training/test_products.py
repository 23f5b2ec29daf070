"""Tests of linear layers that are computed as convolutions."""

from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from torch import nn
from torch.nn import functional

from vit_edge.training import Recipe, products
from vit_edge.training.processes import computing
from vit_edge.training.products import by_convolution, fast_products

CPU = torch.device("cpu")


@pytest.mark.parametrize("shape", [(6,), (3, 6), (2, 5, 6), (2, 3, 4, 6)])
@pytest.mark.parametrize("biased", [True, False])
def test_a_convolution_gives_what_a_linear_layer_gives(shape: tuple[int, ...], biased: bool) -> None:
    torch.manual_seed(0)
    values, layer = torch.randn(shape, requires_grad=True), nn.Linear(6, 7, bias=biased)
    parameters = [values, *layer.parameters()]
    found = []
    for linear in (functional.linear, by_convolution):
        answers = linear(values, layer.weight, layer.bias)
        found.append((answers, *torch.autograd.grad(answers.square().sum(), parameters)))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two)
    assert len(found[0]) == 3 + biased


@pytest.mark.parametrize("lags", [True, False])
def test_where_mkl_lags_every_linear_layer_is_a_convolution(
    monkeypatch: pytest.MonkeyPatch, lags: bool
) -> None:
    """The layers of any network, a teacher's too, and only as long as it is asked for."""
    monkeypatch.setattr(products, "_mkl_lags", lambda: lags)
    layer, values = nn.Linear(4, 2), torch.randn(3, 4)
    assert ("ConvolutionBackward0" in trail(layer, values, fast_products(CPU))) == lags
    assert "ConvolutionBackward0" not in trail(layer, values, nullcontext())


def test_a_compiler_and_bf16_choose_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "_mkl_lags", lambda: True)
    plain = fast_products(CPU)
    assert type(computing(Recipe(epochs=1), CPU)) is type(plain)
    assert type(computing(Recipe(epochs=1, compile=True), CPU)) is not type(plain)
    assert type(computing(Recipe(epochs=1, precision="bf16"), CPU)) is torch.autocast
    assert type(fast_products(torch.device("cuda"))) is not type(plain)


def trail(layer: nn.Linear, values: torch.Tensor, within: AbstractContextManager[object]) -> set[str]:
    """Give the names of the gradient's steps."""
    with within:
        answers = layer(values)
    torch.testing.assert_close(answers, values @ layer.weight.T + layer.bias)
    names, left = set(), [answers.grad_fn]
    while left:
        node = left.pop()
        if node is not None:
            names.add(node.name())
            left += [following for following, _ in node.next_functions]
    return names

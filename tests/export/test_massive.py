"""Massive channels, planted in a network where they change nothing but the spread of one layer's input."""

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from vit_edge.evaluation import compare
from vit_edge.export.graph import linears, named
from vit_edge.export.images import Runner
from vit_edge.export.massive import MASSIVE, channels
from vit_edge.export.passes import QuantizeDynamic, RawPixels, SplitChannels, SplitGemm
from vit_edge.models import ViT

from .networks import CONFIG, answers, small_vit, traced

# The channel after the GELU that is made massive.
_CHANNEL = 5


def network() -> ViT:
    return small_vit(0.1)


def plant(model: ViT, *, block: int, factor: float = 300.0) -> ViT:
    """Make one hidden channel of an MLP large, and take as much of it again in the next layer.

    GELU is the identity far from 0, so that a large bias scales what comes out of it without a change elsewhere.
    """
    mlp: Any = model.blocks[block].mlp
    with torch.no_grad():
        mlp.fc1.bias[_CHANNEL] = factor
        mlp.fc2.bias -= factor * mlp.fc2.weight[:, _CHANNEL]
    return model


def split(model: ViT) -> onnx.ModelProto:
    return named(SplitGemm()(traced(model, CONFIG.image_size)))


def pixels(count: int = 16) -> list[NDArray[np.float32]]:
    rows = np.random.default_rng(0).normal(size=(count, 1, 3, 16, 16)).astype(np.float32)
    return list(rows)


@pytest.mark.parametrize("block", [0, 1])
def test_the_layer_behind_a_massive_channel_is_found_by_its_input(block: int) -> None:
    """Where such a channel sits differs from network to network, so nothing may hang on names or places."""
    graph = split(plant(network(), block=block))
    found = [layer for layer in channels(graph, pixels()) if layer.ratio >= MASSIVE]
    assert len(found) == 1
    (layer,) = found
    assert layer.maxima.shape == (CONFIG.mlp_width,)
    assert int(layer.maxima.argmax()) == _CHANNEL
    order = [linear.node for linear in linears(graph)]
    # Four linears a block: q k v, projection, fc1, fc2; the planted channel is fc2's input.
    assert order.index(layer.linear.node) == 4 * block + 3


def test_a_network_without_one_has_none() -> None:
    """A layer in float without need is four times its size in the file."""
    found = channels(split(network()), pixels())
    assert len(found) == 4 * CONFIG.depth + 1
    assert all(1 <= layer.ratio < MASSIVE for layer in found)


def test_the_layer_in_float_brings_the_answers_back() -> None:
    """This is what finding it is for: one scale that spans 300 leaves the other channels nothing."""
    graph = split(plant(network(), block=1))
    batch = np.concatenate(pixels())
    massive = tuple(layer.linear.node for layer in channels(graph, pixels()) if layer.ratio >= MASSIVE)
    expected = Runner(graph)(batch)
    plain = compare(expected, Runner(QuantizeDynamic()(graph))(batch)).drift
    kept = compare(expected, Runner(QuantizeDynamic(massive)(graph))(batch)).drift
    assert kept < 0.3 * plain


def test_the_maxima_are_over_all_images_and_tokens() -> None:
    """A channel that only stands out on one image of many spoils that image all the same."""
    graph = split(network())
    first, second = pixels(2)
    together = channels(graph, [first, second])
    for one, other, both in zip(channels(graph, [first]), channels(graph, [second]), together, strict=True):
        np.testing.assert_array_equal(np.maximum(one.maxima, other.maxima), both.maxima)


def test_products_that_were_set_apart_are_no_layers() -> None:
    """Massive channels stay in float and raw patches have a quantizer of their own, whoever asks for layers."""
    graph = split(plant(network(), block=1))
    layers = list(linears(graph))
    (massive,) = (layer for layer in channels(graph, pixels()) if layer.massive)
    apart = named(SplitChannels(((massive.linear.node, massive.massive),))(graph))
    raw = named(RawPixels((0.5,) * 3, (0.5,) * 3)(apart))
    products = [node.name for node in raw.graph.node if node.op_type == "MatMul"]
    # Beside the layers: attention's own two in each block, the massive channel, the patches.
    assert len(products) == len(layers) + 2 * CONFIG.depth + 2
    assert [layer.node for layer in linears(raw)] == [layer.node for layer in layers]
    bytes_ = np.random.default_rng(0).integers(256, size=(4, *CONFIG.image_size, 3), dtype=np.uint8)
    assert len(channels(raw, [bytes_])) == len(layers)
    assert np.isfinite(answers(raw, bytes_)).all()

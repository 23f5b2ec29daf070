"""The ranking of layers: each quantized alone, each left out alone, on a network that has learnt something."""

import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from vit_edge.checkpoint import load_checkpoint
from vit_edge.data import list_images
from vit_edge.evaluation import compare
from vit_edge.export.graph import linears, named
from vit_edge.export.images import Images, Runner, Tick
from vit_edge.export.network import TorchNetwork
from vit_edge.export.passes import FuseAttention, Pass, QuantizeDynamic, ScaleTokens, SplitGemm, Unflatten
from vit_edge.export.sensitivity import Sensitivity, mixed, rank
from vit_edge.export.trace import trace
from vit_edge.runtime.cache import CACHE_VARIABLE

from ..drain import drained

REWRITES: tuple[Pass, ...] = (SplitGemm(), Unflatten(), FuseAttention(), Unflatten())
FOREVER = float("inf")


@pytest.fixture(scope="module")
def images(digits_images: Path, digits_checkpoint: Path) -> Images:
    checkpoint = load_checkpoint(digits_checkpoint)
    assert checkpoint.preprocessing is not None
    paths = list_images(digits_images / "calibrate")[::4]
    found = Images("calibrate", paths, None, checkpoint.preprocessing)
    for _ in found.answer(TorchNetwork(checkpoint.model)):
        pass
    return found


@pytest.fixture(scope="module")
def floats(digits_checkpoint: Path) -> onnx.ModelProto:
    model = named(trace(load_checkpoint(digits_checkpoint).model, size=(32, 32), opset=20))
    for rewrite in REWRITES:
        model = named(rewrite(model))
    return model


@pytest.fixture(scope="module")
def quantized(floats: onnx.ModelProto) -> onnx.ModelProto:
    return named(QuantizeDynamic()(floats))


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))


def ranked(
    floats: onnx.ModelProto, quantized: onnx.ModelProto, images: Images, deadline: float = FOREVER
) -> tuple[tuple[Sensitivity, ...], list[Tick]]:
    spreads = {linear.node: 1.0 for linear in linears(floats)}
    ticks, found = drained(rank(floats, quantized, images, spreads=spreads, deadline=deadline))
    return found, ticks


def drift(model: onnx.ModelProto, images: Images) -> float:
    run = Runner(model)
    assert images.reference is not None
    answers = np.concatenate([run(images.pixels(path)) for path in images.paths])
    return compare(images.reference, answers).drift


def test_a_mixed_graph_has_the_float_layers_asked_for(
    floats: onnx.ModelProto, quantized: onnx.ModelProto, images: Images
) -> None:
    """The ranking hangs on it: all in float is the float graph, none is the quantized one."""
    every = {linear.node for linear in linears(floats)}
    assert len(every) == 3 * 4 + 1
    assert drift(mixed(floats, quantized, every), images) == pytest.approx(drift(floats, images), abs=1e-7)
    assert drift(mixed(floats, quantized, ()), images) == drift(quantized, images)
    one = sorted(every)[3]
    half = mixed(floats, quantized, {one})
    assert [linear.node for linear in linears(half)] == [one]
    # Built so, and by the quantizer itself: the same graph.
    assert drift(half, images) == pytest.approx(drift(QuantizeDynamic((one,))(floats), images), abs=1e-7)


def test_layers_scaled_per_token_can_be_taken_back_too(floats: onnx.ModelProto, images: Images) -> None:
    """The ranking works on whatever the recipe has become."""
    layer = next(linear.node for linear in linears(floats) if linear.splits)
    quantized = named(QuantizeDynamic()(ScaleTokens(((layer, -5.0, 5.0),))(floats)))
    back = mixed(floats, quantized, {layer})
    assert drift(back, images) == pytest.approx(drift(QuantizeDynamic((layer,))(floats), images), abs=1e-7)


def test_the_layer_whose_absence_helps_most_comes_first(
    floats: onnx.ModelProto, quantized: onnx.ModelProto, images: Images
) -> None:
    """That is the one to spend float weights on."""
    found, ticks = ranked(floats, quantized, images)
    assert len(found) == 13
    without = [layer.without for layer in found]
    assert None not in without
    assert without == sorted(without)  # type: ignore[type-var]
    best = found[0]
    assert best.without == pytest.approx(drift(QuantizeDynamic((best.layer,))(floats), images), abs=1e-7)
    assert all(
        layer.alone is not None and 0 < layer.alone < drift(quantized, images) * 1.5 for layer in found
    )
    assert ticks[-1].done == ticks[-1].total == 26
    shapes = {layer.shape for layer in found}
    assert shapes == {(64, 192), (64, 64), (64, 128), (128, 64), (64, 10)}


def test_a_second_run_takes_up_what_the_first_measured(
    floats: onnx.ModelProto, quantized: onnx.ModelProto, images: Images
) -> None:
    """After a kill nothing is measured twice: with no time at all the result is the same."""
    first, _ = ranked(floats, quantized, images)
    again, _ = ranked(floats, quantized, images, deadline=time.monotonic() - 1)
    assert again == first


def test_without_time_nothing_is_measured_and_nothing_invented(
    floats: onnx.ModelProto, quantized: onnx.ModelProto, images: Images
) -> None:
    """A budget is kept; what is not known is told as that."""
    found, _ = ranked(floats, quantized, images, deadline=time.monotonic() - 1)
    assert len(found) == 13
    assert all(layer.alone is None and layer.without is None for layer in found)
    assert found[0].to_dict()["without"] is None


def test_another_graph_is_measured_anew(
    floats: onnx.ModelProto, quantized: onnx.ModelProto, images: Images
) -> None:
    """Yesterday's ranking of another network would be worse than none."""
    ranked(floats, quantized, images)
    other = named(QuantizeDynamic(bits=7)(floats))
    found, _ = ranked(floats, other, images, deadline=time.monotonic() - 1)
    assert all(layer.without is None for layer in found)

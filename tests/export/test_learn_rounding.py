"""Learned rounding, on layers small enough to know what is right."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from vit_edge.evaluation import compare
from vit_edge.export.graph import MASSIVE_SUFFIX, copy, linears, named, weight
from vit_edge.export.images import Runner
from vit_edge.export.moments import Moments, moments
from vit_edge.export.passes import LearnRounding, QuantizeDynamic, QuantizeStatic, Simplify, SplitChannels
from vit_edge.export.passes.learn_rounding import round_columns
from vit_edge.export.passes.static import sites
from vit_edge.quantizers import column_scales

from .networks import CONFIG, rewritten, small_vit, traced


@pytest.fixture(scope="module")
def graph() -> onnx.ModelProto:
    """Give a graph with fused attention, a last block for one token, and a product split in two."""
    model = rewritten(traced(small_vit(0.15), CONFIG.image_size), Simplify())
    product = next(linear.node for linear in linears(model) if linear.splits)
    return named(SplitChannels(((product, (3,)),))(model))


def pixels(count: int = 64, seed: int = 0) -> Iterator[NDArray[np.float32]]:
    noise = np.random.default_rng(seed)
    for _ in range(count):
        # A mean of its own for each image, so that inputs vary together, as they do on images.
        yield noise.normal(noise.normal(size=(1, 3, 1, 1)), 1, (1, 3, 16, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def measured(graph: onnx.ModelProto) -> dict[str, Moments]:
    (group,) = moments(graph, pixels)
    return group


def correlated(rows: int = 2000, channels: int = 48) -> NDArray[np.float64]:
    """Give rows of channels that vary together in six directions."""
    noise = np.random.default_rng(0)
    mixture = noise.normal(size=(6, channels))
    values: NDArray[np.float64] = noise.normal(size=(rows, 6)) @ mixture
    return values + 0.1 * noise.normal(size=(rows, channels))


def matrix(inputs: int = 48, outputs: int = 20) -> NDArray[np.float32]:
    return np.random.default_rng(1).normal(size=(inputs, outputs)).astype(np.float32)


def nearest(weights: NDArray[np.float32], bits: int = 8) -> NDArray[np.float32]:
    scales = column_scales(weights, bits=bits)
    snapped: NDArray[np.float32] = np.rint(weights / scales).astype(np.float32) * scales
    return snapped


def values_of(graph: onnx.ModelProto, name: str, batch: NDArray[np.float32]) -> NDArray[np.float32]:
    watched = copy(graph)
    del watched.graph.output[:]
    watched.graph.output.append(onnx.ValueInfoProto(name=name))
    values: NDArray[np.float32] = Runner(watched)(batch)
    return values


def is_product(model: onnx.ModelProto, node: onnx.NodeProto) -> bool:
    matrices = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 2}
    return node.op_type in ("MatMul", "Attention") and node.input[1] in matrices


def test_moments_are_those_of_all_rows(graph: onnx.ModelProto, measured: dict[str, Moments]) -> None:
    """Batch by batch and less a shift is only another way to add up."""
    linear = list(linears(graph))[2]
    values = values_of(graph, linear.input, np.concatenate(list(pixels())))
    rows = values.reshape(-1, values.shape[-1]).astype(np.float64)
    found = measured[linear.input]
    assert found.rows == len(rows)
    np.testing.assert_allclose(found.mean, rows.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(found.covariance, np.cov(rows.T, bias=True), atol=1e-4)
    np.testing.assert_allclose(found.second, rows.T @ rows / len(rows), atol=1e-4)


def test_groups_keep_to_the_memory_and_leave_nothing_out(
    graph: onnx.ModelProto, measured: dict[str, Moments]
) -> None:
    """All moments of a large network at once are gigabytes; an image may be read twice instead."""
    groups = list(moments(graph, pixels, memory=2 * 8 * 32**2))
    assert len(groups) > 1
    assert all(sum(part.covariance.nbytes for part in g.values()) <= 16 * 32**2 for g in groups if len(g) > 1)
    together = {name: part for group in groups for name, part in group.items()}
    assert list(together) == list(measured)
    for name, part in together.items():
        # A shorter graph may be fused in another way.
        np.testing.assert_allclose(part.covariance, measured[name].covariance, rtol=1e-3, atol=1e-4)


def test_linears_that_are_left_out_are_not_measured(graph: onnx.ModelProto) -> None:
    """What stays in float needs no moments, and a massive channel's would only cost memory."""
    alone = [linear for linear in linears(graph) if linear.splits]
    (every,) = moments(graph, pixels)
    apart = next(node.input[0] for node in graph.graph.node if node.name.endswith(MASSIVE_SUFFIX))
    assert apart not in every
    (group,) = moments(graph, pixels, leave=[linear.node for linear in alone[1:]])
    assert alone[0].input in group
    assert alone[-1].input not in group


@pytest.mark.parametrize("bits", [8, 7])
def test_the_output_moves_less_than_with_rounding_to_nearest(bits: int) -> None:
    """This is the point: the errors of a column cancel out where its inputs vary together."""
    (rows, fresh), weights = np.split(correlated(4000), 2), matrix()
    learned = round_columns(weights, rows.T @ rows / len(rows), bits=bits)
    plain = nearest(weights, bits)
    assert np.linalg.norm(rows @ (learned - weights)) < 0.5 * np.linalg.norm(rows @ (plain - weights))
    # And on rows that it has not seen.
    assert np.linalg.norm(fresh @ (learned - weights)) < 0.5 * np.linalg.norm(fresh @ (plain - weights))


def test_it_is_the_published_method() -> None:
    """Row by row with the inverse of what is left of H, as the paper has it, without its blocks and factors."""
    rows, weights = correlated(channels=20), matrix(20)
    second = rows.T @ rows / len(rows)
    left = second + 0.01 * np.diag(second).mean() * np.eye(20)
    inverse = np.linalg.inv(left)
    order = np.argsort(-np.diag(second), kind="stable")
    scales = column_scales(weights)
    top, work = np.abs(weights).argmax(axis=0), weights.astype(np.float64)
    expected = np.empty_like(weights)
    for row in order:
        wanted = np.clip(np.rint(work[row] / scales), -127, 127) * scales
        expected[row] = np.where(top == row, weights[row], wanted)
        error = (work[row] - expected[row]) / inverse[row, row]
        work -= np.outer(inverse[:, row], error)
        inverse -= np.outer(inverse[:, row], inverse[row]) / inverse[row, row]
    np.testing.assert_allclose(round_columns(weights, second), expected, atol=1e-5)


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_blocks_do_not_change_the_result(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are for speed alone; an error that is dropped at a border would show on large layers only."""
    rows, weights = correlated(channels=80), matrix(80)
    expected = round_columns(weights, rows.T @ rows)
    monkeypatch.setattr("vit_edge.export.passes.learn_rounding._BLOCK", block)
    np.testing.assert_allclose(round_columns(weights, rows.T @ rows), expected, atol=1e-6)


def test_unvarying_inputs_are_rounded_to_nearest() -> None:
    """Where nothing is known of the inputs there is nothing to learn, and no reason to fail."""
    weights = matrix()
    np.testing.assert_allclose(round_columns(weights, np.zeros((48, 48))), nearest(weights), atol=1e-6)
    np.testing.assert_allclose(round_columns(weights, np.eye(48)), nearest(weights), atol=1e-6)


def test_dead_channels_and_fewer_rows_than_channels_work() -> None:
    """GELU leaves channels dead, and the last block has one row an image: H is singular in practice."""
    rows, weights = correlated(10), matrix()
    rows[:, 5] = 0
    learned = round_columns(weights, rows.T @ rows / 10)
    assert np.isfinite(learned).all()
    np.testing.assert_allclose(learned[5], nearest(weights)[5], atol=1e-6)
    assert np.abs(learned - weights).max() < 0.5


def test_empty_columns_stay_empty() -> None:
    """A pruned output must not come to life, and its scale is no division by zero."""
    rows, weights = correlated(), matrix()
    weights[:, 3] = 0
    learned = round_columns(weights, rows.T @ rows / len(rows))
    assert not learned[:, 3].any()
    assert np.isfinite(learned).all()


GRIDS = pytest.mark.parametrize(("bits", "largest"), [(8, 127), (7, 64)])


@GRIDS
def test_the_dynamic_quantizer_gives_the_learned_integers_back(
    graph: onnx.ModelProto, measured: dict[str, Moments], bits: int, largest: int
) -> None:
    """A scale that the quantizer chooses otherwise would round every weight a second time."""
    learned = named(LearnRounding(measured, bits=bits)(graph))
    arrays = stored(QuantizeDynamic(bits=bits)(learned))
    given = {
        linear.node: (arrays[f"{linear.weight}_quantized"], arrays[f"{linear.weight}_scale"])
        for linear in linears(learned)
    }
    require_learned(graph, learned, given, bits, largest)


@GRIDS
def test_the_static_quantizer_gives_the_learned_integers_back(
    graph: onnx.ModelProto, measured: dict[str, Moments], bits: int, largest: int
) -> None:
    """It stores weights in a way of its own, on the same grid."""
    learned = named(LearnRounding(measured, bits=bits)(graph))
    ranges = {name: (-1.0, 1.0) for site in sites(learned) for name in site.inputs}
    arrays = stored(QuantizeStatic(ranges, "minmax", weight_bits=bits)(learned))
    given = {
        linear.node: (arrays[f"{linear.node}_weight"], arrays[f"{linear.node}_weight_scale"])
        for linear in linears(learned)
    }
    require_learned(graph, learned, given, bits, largest)


def stored(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def require_learned(
    graph: onnx.ModelProto,
    learned: onnx.ModelProto,
    given: dict[str, tuple[NDArray[Any], NDArray[Any]]],
    bits: int,
    largest: int,
) -> None:
    """Make sure that what a quantizer stored of each layer, integers and scales, is what was learned."""
    before = {linear.node: weight(graph, linear.weight) for linear in linears(graph)}
    differs = False
    for linear in linears(learned):
        rounded, original = weight(learned, linear.weight), before[linear.node]
        scales = column_scales(original, bits=bits)
        integers = np.rint(rounded / scales).astype(np.int64)
        np.testing.assert_array_equal(given[linear.node][0], integers)
        np.testing.assert_allclose(given[linear.node][1], scales, rtol=3e-7)
        np.testing.assert_array_equal(np.abs(integers).max(axis=0), largest)
        differs |= bool((rounded != nearest(original, bits)).any())
    # Two attentions, of which the last is three products; projection, fc1, fc2 twice; the head.
    assert len(before) == len(given) == 1 + 3 + 6 + 1
    assert differs


def test_massive_channels_and_what_stays_in_float_are_left_alone(
    graph: onnx.ModelProto, measured: dict[str, Moments]
) -> None:
    """Rounding what is not quantized is harm without a gain."""
    kept = list(linears(graph))[-1].node
    massive = {node.name for node in graph.graph.node if node.name.endswith(MASSIVE_SUFFIX)}
    assert len(massive) == 1
    # Nothing is spared for want of its moments.
    picked = next(node.input[0] for node in graph.graph.node if node.name in massive)
    every = measured | {picked: Moments(4, np.zeros(1), np.eye(1))}
    learned = named(LearnRounding(every, keep_float=(kept,))(graph))
    before, after = (
        {node.name: weight(model, node.input[1]) for node in model.graph.node if is_product(model, node)}
        for model in (graph, learned)
    )
    unchanged = {name for name, values in before.items() if np.array_equal(values, after[name])}
    assert unchanged == massive | {kept}


def test_the_answers_drift_less(graph: onnx.ModelProto, measured: dict[str, Moments]) -> None:
    """Layer by layer is only worth it where the whole network gains; images it was not fitted to say so."""
    fresh = np.concatenate(list(pixels(seed=1)))
    expected = Runner(graph)(fresh)
    plain = copy(graph)
    for tensor in plain.graph.initializer:
        if tensor.name in {one.weight for one in linears(graph)}:
            values = nearest(weight(graph, tensor.name), 4)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    learned = LearnRounding(measured, bits=4)(graph)
    drift = compare(expected, Runner(learned)(fresh)).drift
    assert drift < 0.8 * compare(expected, Runner(plain)(fresh)).drift


def test_a_graph_without_measured_inputs_is_unchanged(graph: onnx.ModelProto) -> None:
    """Moments of other tensors say nothing of these layers."""
    foreign = {"elsewhere": Moments(4, np.zeros(32), np.eye(32))}
    result = LearnRounding(foreign)(graph)
    assert [(n.name, *n.input) for n in result.graph.node] == [(n.name, *n.input) for n in graph.graph.node]
    before, after = ({t.name: t.raw_data for t in m.graph.initializer} for m in (graph, result))
    assert {name: before[name] for name in after} == after


def test_passes_leave_their_argument_and_say_what_they_do(
    graph: onnx.ModelProto, measured: dict[str, Moments]
) -> None:
    """A step is undone by forgetting its result; its text is the recipe in the file, and has no arrays."""
    before = graph.SerializeToString(deterministic=True)
    LearnRounding(measured)(graph)
    assert graph.SerializeToString(deterministic=True) == before
    assert repr(LearnRounding(measured)) == "LearnRounding(keep_float=(), bits=8, damping=0.01)"

"""Learned rounding and corrected biases, on layers small enough to know what is right."""

from collections.abc import Iterator

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from vit_edge.evaluation import compare
from vit_edge.export.graph import copy, linears, named, weight
from vit_edge.export.images import Runner
from vit_edge.export.moments import Moments, moments
from vit_edge.export.passes import (
    ClassTokenOnly,
    FuseAttention,
    Pass,
    QuantizeDynamic,
    Simplify,
    SplitChannels,
    SplitGemm,
    Unflatten,
)
from vit_edge.export.passes.correct_bias import CorrectBias
from vit_edge.export.passes.learn_rounding import LearnRounding, column_scales, round_columns
from vit_edge.export.rewrite import observe
from vit_edge.export.trace import trace
from vit_edge.models import ViT, ViTConfig

CONFIG = ViTConfig((16, 16), patch_size=8, width=32, depth=2, heads=2, mlp_width=64, classes=7)


@pytest.fixture(scope="module")
def graph() -> onnx.ModelProto:
    """Give a graph with fused attention, a last block for one token, and a product split in two."""
    torch.manual_seed(0)
    model = ViT(CONFIG)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.15)
    rewritten = named(trace(model.eval(), size=(16, 16), opset=20, batch=None))
    for rewrite in (Simplify(), SplitGemm(), Unflatten(), FuseAttention(), Unflatten(), ClassTokenOnly()):
        rewritten = named(rewrite(rewritten))
    product = next(linear.node for linear in linears(rewritten) if linear.splits)
    return named(SplitChannels(((product, (3,)),))(rewritten))


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


@pytest.mark.parametrize(("bits", "largest"), [(8, 127), (7, 64)])
def test_the_quantizer_gives_the_learned_integers_back(
    graph: onnx.ModelProto, measured: dict[str, Moments], bits: int, largest: int
) -> None:
    """A scale that the quantizer chooses otherwise would round every weight a second time."""
    learned = named(LearnRounding(measured, bits=bits)(graph))
    quantized = QuantizeDynamic(bits=bits)(learned)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
    before = {linear.node: weight(graph, linear.weight) for linear in linears(graph)}
    checked = 0
    differs = False
    for linear in linears(learned):
        if f"{linear.weight}_quantized" not in stored:
            continue
        rounded, original = weight(learned, linear.weight), before[linear.node]
        integers = np.rint(rounded / column_scales(original, bits=bits)).astype(np.int64)
        np.testing.assert_array_equal(stored[f"{linear.weight}_quantized"], integers)
        scales = stored[f"{linear.weight}_scale"]
        np.testing.assert_allclose(scales, column_scales(original, bits=bits), rtol=3e-7)
        np.testing.assert_array_equal(np.abs(integers).max(axis=0), largest)
        differs |= bool((rounded != nearest(original, bits)).any())
        checked += 1
    # Two attentions, of which the last is three products; projection, fc1, fc2 twice; the head.
    assert checked == 1 + 3 + 6 + 1
    assert differs


def test_massive_channels_and_what_stays_in_float_are_left_alone(
    graph: onnx.ModelProto, measured: dict[str, Moments]
) -> None:
    """Rounding what is not quantized is harm without a gain."""
    kept = list(linears(graph))[-1].node
    learned = named(LearnRounding(measured, keep_float=(kept,))(graph))
    after = {linear.node: weight(learned, linear.weight) for linear in linears(learned)}
    unchanged = {
        linear.node
        for linear in linears(graph)
        if np.array_equal(weight(graph, linear.weight), after[linear.node])
    }
    massive = {linear.node for linear in linears(graph) if linear.node.endswith("_massive")}
    assert massive
    assert unchanged == massive | {kept}


def test_the_answers_drift_less(graph: onnx.ModelProto, measured: dict[str, Moments]) -> None:
    """Layer by layer is only worth it where the whole network gains; images it was not fitted to say so."""
    fresh = np.concatenate(list(pixels(seed=1)))
    expected = Runner(graph)(fresh)
    plain = copy(graph)
    for tensor in plain.graph.initializer:
        if tensor.name in {one.weight for one in linears(graph) if not one.node.endswith("_massive")}:
            values = nearest(weight(graph, tensor.name), 4)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    learned = LearnRounding(measured, bits=4)(graph)
    drift = compare(expected, Runner(learned)(fresh)).drift
    assert drift < 0.8 * compare(expected, Runner(plain)(fresh)).drift


@pytest.mark.parametrize("learn", [False, True])
def test_corrected_biases_restore_the_mean_of_every_layer(
    graph: onnx.ModelProto, measured: dict[str, Moments], learn: bool
) -> None:
    """A mean that is off at every token adds up through the blocks; noise does not."""
    # Coarse enough that each mean is far off.
    rounded = named(LearnRounding(measured, bits=4)(graph)) if learn else graph
    corrected = CorrectBias(measured, graph, bits=4)(rounded)
    before, after = ({one.node: one for one in linears(model)} for model in (graph, corrected))
    biases = dict(changed_biases(rounded, corrected))
    # Each quantized layer's: attention's two, the second of which takes three products' at once; six more; the head's.
    assert len(biases) == 2 + 6 + 1
    for node, change in biases.items():
        parts = [name for name in before if name == node or name in biases_of(corrected, node)]
        errors = [
            measured[before[part].input].mean
            @ (
                weight(graph, before[part].weight).astype(np.float64)
                - nearest(weight(corrected, after[part].weight), 4)
            )
            for part in parts
            if not part.endswith("_massive")
        ]
        np.testing.assert_allclose(change, np.concatenate(errors), atol=1e-5)
        assert np.abs(change).max() > 1e-3


def vectors(model: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer if len(t.dims) == 1}


def changed_biases(
    before: onnx.ModelProto, after: onnx.ModelProto
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Give each node that takes another vector than it took, and the difference."""
    old, new = vectors(before), vectors(after)
    nodes = {node.name: node for node in before.graph.node}
    for node in after.graph.node:
        for place, name in enumerate(node.input):
            if name in new and name != nodes[node.name].input[place]:
                yield node.name, new[name] - old[nodes[node.name].input[place]]


def biases_of(model: onnx.ModelProto, node: str) -> list[str]:
    """Give the products whose sum comes to a node."""
    makers = {output: one for one in model.graph.node for output in one.output}
    wanted = next(one for one in model.graph.node if one.name == node)
    found = []
    queue = [makers[name] for name in wanted.input if name in makers]
    while queue:
        maker = queue.pop(0)
        if maker.op_type == "MatMul":
            found.append(maker.name)
        elif maker.op_type == "Add":
            queue += [makers[name] for name in maker.input if name in makers]
    return found


def test_products_without_a_bias_are_not_corrected(graph: onnx.ModelProto) -> None:
    """A sum with the residual is no bias: there is nothing constant to add to, and a new node would cost time."""
    bare = copy(graph)
    total = next(n for n in bare.graph.node if n.name.endswith("_bias") and n.op_type == "Add")
    constant = next(name for name in total.input if name in vectors(bare))
    other = next(name for name in total.input if name != constant)
    for node in bare.graph.node:
        for place, name in enumerate(node.input):
            if name == total.output[0]:
                node.input[place] = other
    bare.graph.node.remove(total)
    (group,) = moments(bare, pixels)
    corrected = CorrectBias(group, bare)(bare)
    assert len(dict(changed_biases(bare, corrected))) == 2 + 6 + 1 - 1
    observe(corrected)


@pytest.mark.parametrize("step", [LearnRounding, CorrectBias])
def test_a_graph_without_measured_inputs_is_unchanged(graph: onnx.ModelProto, step: type) -> None:
    """Moments of other tensors say nothing of these layers."""
    foreign = {"elsewhere": Moments(4, np.zeros(32), np.eye(32))}
    chosen: Pass = LearnRounding(foreign) if step is LearnRounding else CorrectBias(foreign, graph)
    result = chosen(graph)
    assert [(n.name, *n.input) for n in result.graph.node] == [(n.name, *n.input) for n in graph.graph.node]
    before, after = ({t.name: t.raw_data for t in m.graph.initializer} for m in (graph, result))
    assert {name: before[name] for name in after} == after


def test_passes_leave_their_argument_and_say_what_they_do(
    graph: onnx.ModelProto, measured: dict[str, Moments]
) -> None:
    """A step is undone by forgetting its result; its text is the recipe in the file, and has no arrays."""
    before = graph.SerializeToString(deterministic=True)
    LearnRounding(measured)(graph)
    CorrectBias(measured, graph)(graph)
    assert graph.SerializeToString(deterministic=True) == before
    assert repr(LearnRounding(measured)) == "LearnRounding(keep_float=(), bits=8, damping=0.01)"
    assert repr(CorrectBias(measured, graph, ("a",))) == "CorrectBias(keep_float=('a',), bits=8)"

"""Static quantization finds the products by structure, and stores what it says it stores."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from vit_edge.errors import ExportError
from vit_edge.evaluation import compare
from vit_edge.export.graph import named
from vit_edge.export.images import Runner
from vit_edge.export.massive import channels
from vit_edge.export.passes import FuseAttention, Pass, Simplify, SplitChannels, SplitGemm, Unflatten
from vit_edge.export.passes.static import QuantizeStatic, sites
from vit_edge.export.ranges import collect
from vit_edge.models import ViT
from vit_edge.quantizers import Range

from .networks import CONFIG, operators, small_vit, traced


def network(massive: float = 0.0) -> ViT:
    """Make a network, with one hidden channel of an MLP as large as said, and taken off again behind it."""
    model = small_vit(0.15)
    if massive:
        blocks: Any = model.blocks
        mlp = blocks[1].mlp
        with torch.no_grad():
            mlp.fc1.bias[5] = massive
            mlp.fc2.bias -= massive * mlp.fc2.weight[:, 5]
    return model


def graph(*passes: Pass, massive: float = 0.0) -> onnx.ModelProto:
    model = traced(network(massive), CONFIG.image_size)
    steps: tuple[Pass, ...] = (Simplify(), SplitGemm(), Unflatten(), *passes)
    for step in steps:
        model = named(step(model))
    return model


def images(count: int = 24) -> list[NDArray[np.float32]]:
    return list(np.random.default_rng(0).normal(size=(count, 1, 3, 16, 16)).astype(np.float32))


def ranges(model: onnx.ModelProto, *, symmetric: bool = False) -> Mapping[str, Range]:
    names = [name for site in sites(model) for name in site.inputs]
    return collect(model, names, images()).ranges("minmax", symmetric=symmetric)


def constants(model: onnx.ModelProto) -> dict[str, NDArray[np.generic]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def drift(model: onnx.ModelProto, quantized: onnx.ModelProto) -> float:
    batch = np.concatenate(images())
    return compare(Runner(model)(batch), Runner(quantized)(batch)).drift


@pytest.fixture(scope="module")
def plain() -> onnx.ModelProto:
    return graph()


def test_every_product_is_found_by_what_it_multiplies(plain: onnx.ModelProto) -> None:
    """The search names what stays in float by these, and a site that is missed is never quantized."""
    found = sites(plain)
    # A block has four linears and attention's two products; beside them the patch embedding and the head.
    assert Counter(site.kind for site in found) == {"linear": 9, "scores": 2, "mixture": 2, "patches": 1}
    assert found[0].kind == "patches"
    assert found[0].inputs == ("pixels",)
    assert found[-1].kind == "linear"
    assert [site.kind for site in found if site.kind in ("scores", "mixture")] == ["scores", "mixture"] * 2
    assert all(len(site.inputs) == (2 if site.kind in ("scores", "mixture") else 1) for site in found)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("products", [False, True])
def test_the_answers_stay_close(plain: onnx.ModelProto, symmetric: bool, products: bool) -> None:
    """A scale, a zero point or an axis that is mixed up gives answers that have nothing to do with the network's."""
    step = QuantizeStatic(
        ranges(plain, symmetric=symmetric), "minmax", symmetric=symmetric, products=products
    )
    before = plain.SerializeToString()
    quantized = step(plain)
    assert plain.SerializeToString() == before
    onnx.checker.check_model(quantized, full_check=True)
    assert 0 < drift(plain, quantized) < 0.06
    assert operators(quantized)["DequantizeLinear"] > operators(quantized)["QuantizeLinear"] > 0


def test_weights_are_stored_in_eight_bits_per_output(plain: onnx.ModelProto) -> None:
    """A quarter of the size is half of why one quantizes; a scale for all outputs would cost points."""
    quantized = QuantizeStatic(ranges(plain), "minmax")(plain)
    assert quantized.ByteSize() < 0.6 * plain.ByteSize()
    arrays = constants(quantized)
    weights = [
        node
        for node in quantized.graph.node
        if node.op_type == "DequantizeLinear" and arrays.get(node.input[0], np.zeros(0)).ndim >= 2
    ]
    # Nine linears and the patch embedding, whose outputs come first.
    assert len(weights) == 10
    for node in weights:
        stored, scale, zero = (arrays[name] for name in node.input)
        axis = helper.get_node_attr_value(node, "axis")
        assert axis == (0 if stored.ndim == 4 else 1)
        assert stored.dtype == zero.dtype == np.int8
        assert scale.shape == zero.shape == (stored.shape[axis],)
        assert not zero.any()
        others = tuple(side for side in range(stored.ndim) if side != axis)
        assert (np.abs(stored.astype(int)).max(axis=others) == 127).all()


def test_an_output_without_weights_stays_at_zero() -> None:
    """Pruning leaves such outputs, and a scale of next to nothing is one that providers divide by."""
    model = graph()
    head = [site for site in sites(model) if site.kind == "linear"][-1]
    node = next(node for node in model.graph.node if node.name == head.node)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == node.input[1])
    values = numpy_helper.to_array(tensor).copy()
    values[:, 3] = 0
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    arrays = constants(QuantizeStatic(ranges(model), "minmax")(model))
    assert not arrays[f"{head.node}_weight"][:, 3].any()
    assert arrays[f"{head.node}_weight_scale"][3] == 1


def test_seven_bits_leave_room_for_two_products() -> None:
    """Without VNNI a processor adds 255 · w + 255 · w in 16 bits, and answers wrongly where that overflows."""
    model = graph()
    quantized = QuantizeStatic(ranges(model), "minmax", weight_bits=7)(model)
    largest = max(np.abs(a.astype(int)).max() for a in constants(quantized).values() if a.dtype == np.int8)
    assert 0 < 2 * 255 * largest < 2**15


def test_symmetric_activations_have_no_zero_point(plain: onnx.ModelProto) -> None:
    """TensorRT refuses a file with any other zero point than 0."""
    kinds = {}
    for symmetric in (False, True):
        quantized = QuantizeStatic(ranges(plain), "minmax", symmetric=symmetric, products=True)(plain)
        arrays = constants(quantized)
        zeros = [arrays[node.input[2]] for node in quantized.graph.node if node.op_type == "QuantizeLinear"]
        kinds[symmetric] = {zero.dtype for zero in zeros}, any(zero != 0 for zero in zeros)
    assert kinds == {False: ({np.dtype(np.uint8)}, True), True: ({np.dtype(np.int8)}, False)}


def test_what_is_kept_in_float_is_left_alone(plain: onnx.ModelProto) -> None:
    """The search takes back what does harm, by name; a quantized neighbour must not change that."""
    found = sites(plain)
    kept = (*(site.node for site in found if site.kind in ("patches", "mixture")), found[-1].node)
    quantized = QuantizeStatic(ranges(plain), "minmax", keep_float=kept, products=True)(plain)
    restored = {node.output[0] for node in quantized.graph.node if node.op_type == "DequantizeLinear"}
    nodes = {node.name: node for node in quantized.graph.node}
    for site in found:
        assert any(name in restored for name in nodes[site.node].input) == (site.node not in kept)
    everything = QuantizeStatic({}, "minmax", keep_float=tuple(site.node for site in found))(plain)
    assert operators(everything) == operators(plain)


def test_a_tensor_of_several_products_is_quantized_once() -> None:
    """Separate projections of query, key and value read the same tokens, and three roundings cost three times."""
    weights = [numpy_helper.from_array(np.eye(4, dtype=np.float32), name) for name in ("q", "k")]
    ends = [helper.make_tensor_value_info(name, 1, ["batch", 4]) for name in ("pixels", "logits")]
    nodes = [
        helper.make_node("MatMul", ["pixels", "q"], ["a"], name="one"),
        helper.make_node("MatMul", ["pixels", "k"], ["b"], name="two"),
        helper.make_node("Add", ["a", "b"], ["logits"]),
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "two", ends[:1], ends[1:], weights),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=9,
    )
    quantized = QuantizeStatic({"pixels": (-1.0, 1.0)}, "minmax")(model)
    assert operators(quantized)["QuantizeLinear"] == 1
    pixels = np.array([[0.1, -0.2, 0.9, -1.0]], np.float32)
    np.testing.assert_allclose(Runner(quantized)(pixels), 2 * pixels, atol=0.01)


def test_massive_channels_stay_beside_the_product() -> None:
    """This is what splitting them off is for: one range over 300 leaves the other channels nothing."""
    model = graph(massive=300.0)
    found = channels(model, images())
    chosen = tuple((layer.linear.node, layer.massive) for layer in found if layer.massive)
    assert chosen
    split = named(SplitChannels(chosen)(model))
    assert len(sites(split)) == len(sites(model))
    together = drift(model, QuantizeStatic(ranges(model), "minmax")(model))
    apart = drift(model, QuantizeStatic(ranges(split), "minmax")(split))
    assert apart < 0.5 * together


@pytest.mark.parametrize("symmetric", [False, True])
def test_fused_attention_becomes_the_quantized_one(symmetric: bool) -> None:
    """ONNX Runtime has an operator for it; in QDQ form it would run in float behind needless roundings."""
    model = graph(FuseAttention())
    assert Counter(site.kind for site in sites(model)) == {"linear": 7, "attention": 2, "patches": 1}
    step = QuantizeStatic(ranges(model, symmetric=symmetric), "minmax", symmetric=symmetric)
    quantized = step(model)
    assert operators(quantized)["QAttention"] == 2
    assert "Attention" not in operators(quantized)
    assert 0 < drift(model, quantized) < 0.06


def test_a_tensor_without_a_range_is_named(plain: onnx.ModelProto) -> None:
    """Ranges of another graph do not fit, since passes rename what they change."""
    with pytest.raises(ExportError, match="no range for the tensor pixels; collect the ranges on the graph"):
        QuantizeStatic({}, "minmax")(plain)


def test_the_record_says_how_it_was_made_and_leaves_out_the_numbers() -> None:
    """The repr goes into the file and onto the terminal."""
    text = repr(QuantizeStatic({"pixels": (-1.0, 1.0)}, "mse", symmetric=True))
    assert text == (
        "QuantizeStatic(method='mse', symmetric=True, weight_bits=8, keep_float=(), products=False)"
    )

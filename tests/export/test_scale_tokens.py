"""Products with an activation scale for every token."""

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from vit_edge.export.graph import linears
from vit_edge.export.images import Runner
from vit_edge.export.passes import QuantizeDynamic, ScaleTokens

CHANNELS, OUTPUTS, TOKENS = 32, 8, 5


def product(*, tokens: int = TOKENS, bias: bool = True) -> onnx.ModelProto:
    """Give a graph of one linear layer on (batch, tokens, channels)."""
    weight = np.random.default_rng(0).normal(size=(CHANNELS, OUTPUTS)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["pixels", "w"], ["logits" if not bias else "y"], name="layer")]
    if bias:
        nodes.append(helper.make_node("Add", ["y", "b"], ["logits"], name="sum"))
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", tokens, CHANNELS])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", tokens, OUTPUTS])],
        [
            numpy_helper.from_array(weight, "w"),
            numpy_helper.from_array(np.ones(OUTPUTS, np.float32), "b"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def tokens_of_very_different_size(*, one_sided: bool, batch: int = 1) -> NDArray[np.float32]:
    values = np.random.default_rng(1).normal(size=(batch, TOKENS, CHANNELS)).astype(np.float32)
    values *= np.array([0.1, 1, 10, 100, 0.02], np.float32)[:, None]
    return np.maximum(values, -0.17) if one_sided else values


def error(model: onnx.ModelProto, pixels: NDArray[np.float32]) -> NDArray[np.float64]:
    """Give each token's error as a share of its size."""
    expected, found = Runner(product())(pixels), Runner(model)(pixels)
    size = np.linalg.norm(expected - 1, axis=-1)
    shares: NDArray[np.float64] = np.linalg.norm(found - expected, axis=-1) / size
    return shares


@pytest.mark.parametrize("one_sided", [True, False])
def test_small_tokens_beside_large_ones_keep_their_values(one_sided: bool) -> None:
    """One scale for all leaves a token that is a hundredth of the largest two or three levels."""
    pixels = tokens_of_very_different_size(one_sided=one_sided)
    ranges = (("layer", float(pixels.min()), float(pixels.max())),)
    apart = error(ScaleTokens(ranges)(product()), pixels)
    together = error(QuantizeDynamic()(product()), pixels)
    assert apart.max() < 0.2
    assert together.max() > 0.3
    assert apart[0, 0] < 0.1 * together[0, 0]


def test_seven_bits_cost_little_more() -> None:
    """Processors without VNNI need them, since sums of two products have to fit 16 bits."""
    pixels = tokens_of_very_different_size(one_sided=True)
    model = ScaleTokens((("layer", -0.17, 100.0),), bits=7)(product())
    weights = [numpy_helper.to_array(t) for t in model.graph.initializer if t.data_type == TensorProto.INT8]
    assert [int(np.abs(weight).max()) for weight in weights] == [64]
    assert error(model, pixels).max() < 0.15


def test_a_batch_shares_scales_token_by_token() -> None:
    """The graph takes any batch; beside another image a token's scale may grow, never its neighbour's."""
    pixels = tokens_of_very_different_size(one_sided=True, batch=3)
    model = ScaleTokens((("layer", -0.17, 100.0),))(product())
    assert error(model, pixels).max() < 0.2


def test_the_quantizer_leaves_such_a_product_alone_and_its_output_keeps_its_name() -> None:
    """Both passes are steps of one recipe, and graphs are put together by the outputs' names."""
    scaled = ScaleTokens((("layer", -0.17, 100.0),))(product())
    assert not list(linears(scaled))
    assert "y" in {name for node in scaled.graph.node for name in node.output}
    quantized = QuantizeDynamic()(scaled)
    assert "DynamicQuantizeLinear" not in {node.op_type for node in quantized.graph.node}


def test_a_product_of_one_token_and_one_that_was_not_named_stay() -> None:
    """A single token has a scale of its own already."""
    assert len(list(linears(ScaleTokens((("layer", -0.17, 1.0),))(product(tokens=1))))) == 1
    assert len(list(linears(ScaleTokens((("other", -0.17, 1.0),))(product())))) == 1


def test_the_output_of_a_graph_can_be_a_scaled_product() -> None:
    """A name at the edge of the graph is a promise to whoever runs it."""
    model = ScaleTokens((("layer", -0.17, 100.0),))(product(bias=False))
    assert [output.name for output in model.graph.output] == ["logits"]
    pixels = tokens_of_very_different_size(one_sided=True)
    expected = Runner(product(bias=False))(pixels)
    np.testing.assert_allclose(Runner(model)(pixels), expected, atol=0.1 * float(np.abs(expected).max()))

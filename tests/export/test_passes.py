"""Each pass on a real graph: what it changes, what it leaves, and the answers before and after."""

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from vit_edge.evaluation import compare
from vit_edge.export.graph import linears, named, weight
from vit_edge.export.images import Runner
from vit_edge.export.passes import Float16, Pass, QuantizeDynamic, Simplify, SplitGemm

from .networks import CONFIG, operators, small_vit, traced


@pytest.fixture(scope="module")
def graph() -> onnx.ModelProto:
    return traced(small_vit(0.1), CONFIG.image_size)


@pytest.fixture(scope="module")
def simplified(graph: onnx.ModelProto) -> onnx.ModelProto:
    return named(Simplify()(graph))


def answers(model: onnx.ModelProto) -> NDArray[np.float32]:
    pixels = np.random.default_rng(0).normal(size=(8, 3, 16, 16)).astype(np.float32)
    return Runner(model)(pixels)


def weights_size(model: onnx.ModelProto) -> int:
    return sum(tensor.ByteSize() for tensor in model.graph.initializer)


@pytest.mark.parametrize("step", [Simplify(), SplitGemm(), QuantizeDynamic(), Float16()], ids=repr)
def test_a_pass_leaves_its_argument_as_it_was(simplified: onnx.ModelProto, step: Pass) -> None:
    """A step is undone by forgetting its result, which needs the graph before it to be whole."""
    before = simplified.SerializeToString(deterministic=True)
    result = step(simplified)
    assert simplified.SerializeToString(deterministic=True) == before
    assert result is not simplified
    assert result.ir_version == simplified.ir_version
    assert ("", 20) in [(entry.domain, entry.version) for entry in result.opset_import]


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (Simplify(), "Simplify()"),
        (SplitGemm(), "SplitGemm()"),
        (QuantizeDynamic(("a",)), "QuantizeDynamic(keep_float=('a',), bits=8)"),
        (Float16(("Softmax",)), "Float16(keep_float=('Softmax',))"),
    ],
)
def test_a_pass_is_a_value_that_says_what_it_does(step: Pass, text: str) -> None:
    """This text is the recipe in the file, from which the same pass can be made again."""
    assert repr(step) == text
    assert eval(text) == step


def test_simplifying_drops_nodes_and_keeps_the_answers(
    graph: onnx.ModelProto, simplified: onnx.ModelProto
) -> None:
    """Fewer nodes are less to quantize and to read, at the same answers."""
    assert len(simplified.graph.node) < len(graph.graph.node)
    np.testing.assert_allclose(answers(simplified), answers(graph), atol=1e-5)


def test_every_gemm_becomes_a_product_and_a_sum(simplified: onnx.ModelProto) -> None:
    """The quantizer matches MatMul alone, and would leave such a layer in float without a word."""
    assert operators(simplified)["Gemm"] > 0
    split = SplitGemm()(simplified)
    assert "Gemm" not in operators(split)
    # Four linears a block, and the head.
    assert len(list(linears(split))) == 4 * CONFIG.depth + 1
    np.testing.assert_allclose(answers(split), answers(simplified), atol=1e-5)
    onnx.checker.check_model(split, full_check=True)


def gemm(**attributes: Any) -> onnx.ModelProto:
    """Give one Gemm of (batch, 3) with a 2 x 3 matrix and a bias."""
    node = helper.make_node("Gemm", ["pixels", "matrix", "bias"], ["logits"], name="head", **attributes)
    matrix = np.arange(6, dtype=np.float32).reshape((2, 3) if attributes.get("transB") else (3, 2))
    return helper.make_model(
        helper.make_graph(
            [node],
            "graph",
            [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 3])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
            [
                numpy_helper.from_array(matrix, "matrix"),
                numpy_helper.from_array(np.array([0.5, -2], np.float32), "bias"),
            ],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=9,
    )


@pytest.mark.parametrize("attributes", [{}, {"transB": 1}, {"alpha": 0.5, "transB": 1}, {"beta": 2.0}])
def test_a_gemm_means_the_same_when_split(attributes: dict[str, float]) -> None:
    """Transposed weights and factors are what a careless rewrite forgets."""
    model = gemm(**attributes)
    pixels = np.array([[1, 2, 3], [-1, 0, 2]], np.float32)
    split = SplitGemm()(model)
    np.testing.assert_allclose(Runner(split)(pixels), Runner(model)(pixels))
    scaled = {"alpha", "beta"} & attributes.keys()
    assert operators(split) == ({"Gemm": 1} if scaled else {"MatMul": 1, "Add": 1})
    # Weights that were written anew are not kept twice.
    assert len(split.graph.initializer) == 2


def test_int8_takes_the_linears_and_leaves_attention_in_float(simplified: onnx.ModelProto) -> None:
    """Products of two activations lose most in 8 bits, and gain least."""
    split = SplitGemm()(simplified)
    quantized = QuantizeDynamic()(split)
    found = operators(quantized)
    assert found["MatMulInteger"] == 4 * CONFIG.depth + 1
    assert found["MatMul"] == 2 * CONFIG.depth
    assert found["Softmax"] == CONFIG.depth
    assert found["Conv"] == 1
    comparison = compare(answers(split), answers(quantized))
    assert 0 < comparison.drift < 0.1
    assert not quantized.graph.value_info
    assert weights_size(quantized) < 0.55 * weights_size(split)


def test_every_output_channel_has_its_own_scale(simplified: onnx.ModelProto) -> None:
    """One scale for a whole matrix costs answers for nothing: the sums are per channel anyway."""
    split = SplitGemm()(simplified)
    columns = sorted(weight(split, linear.weight).shape[1] for linear in linears(split))
    quantized = QuantizeDynamic()(split)
    scales = [tensor for tensor in quantized.graph.initializer if tensor.name.endswith("_scale")]
    assert sorted(numpy_helper.to_array(tensor).size for tensor in scales) == columns
    weights = [tensor for tensor in quantized.graph.initializer if tensor.name.endswith("_quantized")]
    assert {tensor.data_type for tensor in weights} == {TensorProto.INT8}


def test_named_layers_stay_in_float(simplified: onnx.ModelProto) -> None:
    """One layer with a massive channel may cost more than all others together."""
    split = SplitGemm()(simplified)
    kept = next(iter(linears(split)))
    quantized = QuantizeDynamic((kept.node,))(split)
    assert operators(quantized)["MatMulInteger"] == 4 * CONFIG.depth
    assert kept.node in {node.name for node in quantized.graph.node if node.op_type == "MatMul"}
    np.testing.assert_array_equal(weight(quantized, kept.weight), weight(split, kept.weight))


def test_half_precision_halves_the_weights_and_keeps_float_at_the_ends(simplified: onnx.ModelProto) -> None:
    """A caller gives and gets float32 whatever is inside."""
    half = Float16()(simplified)
    ends = (*half.graph.input, *half.graph.output)
    assert {value.type.tensor_type.elem_type for value in ends} == {TensorProto.FLOAT}
    matrices = [tensor for tensor in half.graph.initializer if len(tensor.dims) == 2]
    assert matrices
    assert {tensor.data_type for tensor in matrices} == {TensorProto.FLOAT16}
    assert half.ByteSize() < 0.7 * simplified.ByteSize()
    assert 0 < compare(answers(simplified), answers(half)).drift < 0.01


def input_types(model: onnx.ModelProto, operator: str) -> set[int]:
    inferred = onnx.shape_inference.infer_shapes(model).graph
    types = {value.name: value.type.tensor_type.elem_type for value in inferred.value_info}
    return {types[node.input[0]] for node in inferred.node if node.op_type == operator}


def test_norms_and_softmax_stay_in_float32(simplified: onnx.ModelProto) -> None:
    """They sum squares and exponentials, which leaves float16's range where a processor does not widen it."""
    assert input_types(Float16()(simplified), "LayerNormalization") == {TensorProto.FLOAT}
    assert input_types(Float16()(simplified), "Softmax") == {TensorProto.FLOAT}
    # Without the exception they would not.
    assert input_types(Float16(keep_float=())(simplified), "LayerNormalization") == {TensorProto.FLOAT16}


def test_every_node_gets_a_name_of_its_own() -> None:
    """The quantizer tells nodes apart by name only, and would take two nameless ones for one."""
    model = gemm()
    model.graph.node.append(helper.make_node("Relu", ["logits"], ["relu"], name="head"))
    model.graph.node.append(helper.make_node("Relu", ["relu"], ["again"]))
    renamed = named(model)
    names = [node.name for node in renamed.graph.node]
    assert names[0] == "head"
    assert len(set(names)) == 3
    assert all(names)
    assert [node.name for node in model.graph.node] == ["head", "head", ""]

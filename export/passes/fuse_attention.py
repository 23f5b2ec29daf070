"""Self-attention as ONNX Runtime's fused operator."""

import math
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from ..rewrite import (
    Affine,
    Shapes,
    add_constant,
    affine,
    insert_before,
    observe_shapes,
    only_consumer,
    scalar,
    to_proto,
    walk,
)

CONTRIB = "com.microsoft"

# Operators that only move elements.
_MOVES = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Gather", "Split", "Identity")


@dataclass(frozen=True)
class FuseAttention:
    """Replace self-attention by ``com.microsoft.Attention``: the three projections and both products in one operator.

    A softmax over a product of two projections of the same tokens, multiplied by a third, is attention, however its
    heads are split and its projections stored (merged as in timm, apart as in transformers). The order of query, key
    and value in merged weights is taken to be that; the pipeline's comparison with torch is what proves it.
    """

    def __call__(self, model: onnx.ModelProto) -> onnx.ModelProto:
        shapes = observe_shapes(model)
        twin = ir.from_proto(model)
        for softmax in walk(twin.graph, "Softmax"):
            _fuse(softmax, shapes, twin.graph)
        if any(node.domain == CONTRIB for node in twin.graph):
            twin.opset_imports[CONTRIB] = 1
        return to_proto(twin)


def _fuse(softmax: ir.Node, shapes: Shapes, graph: ir.Graph) -> None:
    scores = softmax.inputs[0]
    scores, scale = _unscaled(scores)
    product = scores.producer() if scores is not None else None
    weighted = only_consumer(softmax.outputs[0])
    if product is None or product.op_type != "MatMul" or weighted is None or weighted.op_type != "MatMul":
        return
    if weighted.inputs[0] is not softmax.outputs[0]:
        return
    query, query_scale = _projection(product.inputs[0])
    key, key_scale = _projection(product.inputs[1])
    value, value_scale = _projection(weighted.inputs[1])
    if query is None or key is None or value is None or value_scale != 1.0:
        return
    if not query.input is key.input is value.input:
        return
    weight, bias = _merged(query, key, value)
    width = weight.shape[1] // 3
    output = _rejoined(weighted.outputs[0], shapes, width)
    output_shape = shapes.get(output.name or "", ()) if output is not None else ()
    scores_shape = shapes.get(softmax.outputs[0].name or "")
    tokens_shape = shapes.get(query.input.name or "")
    if output is None or scores_shape is None or tokens_shape is None or len(tokens_shape) != 3:
        return
    batch, tokens = tokens_shape[0][0], tokens_shape[1][0]
    heads, rest = divmod(math.prod(side[0] for side in scores_shape), batch * tokens * tokens)
    if rest or not heads or width % heads:
        return
    # The operator divides by the root of the head's width; what a network does otherwise goes into the queries.
    ratio = scale * query_scale * key_scale * math.sqrt(width / heads)
    if not math.isclose(ratio, 1.0, rel_tol=1e-5):
        weight[:, :width] *= ratio
        bias[:width] *= ratio
    name = softmax.name or "attention"
    fused = ir.node(
        "Attention",
        [
            query.input,
            add_constant(graph, f"{name}_weight", weight),
            add_constant(graph, f"{name}_bias", bias),
        ],
        {"num_heads": heads},
        domain=CONTRIB,
        name=f"{name}_attention",
    )
    producer = output.producer()
    assert producer is not None
    insert_before(producer, [fused])
    result = fused.outputs[0]
    if len(output_shape) == 2:
        flat = add_constant(graph, f"{name}_flat", np.array([-1, width], np.int64))
        reshape = ir.node("Reshape", [result, flat], name=f"{name}_flatten")
        insert_before(producer, [reshape])
        result = reshape.outputs[0]
    ir.convenience.replace_all_uses_with(output, result)


def _unscaled(value: ir.Value | None) -> tuple[ir.Value | None, float]:
    """Strip multiplications and divisions by constants off a value, and give their product."""
    scale = 1.0
    while value is not None and (node := value.producer()) is not None:
        factor = None
        if node.op_type == "Mul":
            for place in (0, 1):
                if (factor := scalar(node.inputs[place])) is not None:
                    value = node.inputs[1 - place]
                    break
        elif node.op_type == "Div" and (divisor := scalar(node.inputs[1])) is not None:
            factor, value = 1 / divisor, node.inputs[0]
        if factor is None:
            return value, scale
        scale *= factor
    return value, scale


def _projection(value: ir.Value | None) -> tuple[Affine | None, float]:
    """Follow a factor of attention up to the linear layer that it comes from, and give the scale on the way."""
    scale = 1.0
    while value is not None:
        value, factor = _unscaled(value)
        scale *= factor
        if (found := affine(value)) is not None:
            return found, scale
        node = value.producer() if value is not None else None
        if node is None or node.op_type not in _MOVES:
            break
        value = node.inputs[0]
    return None, scale


def _merged(query: Affine, key: Affine, value: Affine) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """Give weights (inputs, 3 · width) and bias (3 · width,) in the order query, key, value."""
    layers = (query,) if query.product is key.product is value.product else (query, key, value)
    weight = np.concatenate([layer.weight for layer in layers], axis=1)
    bias = np.concatenate(
        [np.zeros(layer.weight.shape[1], np.float32) if layer.bias is None else layer.bias for layer in layers]
    )
    return weight, bias


def _rejoined(value: ir.Value, shapes: Shapes, width: int) -> ir.Value | None:
    """Follow attention's result to where its heads stand side by side again.

    That is (batch, tokens, width), or the same with its first two axes in one.
    """
    while True:
        shape = shapes.get(value.name or "")
        if shape is not None and len(shape) in (2, 3) and shape[-1][0] == width:
            return value
        node = only_consumer(value)
        if node is None or node.op_type not in _MOVES:
            return None
        value = node.outputs[0]

"""Self-attention as ONNX Runtime's fused operator."""

import math
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from ..rewrite import (
    Affine,
    Observed,
    add_constant,
    affine,
    constant,
    consumers,
    insert_before,
    observe,
    only_consumer,
    scalar,
    to_proto,
    walk,
)

CONTRIB = "com.microsoft"

# Operators that only move elements.
_MOVES = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Gather", "Split", "Identity")


@dataclass(frozen=True, slots=True)
class Fused:
    """A fused attention as it stands in a graph.

    Attributes:
        tokens: (batch, tokens, channels), its input.
        weight: (channels, 3 · width), the projections to queries, keys and values.
        bias: (3 · width,).
        heads: How many there are.
    """

    tokens: ir.Value
    weight: NDArray[np.generic]
    bias: NDArray[np.generic]
    heads: int

    @classmethod
    def of(cls, node: ir.Node) -> "Fused":
        """Read a node that `FuseAttention` wrote."""
        tokens, weight, bias = node.inputs[0], constant(node.inputs[1]), constant(node.inputs[2])
        heads = node.attributes.get_int("num_heads")
        assert tokens is not None
        assert weight is not None
        assert bias is not None
        assert heads is not None
        return cls(tokens, weight, bias, heads)


@dataclass(frozen=True)
class FuseAttention:
    """Replace self-attention by ``com.microsoft.Attention``: the three projections and both products in one operator.

    A softmax over a product of two projections of the same tokens, multiplied by a third, is attention, however its
    heads are split and its projections stored (merged as in timm, apart as in transformers). The order of query, key
    and value in merged weights is taken to be that; the pipeline's comparison with torch is what proves it.
    """

    def __call__(self, model: onnx.ModelProto) -> onnx.ModelProto:
        observed = observe(model)
        twin = ir.from_proto(model)
        for softmax in walk(twin.graph, "Softmax"):
            _fuse(softmax, observed, twin.graph)
        if any(node.domain == CONTRIB for node in twin.graph):
            twin.opset_imports[CONTRIB] = 1
        return to_proto(twin)


def _fuse(softmax: ir.Node, observed: Observed, graph: ir.Graph) -> None:
    scores, scale = _unscaled(_unmasked(softmax.inputs[0], observed))
    product = scores.producer() if scores is not None else None
    shares = _untested(softmax.outputs[0], observed)
    weighted = only_consumer(shares)
    if product is None or product.op_type != "MatMul" or weighted is None or weighted.op_type != "MatMul":
        return
    if weighted.inputs[0] is not shares:
        return
    query, query_scale = _projection(product.inputs[0])
    key, key_scale = _projection(product.inputs[1])
    value, value_scale = _projection(weighted.inputs[1])
    if query is None or key is None or value is None or value_scale != 1.0:
        return
    if not query.input is key.input is value.input:
        return
    tokens, swapped = _batch_first(query.input, observed)
    tokens_shape, scores_shape = observed.shape(tokens), observed.shape(softmax.outputs[0])
    weight, bias = _merged(query, key, value)
    width = weight.shape[1] // 3
    output = _rejoined(weighted.outputs[0], observed, width)
    if tokens is None or output is None or tokens_shape is None or scores_shape is None:
        return
    batch, length = tokens_shape[0][0], tokens_shape[1][0]
    heads, rest = divmod(math.prod(side[0] for side in scores_shape), batch * length * length)
    if rest or not heads or width % heads:
        return
    # The operator divides by the root of the head's width; what a network does otherwise goes into the queries.
    ratio = scale * query_scale * key_scale * math.sqrt(width / heads)
    if not math.isclose(ratio, 1.0, rel_tol=1e-5):
        weight[:, :width] *= ratio
        bias[:width] *= ratio
    name = softmax.name or "attention"
    constants = [add_constant(graph, f"{name}_weight", weight), add_constant(graph, f"{name}_bias", bias)]
    nodes = [
        ir.node(
            "Attention", [tokens, *constants], {"num_heads": heads}, domain=CONTRIB, name=f"{name}_attention"
        )
    ]
    if swapped:
        nodes.append(
            ir.node("Transpose", [nodes[-1].outputs[0]], {"perm": [1, 0, 2]}, name=f"{name}_tokens_first")
        )
    if len(observed.shape(output) or ()) == 2:
        flat = add_constant(graph, f"{name}_flat", np.array([-1, width], np.int64))
        nodes.append(ir.node("Reshape", [nodes[-1].outputs[0], flat], name=f"{name}_flatten"))
    end = output.producer()
    assert end is not None
    insert_before(end, nodes)
    ir.convenience.replace_all_uses_with(output, nodes[-1].outputs[0])


def _unmasked(value: ir.Value | None, observed: Observed) -> ir.Value | None:
    """Strip an added mask that masks nothing: exporters write one for a network that takes a mask."""
    node = value.producer() if value is not None else None
    if node is not None and node.op_type == "Add":
        for place in (0, 1):
            mask = node.inputs[1 - place]
            if mask is not None and mask.name in observed.zeros:
                return node.inputs[place]
    return value


def _untested(value: ir.Value, observed: Observed) -> ir.Value:
    """Look behind a test of a softmax for NaN, which only a row that is masked whole can give."""
    users = consumers(value)
    tests = [user for user in users if user.op_type == "IsNaN" and user.outputs[0].name in observed.zeros]
    choices = [user for user in users if user.op_type == "Where" and user.inputs[2] is value]
    if len(users) == 2 and tests and choices and choices[0].inputs[0] is tests[0].outputs[0]:
        return choices[0].outputs[0]
    return value


def _batch_first(value: ir.Value, observed: Observed) -> tuple[ir.Value | None, bool]:
    """Give tokens as (batch, tokens, channels), and whether they stood tokens first (as torch's own module wants)."""
    if observed.is_tokens(value):
        return value, False
    node = value.producer()
    if node is not None and node.op_type == "Transpose" and observed.is_tokens(node.inputs[0]):
        return node.inputs[0], list(node.attributes.get_ints("perm", ())) == [1, 0, 2]
    return None, False


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


def _merged(query: Affine, key: Affine, value: Affine) -> tuple[np.ndarray, np.ndarray]:
    """Give weights (inputs, 3 · width) and bias (3 · width,) in the order query, key, value."""
    layers = (query,) if query.output is key.output is value.output else (query, key, value)
    weight = np.concatenate([layer.weight for layer in layers], axis=1)
    bias = np.concatenate(
        [
            np.zeros(layer.weight.shape[1], np.float32) if layer.bias is None else layer.bias
            for layer in layers
        ]
    )
    return weight, bias


def _rejoined(value: ir.Value, observed: Observed, width: int) -> ir.Value | None:
    """Follow attention's result to where its heads stand side by side again, on three axes or on two."""
    while True:
        shape = observed.shape(value)
        if shape is not None and len(shape) in (2, 3) and shape[-1][0] == width:
            return value
        node = only_consumer(value)
        if node is None or node.op_type not in _MOVES:
            return None
        value = node.outputs[0]

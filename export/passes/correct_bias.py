"""Biases that take in the mean error of rounded weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from ..moments import Moments
from ..rewrite import add_constant, constant, only_consumer, to_proto
from .fuse_attention import CONTRIB
from .learn_rounding import column_scales, measured


@dataclass(frozen=True)
class CorrectBias:
    """Add to the bias of each linear layer what rounding its weights takes from the mean of its output.

    That is E[x] (W - Q(W)) (Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias
    Correction", section 4.2), with E[x] measured and Q the quantizer's rounding. Weights that are on the grid already
    are their own Q(W), so that this follows `LearnRounding` as well as it does without.

    Attributes:
        moments: For the name of each product's input its moments.
        exact: The graph with the weights W, its nodes of the same names.
        keep_float: Names of the linear nodes that stay in float.
        bits: Of the weights: 8, or 7 where ONNX Runtime's quantizer reduces the range.
    """

    moments: Mapping[str, Moments] = field(repr=False, compare=False)
    exact: onnx.ModelProto = field(repr=False, compare=False)
    keep_float: tuple[str, ...] = ()
    bits: int = 8

    def __call__(self, model: onnx.ModelProto) -> onnx.ModelProto:
        twin = ir.from_proto(model)
        originals = {
            node.name: weight
            for node, _, weight in measured(ir.from_proto(self.exact).graph, self.moments, self.keep_float)
        }
        for node, moments, weight in measured(twin.graph, self.moments, self.keep_float):
            original = originals.get(node.name)
            place = _bias(node)
            if original is None or original.shape != weight.shape or place is None:
                continue
            scales = column_scales(weight, bits=self.bits)
            error = original.astype(np.float64) - np.rint(weight / scales) * scales
            _add(twin.graph, *place, moments.mean @ error)
        return to_proto(twin)


def _bias(product: ir.Node) -> tuple[ir.Node, int, int] | None:
    """Find where a product's bias stands: the node, the place among its inputs, and the first of its elements."""
    if product.op_type == "Attention":
        return (product, 2, 0) if _is_vector(product.inputs[2]) else None
    value = product.outputs[0]
    node = only_consumer(value)
    # A product that was split comes together again before its bias.
    while node is not None and node.op_type == "Add":
        place = 1 if node.inputs[0] is value else 0
        if _is_vector(node.inputs[place]):
            return node, place, 0
        value = node.outputs[0]
        node = only_consumer(value)
    if node is None or (node.domain, node.op_type) != (CONTRIB, "MultiHeadAttention"):
        return None
    if value not in node.inputs[:3] or len(node.inputs) < 4 or not _is_vector(node.inputs[3]):
        return None
    # One bias for queries, keys and values, the first two of the same width.
    width, total = len(_array(product.inputs[1])[0]), len(_array(node.inputs[3]))
    index = list(node.inputs[:3]).index(value)
    return node, 3, (0, width, total - width)[index]


def _add(graph: ir.Graph, node: ir.Node, place: int, start: int, change: NDArray[np.float64]) -> None:
    bias = _array(node.inputs[place]).astype(np.float64)
    # A vector of one element goes for all.
    bias = bias.repeat(len(change)) if len(bias) == 1 else bias
    bias[start : start + len(change)] += change
    # Simplifiers let equal constants share one name, so that a changed one needs a name of its own.
    corrected = add_constant(graph, f"{node.name}_{place}_corrected", bias.astype(np.float32))
    node.replace_input_with(place, corrected)


def _is_vector(value: ir.Value | None) -> bool:
    array = constant(value)
    return array is not None and array.ndim == 1


def _array(value: ir.Value | None) -> NDArray[np.generic]:
    array = constant(value)
    assert array is not None
    return array

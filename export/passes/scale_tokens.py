"""Dynamic INT8 with an activation scale for every token, where one scale for all would drown the small ones."""

from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from ...quantizers import quantized_weights
from ..rewrite import Builder, constant, observe, to_proto, walk
from .fuse_attention import CONTRIB

# Of 256 levels so many lie below zero for an input such as GELU's, which hardly goes there: measured, a fourth or a
# half as many drown tokens whose largest value is small, twice as many cost the others levels.
_ONE_SIDED_ZERO = 32
_TWO_SIDED_ZERO = 128

# An input counts as one-sided where its least value is at most this share of its largest.
_ONE_SIDED = 0.25


@dataclass(frozen=True)
class ScaleTokens:
    """Quantize products with an activation scale per token, computed on the device.

    After GELU the tokens' magnitudes differ widely, the class token's often the least, and one scale for all leaves
    that token, which alone reaches the head, a few levels. Per-token scales (as in ZeroQuant, Yao et al. 2022) cost a
    maximum over each token and one multiplication of the product, so that they pay where the output is narrow.

    Attributes:
        ranges: For each product's name the least and the largest value of its input on the calibration images.
        bits: Of the weights: 8, or 7 for processors whose sums of unsigned by signed products saturate 16 bits.
    """

    ranges: tuple[tuple[str, float, float], ...]
    bits: int = 8

    def __call__(self, model: onnx.ModelProto) -> onnx.ModelProto:
        observed = observe(model)
        twin = ir.from_proto(model)
        chosen = {name: (low, high) for name, low, high in self.ranges}
        for node in walk(twin.graph, "MatMul"):
            shape = observed.shape(node.inputs[0])
            # A product of one token has a scale of its own already.
            if node.name in chosen and observed.is_tokens(node.inputs[0]) and shape and shape[1][0] > 1:
                self._quantize(node, twin.graph, shape[1][0], *chosen[node.name])
                twin.opset_imports[CONTRIB] = 1
        return to_proto(twin)

    def _quantize(self, node: ir.Node, graph: ir.Graph, tokens: int, low: float, high: float) -> None:
        source, weight = node.inputs[0], constant(node.inputs[1])
        assert source is not None
        assert weight is not None
        integers, scales = quantized_weights(weight.astype(np.float32), bits=self.bits)
        near_zero = one_sided(low, high)
        zero = _ONE_SIDED_ZERO if near_zero else _TWO_SIDED_ZERO
        # A scale may not be so small that what lies below zero falls out of the range.
        least = max(-low / zero, 1e-9) if near_zero else 1e-9
        build = Builder(graph, str(node.name))
        sizes = source if near_zero else build("Abs", "sizes", source)
        axes = build.integers("channels_axis", 0, 2)
        largest = build("ReduceMax", "largest", sizes, axes, keepdims=0)
        raw = build(
            "Mul", "raw_scale", largest, build.constant("step", np.array(1 / (255 - zero), np.float32))
        )
        scale = build("Max", "scale", raw, build.constant("least", np.array(least, np.float32)))
        zeros = build.constant("zeros", np.full(tokens, zero, np.uint8))
        product = build(
            "MatMulIntegerToFloat",
            "int8_product",
            build("QuantizeLinear", "quantized", source, scale, zeros, axis=1),
            build.constant("int8", integers),
            build.constant("one", np.array(1, np.float32)),
            build.constant("scales", scales),
            build.constant("zero", np.array(zero, np.uint8)),
            domain=CONTRIB,
        )
        column = build("Reshape", "scale_column", scale, build.integers("column", tokens, 1))
        final = build("Mul", "scaled", product, column)
        # The product keeps its name, by which graphs of one network are put together layer by layer.
        old, taken = node.outputs[0], node.outputs[0].name
        ir.convenience.replace_all_uses_with(old, final, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        final.name = taken


def one_sided(low: float, high: float) -> bool:
    """Tell by its least and largest value whether a tensor is that of an activation function such as GELU.

    Tokens pass one to very different degrees.
    """
    return -low <= _ONE_SIDED * high

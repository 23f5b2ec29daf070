"""Dynamic INT8 with an activation scale for every token, where one scale for all would drown the small ones."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from ..rewrite import add_constant, constant, insert_before, observe, to_proto, walk
from ..weights import quantized_weights
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
        source, weight, name = node.inputs[0], constant(node.inputs[1]), node.name
        assert source is not None
        assert weight is not None
        integers, scales = quantized_weights(weight.astype(np.float32), bits=self.bits)
        one_sided = -low <= _ONE_SIDED * high
        zero = _ONE_SIDED_ZERO if one_sided else _TWO_SIDED_ZERO
        # A scale may not be so small that what lies below zero falls out of the range.
        least = max(-low / zero, 1e-9) if one_sided else 1e-9

        def add(
            op_type: str, inputs: list[ir.Value], part: str, domain: str = "", **attributes: int
        ) -> ir.Value:
            made = ir.node(op_type, inputs, attributes, domain=domain, name=f"{name}_{part}")
            insert_before(node, [made])
            return made.outputs[0]

        def keep(part: str, values: Any) -> ir.Value:
            return add_constant(graph, f"{name}_{part}", np.asarray(values))

        sizes = source if one_sided else add("Abs", [source], "sizes")
        largest = add(
            "ReduceMax", [sizes, keep("channels_axis", np.array([0, 2], np.int64))], "largest", keepdims=0
        )
        raw = add("Mul", [largest, keep("step", np.float32(1 / (255 - zero)))], "raw_scale")
        scale = add("Max", [raw, keep("least", np.float32(least))], "scale")
        zeros = keep("zeros", np.full(tokens, zero, np.uint8))
        quantized = add("QuantizeLinear", [source, scale, zeros], "quantized", axis=1)
        product = add(
            "MatMulIntegerToFloat",
            [
                quantized,
                keep("int8", integers),
                keep("one", np.float32(1)),
                keep("scales", scales),
                keep("zero", np.uint8(zero)),
            ],
            "int8_product",
            CONTRIB,
        )
        column = add("Reshape", [scale, keep("column", np.array([tokens, 1], np.int64))], "scale_column")
        final = ir.node("Mul", [product, column], name=f"{name}_scaled")
        insert_before(node, [final])
        old = node.outputs[0]
        ir.convenience.replace_all_uses_with(old, final.outputs[0], replace_graph_outputs=True)
        # The product keeps its name, by which graphs of one network are put together layer by layer.
        taken = old.name
        graph.remove(node, safe=True)
        final.outputs[0].name = taken

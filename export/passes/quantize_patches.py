"""The patch embedding of raw pixels as an INT8 product, in which the pixels are their own quantized values."""

from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from ...errors import ExportError
from ...quantizers import column_scales, largest_integer
from ..rewrite import (
    Affine,
    add_constant,
    affine,
    constant,
    consumers,
    insert_before,
    only_consumer,
    to_proto,
    walk,
)
from .fuse_attention import CONTRIB

# The middle of a byte's range.
_GREY = 127.5

# Where an error goes, (rows down, columns right), and which part of it.
_SHARES = ((0, 1, 7 / 16), (1, -1, 3 / 16), (1, 0, 5 / 16), (1, 1, 1 / 16))

_MOVES = ("Reshape", "Transpose", "Slice")


@dataclass(frozen=True)
class QuantizePatches:
    """Multiply raw patches by 8-bit weights, without a cast to float: scale 1 and zero point 0 are exact for bytes.

    Weights are signed and symmetric with a scale per output channel. Neighbouring pixels of photographs are nearly
    alike, so that rounding errors which cancel between neighbours hardly show: each is handed on to the weights
    beside and below it (Floyd and Steinberg 1976, "An adaptive algorithm for spatial grey scale"), and what is left
    on a grey image goes into the bias. Runs after `RawPixels`.

    Attributes:
        bits: Of the weights: 8, or 7 for x86 processors without VNNI, which sum pairs of unsigned-by-signed products
            in 16 bits.
    """

    bits: int = 8

    def __call__(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """Give the graph with the INT8 product.

        Raises:
            ExportError: The graph has no product of raw pixels.
        """
        twin = ir.from_proto(model)
        found = [layer for cast in walk(twin.graph, "Cast") if (layer := _raw_layer(cast)) is not None]
        if not found:
            raise ExportError("the graph has no product of raw pixels to quantize; run RawPixels on it first")
        for layer in found:
            self._replace(twin.graph, layer)
        twin.opset_imports[CONTRIB] = 1
        return to_proto(twin)

    def _replace(self, graph: ir.Graph, layer: "_RawLayer") -> None:
        name = layer.affine.product.name or "patches"
        weight, scale, bias = _quantize(layer, self.bits)
        constants = [
            add_constant(graph, f"{name}_{ending}", values)
            for ending, values in (
                ("int8", weight),
                ("pixel_scale", np.array(1, np.float32)),
                ("scale", scale),
                ("grey_bias", bias),
            )
        ]
        quantized, one, scales, biases = constants
        product = ir.node(
            "MatMulIntegerToFloat",
            # The two left out are the zero points.
            [layer.pixels, quantized, one, scales, None, None, biases],
            domain=CONTRIB,
            name=f"{name}_quantized",
        )
        insert_before(layer.affine.product, [product])
        ir.convenience.replace_all_uses_with(layer.affine.output, product.outputs[0])


@dataclass(frozen=True, slots=True)
class _RawLayer:
    """A linear layer of raw patches.

    Attributes:
        affine: The layer, which multiplies the pixels after their cast to float.
        pixels: (batch, tokens, high · wide · 3) uint8, before the cast.
        patch: Height and width of a patch.
    """

    affine: Affine
    pixels: ir.Value
    patch: tuple[int, int]


def _raw_layer(cast: ir.Node) -> _RawLayer | None:
    """Read a cast and what follows as a linear layer of raw patches, as `RawPixels` writes it."""
    pixels, values = cast.inputs[0], cast.outputs[0]
    product = only_consumer(values)
    if pixels is None or cast.attributes.get_int("to") != ir.DataType.FLOAT:
        return None
    if product is None or product.op_type != "MatMul":
        return None
    end = product.outputs[0]
    users = consumers(end)
    if len(users) == 1 and users[0].op_type == "Add" and affine(users[0].outputs[0]) is not None:
        end = users[0].outputs[0]
    layer, patch = affine(end), _patch(pixels)
    if layer is None or patch is None or layer.input is not values:
        return None
    return _RawLayer(layer, pixels, patch)


def _patch(value: ir.Value) -> tuple[int, int] | None:
    """Give height and width of the patches that a graph's uint8 input was cut into; None for anything else."""
    patch = None
    while (node := value.producer()) is not None and node.op_type in _MOVES:
        sides = constant(node.inputs[1]) if node.op_type == "Reshape" else None
        if sides is not None and sides.size == 5:  # (batch, rows, high, columns, wide · 3)
            patch = int(sides[2]), int(sides[4]) // 3
        source = node.inputs[0]
        assert source is not None
        value = source
    return patch if value.is_graph_input() and value.dtype == ir.DataType.UINT8 else None


def _quantize(
    layer: _RawLayer, bits: int
) -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.float32]]:
    """Give weights (inputs, outputs) int8, their scales (outputs,), and the bias (outputs,) that is right for grey."""
    weight = layer.affine.weight.astype(np.float64)
    scale = column_scales(layer.affine.weight, bits=bits)
    shares = (weight / scale).reshape(*layer.patch, -1)
    rounded = _diffused(shares, largest_integer(bits)).reshape(weight.shape)
    bias = _GREY * (weight - rounded * scale).sum(axis=0)
    if layer.affine.bias is not None:
        bias += layer.affine.bias
    return rounded.astype(np.int8), scale, bias.astype(np.float32)


def _diffused(weight: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """Round weights (high, wide, ...) to -most..most, handing each error on to the neighbours still to come."""
    left, rounded = weight.copy(), np.empty_like(weight)
    high, wide = weight.shape[:2]
    for y in range(high):
        for x in range(wide):
            rounded[y, x] = np.clip(np.rint(left[y, x]), -most, most)
            error = left[y, x] - rounded[y, x]
            for down, right, share in _SHARES:
                if y + down < high and 0 <= x + right < wide:
                    left[y + down, x + right] += share * error
    return rounded

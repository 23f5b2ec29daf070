"""Scale migration: what is hard to quantize moves from activations to weights, channel by channel."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from ..rewrite import add_constant, constant, consumers, to_proto, walk
from .fuse_attention import CONTRIB

_TINY = 1e-6


@dataclass(frozen=True)
class MigrateScales:
    """Divide the channels of a product's input by scales, and multiply the rows of its weights by them.

    The scale of channel j is max|x_j|^strength / max|w_j|^(1 - strength) (SmoothQuant, Xiao et al. 2023, equation 4),
    its mean over the channels set to 1. The division costs nothing: it is folded into the norm in front of the product,
    or into the values and their bias where the input is attention's result. The answers stay the same.

    Attributes:
        strength: How much moves, 0..1.
        maxima: For the name of each product's input the largest absolute value of each channel.
    """

    strength: float
    maxima: Mapping[str, NDArray[np.float32]] = field(repr=False, compare=False)

    def __call__(self, model: onnx.ModelProto) -> onnx.ModelProto:
        twin = ir.from_proto(model)
        for norm in walk(twin.graph, "LayerNormalization"):
            scales = self._scales(norm.outputs[0])
            if scales is not None and len(norm.inputs) == 3:
                for place in (1, 2):
                    _scale_constant(twin.graph, norm, place, np.reciprocal(scales))
                _scale_rows(twin.graph, norm.outputs[0], scales)
        for attention in walk(twin.graph, "Attention"):
            scales = self._scales(attention.outputs[0])
            if scales is not None and attention.domain == CONTRIB:
                # Queries and keys, two thirds of the columns, stay as they are.
                columns = np.concatenate([np.ones(2 * len(scales), np.float32), np.reciprocal(scales)])
                _scale_constant(twin.graph, attention, 1, columns)
                _scale_constant(twin.graph, attention, 2, columns)
                _scale_rows(twin.graph, attention.outputs[0], scales)
        return to_proto(twin)

    def _scales(self, value: ir.Value) -> NDArray[np.float32] | None:
        """Give the scales of a value's channels; None where not all that takes it can take them in."""
        products = consumers(value)
        maxima = self.maxima.get(value.name or "")
        if maxima is None or not products or value.is_graph_output():
            return None
        weights = [constant(node.inputs[1]) if _is_product(node, value) else None for node in products]
        if any(weight is None or weight.ndim != 2 for weight in weights):
            return None
        rows = np.max([np.abs(weight).max(axis=1) for weight in weights if weight is not None], axis=0)
        scales = np.maximum(maxima, _TINY) ** self.strength / np.maximum(rows, _TINY) ** (1 - self.strength)
        scaled: NDArray[np.float32] = (scales / np.exp(np.log(scales).mean())).astype(np.float32)
        return scaled


def _is_product(node: ir.Node, value: ir.Value) -> bool:
    return node.op_type in ("MatMul", "Attention") and node.inputs[0] is value


def _scale_constant(graph: ir.Graph, node: ir.Node, place: int, factor: NDArray[np.float32]) -> None:
    # Simplifiers let equal constants share one name, so that a changed one needs a name of its own.
    array = constant(node.inputs[place])
    assert array is not None
    scaled = array.astype(np.float32) * factor
    node.replace_input_with(place, add_constant(graph, f"{node.name}_{place}_scaled", scaled))


def _scale_rows(graph: ir.Graph, value: ir.Value, scales: NDArray[np.float32]) -> None:
    for node in consumers(value):
        _scale_constant(graph, node, 1, scales[:, None])

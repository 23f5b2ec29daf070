"""One batch size: providers that compile a graph want every side of it known."""

from dataclasses import dataclass

import onnx

from ..graph import copy


@dataclass(frozen=True)
class FixBatch:
    """Make a graph of any batch size take one only.

    It is the last step: what finds its way by the axis that varies with the batch comes before it.

    Attributes:
        size: How many images the graph takes.
    """

    size: int

    def __call__(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """Give the graph with the first side of its input and output fixed; ONNX Runtime infers the others."""
        fixed = copy(model)
        for value in (*fixed.graph.input, *fixed.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = self.size
        return fixed

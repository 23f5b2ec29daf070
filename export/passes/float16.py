"""Half precision: weights and products in float16, what overflows or cancels in float32."""

from dataclasses import dataclass

import onnx

from ..graph import copy

# A norm sums squares, which leaves float16's range (65,504) at activations of a few hundred; a softmax sums
# exponentials. Input and output stay float32 as well.
KEPT = ("LayerNormalization", "Softmax")


@dataclass(frozen=True)
class Float16:
    """Convert the graph to float16 with ONNX Runtime's converter.

    Attributes:
        keep_float: Operator types that stay in float32.
    """

    keep_float: tuple[str, ...] = KEPT

    def __call__(self, model: onnx.ModelProto) -> onnx.ModelProto:
        from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

        return convert_float_to_float16(  # type: ignore[no-any-return]
            copy(model), keep_io_types=True, op_block_list=[*DEFAULT_OP_BLOCK_LIST, *self.keep_float]
        )

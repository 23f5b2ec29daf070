"""Dynamic INT8: 8-bit weights per channel, activations quantized on the device, one scale per tensor."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx

from ..graph import copy, linears


@dataclass(frozen=True)
class QuantizeDynamic:
    """Quantize the linear layers, attention's projections among them, with ONNX Runtime's dynamic quantizer.

    Products of two activations, products of massive channels, the patch embedding and all else stay in float.

    Attributes:
        keep_float: Names of the linear nodes that stay in float.
        bits: Of the weights: 8, or 7 for x86 processors without VNNI, which sum pairs of unsigned-by-signed products
            in 16 bits.
    """

    keep_float: tuple[str, ...] = ()
    bits: int = 8

    def __call__(self, model: onnx.ModelProto) -> onnx.ModelProto:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        chosen = [linear.node for linear in linears(model) if linear.node not in self.keep_float]
        # The quantizer writes its result to a file, whatever it is given.
        with TemporaryDirectory(prefix="vit-edge-") as folder, _silence():
            output = Path(folder, "int8.onnx")
            quantize_dynamic(
                copy(model),
                output,
                op_types_to_quantize=["MatMul", "Attention"],
                nodes_to_quantize=chosen,
                per_channel=True,
                reduce_range=self.bits == 7,
                weight_type=QuantType.QInt8,
                extra_options={
                    "MatMulConstBOnly": True,
                    # The quantizer cannot infer the types of contrib operators' outputs, which all are float.
                    "DefaultTensorType": onnx.TensorProto.FLOAT,
                },
            )
            quantized = onnx.load(output)
        # Shapes that the quantizer inferred for itself; a small file would be a good part of them.
        del quantized.graph.value_info[:]
        return quantized


@contextmanager
def _silence() -> Iterator[None]:
    """Hush the quantizer's advice, given on the root logger, to simplify first: the pipeline does."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(previous)

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
    """Quantize the linear layers with ONNX Runtime's dynamic quantizer.

    Products of two activations (attention), the patch embedding and everything else stay in float.

    Attributes:
        keep_float: Names of the linear nodes that stay in float.
    """

    keep_float: tuple[str, ...] = ()

    def __call__(self, model: onnx.ModelProto) -> onnx.ModelProto:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        chosen = [linear.node for linear in linears(model) if linear.node not in self.keep_float]
        # The quantizer writes its result to a file, whatever it is given.
        with TemporaryDirectory(prefix="vit-edge-") as folder, _silence():
            output = Path(folder, "int8.onnx")
            quantize_dynamic(
                copy(model),
                output,
                op_types_to_quantize=["MatMul"],
                nodes_to_quantize=chosen,
                per_channel=True,
                weight_type=QuantType.QInt8,
                extra_options={"MatMulConstBOnly": True},
            )
            return onnx.load(output)


@contextmanager
def _silence() -> Iterator[None]:
    """Hush the quantizer's advice, given on the root logger, to simplify first: the pipeline does."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(previous)

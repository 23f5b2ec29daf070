"""The passes of the export: values that map a model to a new model.

A pass is a frozen dataclass; calling it leaves its argument as it was, and its ``repr`` is its line in the log and in
the file's recipe.
"""

from typing import Protocol

import onnx

from .dynamic import QuantizeDynamic
from .float16 import Float16
from .simplify import Simplify
from .split_gemm import SplitGemm

__all__ = ["Float16", "Pass", "QuantizeDynamic", "Simplify", "SplitGemm"]


class Pass(Protocol):
    """Maps a model to a new model."""

    def __call__(self, model: onnx.ModelProto) -> onnx.ModelProto: ...

"""The passes of the export: values that map a model to a new model.

A pass is a frozen dataclass; calling it leaves its argument as it was, and its ``repr`` is its line in the log and in
the file's recipe.
"""

from typing import Protocol

import onnx

from .class_token import ClassTokenOnly
from .dynamic import QuantizeDynamic
from .fix_batch import FixBatch
from .float16 import Float16
from .fuse_attention import FuseAttention
from .fuse_norms import FuseNorms
from .learn_rounding import LearnRounding
from .merge_tokens import MergeTokens
from .migrate_scales import MigrateScales
from .quantize_patches import QuantizePatches
from .raw_pixels import RawPixels
from .scale_tokens import ScaleTokens
from .simplify import Simplify
from .split_channels import SplitChannels
from .split_gemm import SplitGemm
from .static import QuantizeStatic
from .unflatten import Unflatten

__all__ = [
    "ClassTokenOnly",
    "FixBatch",
    "Float16",
    "FuseAttention",
    "FuseNorms",
    "LearnRounding",
    "MergeTokens",
    "MigrateScales",
    "Pass",
    "QuantizeDynamic",
    "QuantizePatches",
    "QuantizeStatic",
    "RawPixels",
    "ScaleTokens",
    "Simplify",
    "SplitChannels",
    "SplitGemm",
    "Unflatten",
]


class Pass(Protocol):
    """Maps a model to a new model."""

    def __call__(self, model: onnx.ModelProto) -> onnx.ModelProto: ...

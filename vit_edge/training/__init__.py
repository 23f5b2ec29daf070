"""Training: from a folder of images to a checkpoint."""

from .fit import Epoch, Step, evaluate, fit, new_model
from .images import Decoded, ImageSet, check_apart, check_classes, check_memory, decode, gather
from .recipe import Recipe
from .run import BEST, METRICS, open_run
from .split import split

__all__ = [
    "BEST",
    "METRICS",
    "Decoded",
    "Epoch",
    "ImageSet",
    "Recipe",
    "Step",
    "check_apart",
    "check_classes",
    "check_memory",
    "decode",
    "evaluate",
    "fit",
    "gather",
    "new_model",
    "open_run",
    "split",
]

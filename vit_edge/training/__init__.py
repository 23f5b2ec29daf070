"""Training: from a folder of images to a checkpoint."""

from .batches import worker_errors
from .evaluate import evaluate
from .fit import fit
from .images import (
    BrokenImagesError,
    Decoded,
    ImageSet,
    check_apart,
    check_classes,
    check_memory,
    decode,
    gather,
)
from .processes import Processes, has_bf16
from .recipe import Recipe
from .report import Report, left_out
from .run import BEST, LAST, METRICS, STATE, best_epoch, open_run, write_config
from .split import split
from .start import Start, new_model, open_start, start_from, start_new
from .teacher import Teacher, class_places
from .told import Epoch, Step

__all__ = [
    "BEST",
    "LAST",
    "METRICS",
    "STATE",
    "BrokenImagesError",
    "Decoded",
    "Epoch",
    "ImageSet",
    "Processes",
    "Recipe",
    "Report",
    "Start",
    "Step",
    "Teacher",
    "best_epoch",
    "check_apart",
    "check_classes",
    "check_memory",
    "class_places",
    "decode",
    "evaluate",
    "fit",
    "gather",
    "has_bf16",
    "left_out",
    "new_model",
    "open_run",
    "open_start",
    "split",
    "start_from",
    "start_new",
    "worker_errors",
    "write_config",
]

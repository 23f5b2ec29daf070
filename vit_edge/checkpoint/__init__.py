"""Checkpoints: weights with their sizes, labels and preprocessing, from vit-edge and from other libraries."""

from .load import Checkpoint, load_checkpoint
from .native import save_checkpoint

__all__ = ["Checkpoint", "load_checkpoint", "save_checkpoint"]

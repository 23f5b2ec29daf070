"""The features of a frozen network, computed once: what is trained on them is its head alone (a linear probe)."""

from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..models import ViT
from .batches import Batch, Examples, plan
from .evaluate import prepared, sums
from .images import MEMORY_LIMIT
from .memory import enough_memory
from .products import fast_products
from .recipe import Recipe

# Always the same, since the last bits of a feature may depend on how many are computed at once.
_BATCH = 64


class Heads(nn.Module):
    """A network that takes features in the place of images."""

    def __init__(self, model: ViT) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Tensor) -> Tensor:
        """Take (batch, heads, width) to what `ViT.forward` gives."""
        return self.model.answer(features)


@dataclass(frozen=True, eq=False)
class Held:
    """Features of a set of images.

    Attributes:
        features: (images, heads, width) float32, where they are computed with.
        targets: (images,) int64, the classes.
        shards: As of the images.
    """

    features: Tensor
    targets: Tensor
    shards: NDArray[np.int64] | None


def can_hold(model: ViT, images: Examples) -> bool:
    """Whether the features of images fit into memory."""
    return len(images) * model.config.first_tokens * model.config.width * 4 <= MEMORY_LIMIT


def stays(recipe: Recipe) -> bool:
    """Whether every epoch of a frozen network sees the same features."""
    changed = (recipe.augment != "none", recipe.crop_scale < 1, recipe.flip, recipe.erasing)
    return not any((*changed, recipe.mixup, recipe.cutmix, recipe.drop_path, recipe.distillation != "none"))


def hold(
    model: ViT,
    images: Examples,
    *,
    told: Callable[[int], None],
    within: AbstractContextManager[object] | None = None,
) -> Held:
    """Compute the features of images, prepared by the runtime's own code.

    Args:
        model: The network; it is left in evaluation mode.
        images: The images.
        told: Called with how many were looked at since the last call.
        within: Entered while they are computed, as `computing` in another precision; float32 unless given.

    Raises:
        TrainingError: Memory is short.
    """
    model.eval()
    device = model.cls_token.device
    heads = model.config.first_tokens
    short = enough_memory(
        f"computing the features of {len(images):,} images on {device}",
        advice="train at a smaller --image-size",
    )
    with short, torch.no_grad(), within or fast_products(device):
        features = torch.empty(len(images), heads, model.config.width, device=device)
        for start in range(0, len(images), _BATCH):
            places = list(range(start, min(start + _BATCH, len(images))))
            features[start : start + len(places)] = model.encode(prepared(images, places).to(device))[
                :, :heads
            ]
            told(len(places))
    return Held(features, torch.from_numpy(np.asarray(images.targets, np.int64)).to(device), images.shards)


def held_batches(
    held: Held, recipe: Recipe, *, epochs: Iterable[int], start: int = 0
) -> Generator[Batch, None, None]:
    """Give the batches of epochs, as `batches` does, with features in the place of images."""
    for share in plan(len(held.targets), recipe, epochs, shards=held.shards, start=start):
        index = torch.from_numpy(share.places).to(held.targets.device)
        yield Batch(
            held.features[index], held.targets[index], share.places, share.first, share.weight, share.whole
        )


def evaluate_held(model: ViT, held: Held) -> tuple[float, float]:
    """Give a network's mean loss and accuracy on images whose features are known, as `evaluate` does."""
    heads = Heads(model).eval()
    loss, right = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(held.targets), 4096):
            chosen = slice(start, start + 4096)
            part_loss, part_right = sums(heads(held.features[chosen]), held.targets[chosen])
            loss, right = loss + part_loss, right + part_right
    return loss / len(held.targets), right / len(held.targets)

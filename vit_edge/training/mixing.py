"""MixUp and CutMix: two images of a batch become one, and so do their answers."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .chance import MIXING, uniform
from .recipe import Recipe


@dataclass(frozen=True, slots=True)
class Mix:
    """How the pairs of a batch are mixed.

    Neighbours are partners, whose order is random already: so a batch that is shared out among processes pair by pair
    is mixed as it would be in one.

    Attributes:
        shares: (batch,) float32, what an image keeps of itself in the loss; the rest is its partner's.
        boxes: (batch, 4) int64, the partner's pixels: top, left, bottom, right; an empty box mixes whole images.
    """

    shares: Tensor
    boxes: NDArray[np.int64]


def draw(recipe: Recipe, *, step: int, first: int, count: int, size: tuple[int, int]) -> Mix | None:
    """Draw how part of a batch is mixed; None where the recipe mixes nothing.

    MixUp (Zhang et al. 2018, eq. 1) and CutMix (Yun et al. 2019, eq. 1 and 2), by a coin where both are on.

    Args:
        recipe: Its `mixup`, `cutmix` and `seed`.
        step: The step of the run.
        first: The place in the batch of the part's first image, even.
        count: How many images the part has; a last one without a partner stays as it is.
        size: Height and width of the images.
    """
    if not (recipe.mixup or recipe.cutmix):
        return None
    pairs = np.arange(first // 2, first // 2 + (count + 1) // 2)

    def drawn(which: int) -> NDArray[np.float64]:
        return uniform(recipe.seed, MIXING, step, which, places=pairs)

    both = recipe.mixup and recipe.cutmix
    cut = drawn(0) < 0.5 if both else np.full(len(pairs), not recipe.mixup)
    alpha = np.where(cut, recipe.cutmix, recipe.mixup)
    kept = _beta(alpha, recipe.seed, step, pairs)
    height, width = size
    side = np.sqrt(1 - kept)
    # The box is centred anywhere, and cut off at the image's edge.
    middle = np.stack([drawn(1) * height, drawn(2) * width], axis=1)
    half = np.stack([side * height, side * width], axis=1) / 2
    low = np.clip(np.rint(middle - half), 0, size).astype(np.int64)
    high = np.clip(np.rint(middle + half), 0, size).astype(np.int64)
    boxes = np.where(cut[:, None], np.concatenate([low, high], axis=1), 0)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    shares = np.where(cut, 1 - area / (height * width), kept)
    shares, boxes = np.repeat(shares, 2)[:count], np.repeat(boxes, 2, axis=0)[:count]
    if count % 2:
        shares[-1], boxes[-1] = 1.0, 0
    return Mix(torch.from_numpy(shares.astype(np.float32)), boxes)


def mixed(images: Tensor, mix: Mix) -> Tensor:
    """Mix images: (batch, channels, height, width) float to the same, new."""
    partner = partners(len(images))
    shares = mix.shares.to(images).reshape(-1, 1, 1, 1)
    result = images * shares + images[partner] * (1 - shares)
    for place, (top, left, bottom, right) in enumerate(mix.boxes.tolist()):
        if bottom > top and right > left:
            result[place] = images[place]
            result[place, :, top:bottom, left:right] = images[partner[place], :, top:bottom, left:right]
    return result


def partners(count: int) -> Tensor:
    """Give each image's partner: (count,) int64; a last one without a partner is its own.

    >>> partners(5).tolist()
    [1, 0, 3, 2, 4]
    """
    return torch.minimum(torch.arange(count) ^ 1, torch.tensor(count - 1))


def _beta(alpha: NDArray[np.float64], seed: int, step: int, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    """Draw from Beta(alpha, alpha), pair by pair."""
    seeds = (uniform(seed, MIXING, step, 3, places=pairs) * 2**53).astype(np.int64)
    return np.array([np.random.default_rng(int(one)).beta(a, a) for one, a in zip(seeds, alpha, strict=True)])

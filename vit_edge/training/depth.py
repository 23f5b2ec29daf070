"""Stochastic depth: which images of a batch skip which branches (Huang et al. 2016)."""

import numpy as np
import torch
from numpy.typing import NDArray

from ..models import ViT
from ..models.vit import StochasticDepth
from .chance import DEPTH, uniform
from .recipe import Recipe

Branch = tuple[StochasticDepth, float]
"""A branch that may be left out, and the share of images that leave it out."""


def branches(model: ViT, recipe: Recipe) -> list[Branch]:
    """Give the branches that may be left out: none of the first block, the recipe's share of the last (eq. 4)."""
    if not recipe.drop_path:
        return []
    last = max(1, len(model.blocks) - 1)
    return [
        (module, recipe.drop_path * index / last)
        for index, block in enumerate(model.blocks)
        if index
        for module in block.modules()
        if isinstance(module, StochasticDepth)
    ]


def drop(
    found: list[Branch], recipe: Recipe, *, step: int, places: NDArray[np.int64], device: torch.device
) -> None:
    """Draw which images leave which branches out, in place.

    Args:
        found: As `branches` gives them.
        recipe: Its `seed`.
        step: The step of the run.
        places: (images,) the images' places in the whole batch.
        device: Where the network is.
    """
    for index, (branch, rate) in enumerate(found):
        kept = uniform(recipe.seed, DEPTH, step, index, places=places) >= rate
        factors = torch.from_numpy((kept / (1 - rate)).astype(np.float32))
        branch.factors = factors.reshape(-1, 1, 1).to(device)

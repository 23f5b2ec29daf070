"""Which parameters are trained, with which decay and at which share of the learning rate."""

import re
from typing import Any

import torch
from torch import nn

from ..models import ViT
from .recipe import Recipe

SHARE = "share"
"""The key of a parameter group that holds its share of the learning rate."""


def optimizer_for(model: ViT, recipe: Recipe) -> torch.optim.AdamW:
    """Give AdamW (Loshchilov and Hutter 2019) over the parameters that are trained; frozen ones want no gradient."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not recipe.freeze or is_head(name))
    # Fused: one kernel for all parameters, on processors too.
    return torch.optim.AdamW(parameter_groups(model, recipe), lr=recipe.learning_rate, fused=True)


def parameter_groups(model: ViT, recipe: Recipe) -> list[dict[str, Any]]:
    """Sort a network's trained parameters by what they need, for an optimizer.

    Biases, norms, positions and tokens do not decay: they set places and offsets, which decay would pull to 0 for no
    gain (timm and big_vision leave them alone too). With `layer_decay`, each block learns at a share of the rate of the
    one behind it (Clark et al. 2020, section 3.2), and what is in front of the first at one share less.

    Returns:
        Groups with ``params``, ``weight_decay`` and `SHARE`.
    """
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim >= 2 and not name.endswith(("_token", "pos_embed"))
            groups.setdefault((_layer(name, model.config.depth), decays), []).append(parameter)
    last = model.config.depth + 1
    return [
        {
            "params": parameters,
            "weight_decay": recipe.weight_decay if decays else 0.0,
            SHARE: recipe.layer_decay ** (last - layer),
        }
        for (layer, decays), parameters in sorted(groups.items())
    ]


def is_head(name: str) -> bool:
    """Tell whether a parameter is the head's."""
    return name.startswith(("head.", "head_dist."))


def _layer(name: str, depth: int) -> int:
    """Give the layer of a parameter: 0 in front of the blocks, then a block each, and all behind them at last."""
    if match := re.match(r"blocks\.(\d+)\.", name):
        return int(match[1]) + 1
    return depth + 1 if is_head(name) or name.startswith("norm.") else 0

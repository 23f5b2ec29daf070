"""Learned positions at another image size."""

import torch
from torch import Tensor
from torch.nn import functional


def resample_positions(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Resample learned positions to another grid of patches; those of the tokens before the patches stay as they are.

    Bicubic and antialiased (Dosovitskiy et al. 2021, section 3.2, interpolate; the filter is timm's).

    Args:
        positions: (1, first + rows·columns, width); those of the class token, and of that of distillation, first.
        old: (rows, columns) that *positions* belong to.
        new: (rows, columns) wanted.

    Returns:
        (1, first + rows·columns of *new*, width), float32; *positions* itself where the grids are the same.
    """
    if old == new:
        return positions
    count = positions.shape[1] - old[0] * old[1]
    first, patches = positions[:, :count].float(), positions[:, count:].float()
    image = patches.reshape(1, *old, -1).permute(0, 3, 1, 2)  # (1, width, rows, columns)
    image = functional.interpolate(image, size=new, mode="bicubic", antialias=True)
    patches = image.permute(0, 2, 3, 1).reshape(1, new[0] * new[1], -1)  # (1, rows·columns, width)
    return torch.cat([first, patches], dim=1)

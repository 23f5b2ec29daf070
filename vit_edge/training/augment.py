"""Small changes to training images that leave their meaning alone."""

import torch
from torch import Tensor
from torch.nn import functional


def augment(images: Tensor, *, shift: float, zoom: float, flip: bool, generator: torch.Generator) -> Tensor:
    """Move, scale and by choice mirror each image by a random amount; its edge fills what comes into view.

    Args:
        images: (batch, channels, height, width) float.
        shift: The largest move, as a share of the sides.
        zoom: The largest change of size, as a share.
        flip: Mirror half of the images, left to right.
        generator: Where chance comes from; on the processor, so that every device sees the same images.

    Returns:
        The same shape and type, new.
    """
    batch = len(images)
    scale = 1 + zoom * _between(batch, 1, generator=generator)  # (batch, 1)
    # The grid's unit is half a side (torch.nn.functional.affine_grid).
    offset = 2 * shift * _between(batch, 2, generator=generator)  # (batch, 2): right, down
    side = torch.ones(batch, 1)
    if flip:
        side -= 2.0 * torch.randint(2, (batch, 1), generator=generator)
    matrix = torch.zeros(batch, 2, 3)
    matrix[:, 0, 0] = (scale * side)[:, 0]
    matrix[:, 1, 1] = scale[:, 0]
    matrix[:, :, 2] = offset
    grid = functional.affine_grid(matrix.to(images), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _between(*shape: int, generator: torch.Generator) -> Tensor:
    """Give random numbers from -1 to 1."""
    return 2 * torch.rand(*shape, generator=generator) - 1

"""Changes to training images that leave their meaning alone."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ..runtime.preprocess import Preprocessing, crop_pixels
from .chance import IMAGES, OPERATIONS, bits, uniform
from .recipe import Recipe

# A crop's sides differ by at most this (Szegedy et al. 2015, section 6).
_RATIO = (3 / 4, 4 / 3)


class Augment:
    """Makes what the network trains on of one image, by chance that depends on seed, epoch and place alone."""

    def __init__(self, recipe: Recipe, preprocessing: Preprocessing, *, cropped: bool) -> None:
        """Prepare.

        Args:
            recipe: What is changed.
            preprocessing: What the network takes.
            cropped: Whether the images are of the network's size already.
        """
        self._recipe, self._preprocessing = recipe, preprocessing
        self._crops = not cropped and not recipe.crops
        self._operations: tuple[Callable[[Tensor], Tensor], ...] = ()
        if recipe.changes:
            self._operations = tuple(_operations(recipe, preprocessing))

    def __call__(self, image: NDArray[np.uint8], *, epoch: int, place: int) -> Tensor:
        """Crop and change an image.

        Args:
            image: (height, width, 3) uint8, RGB, of any size.
            epoch: From 1.
            place: Its place in the training set.

        Returns:
            (3, height, width) uint8, of the network's size.
        """
        if self._crops:
            image = crop_pixels(image, self._preprocessing)
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
        if not self._operations:
            return pixels.contiguous()
        (seed,) = bits(self._recipe.seed, OPERATIONS, epoch, places=np.array([place]))
        # torchvision draws from torch's own generator, which is put back for whoever else uses it.
        before = torch.get_rng_state()
        torch.default_generator.manual_seed(int(seed >> np.uint64(1)))
        try:
            for operation in self._operations:
                pixels = operation(pixels)
        finally:
            torch.set_rng_state(before)
        return pixels.contiguous()


def shifted(images: Tensor, *, recipe: Recipe, epoch: int, places: NDArray[np.int64]) -> Tensor:
    """Move, scale and by choice mirror each image by a random amount; its edge fills what comes into view.

    Args:
        images: (batch, channels, height, width) float.
        recipe: Its `shift`, `zoom`, `flip` and `seed`.
        epoch: From 1.
        places: (batch,) the images' places in the training set.

    Returns:
        The same shape and type, new.
    """

    def between(which: int) -> Tensor:
        return torch.from_numpy(2 * uniform(recipe.seed, IMAGES, epoch, which, places=places) - 1).to(images)

    batch = len(images)
    scale = 1 + recipe.zoom * between(0)
    side = torch.where(between(1) < 0, -1.0, 1.0).to(images) if recipe.flip else torch.ones_like(scale)
    matrix = torch.zeros(batch, 2, 3).to(images)
    matrix[:, 0, 0] = scale * side
    matrix[:, 1, 1] = scale
    # The grid's unit is half a side (torch.nn.functional.affine_grid).
    matrix[:, 0, 2] = 2 * recipe.shift * between(2)
    matrix[:, 1, 2] = 2 * recipe.shift * between(3)
    grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _operations(recipe: Recipe, preprocessing: Preprocessing) -> Sequence[Any]:
    """Give torchvision's transforms of (3, height, width) uint8, in order."""
    from torchvision.transforms import v2

    fill = [round(255 * mean) for mean in preprocessing.mean]
    steps: list[Any] = []
    if recipe.crop_scale < 1:
        steps.append(
            v2.RandomResizedCrop(
                list(preprocessing.crop), scale=(recipe.crop_scale, 1.0), ratio=_RATIO, antialias=True
            )
        )
    if recipe.flip:
        steps.append(v2.RandomHorizontalFlip())
    if recipe.augment == "trivial":
        steps.append(v2.TrivialAugmentWide(fill=fill))
    elif recipe.augment == "rand":
        steps.append(v2.RandAugment(magnitude=recipe.magnitude, fill=fill))
    if recipe.erasing:
        steps.append(v2.RandomErasing(recipe.erasing, value=fill))
    return steps

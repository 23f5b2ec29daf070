"""What the tests against other libraries share: real images, a short fine-tuning, comparing logits."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits, load_sample_image
from torch import Tensor, nn
from torch.nn import functional

from vit_edge.checkpoint import Checkpoint

SIDE = 32
"""The images' side in pixels."""

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
"""The classes of the digits."""


def digits(count: int = 16) -> tuple[Tensor, Tensor]:
    """Give real handwritten digits: (count, 3, SIDE, SIDE) float32, -1 to 1, and their (count,) classes."""
    images, classes = load_digits(return_X_y=True)
    pixels = torch.tensor(images[:count], dtype=torch.float32).reshape(-1, 1, 8, 8) / 8 - 1
    pixels = functional.interpolate(pixels, size=SIDE, mode="bilinear")
    return pixels.expand(-1, 3, -1, -1).contiguous(), torch.tensor(classes[:count])


def photo() -> NDArray[np.uint8]:
    """Give a real photograph: (427, 640, 3) uint8, RGB."""
    image: NDArray[np.uint8] = load_sample_image("china.jpg")
    return image


def fine_tune(model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Take a few steps on digits, in place, so that no weight keeps the value it started with."""
    # Biases that start at zero, and class tokens near it, would hide one that was lost.
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    pixels, classes = digits()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.train()
    for _ in range(3):
        optimizer.zero_grad()
        loss(pixels, classes).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    model.eval()


def assert_same_logits(ours: Checkpoint, theirs: Callable[[Tensor], Any]) -> None:
    """Assert that both give the same logits for real digits, to 1e-4."""
    pixels, _ = digits()
    with torch.inference_mode():
        torch.testing.assert_close(ours.model(pixels), theirs(pixels), atol=1e-4, rtol=0)

"""The answers of a torch module, that all else is measured against."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class Logits(nn.Module):
    """A classifier reduced to one thing: pixels in, logits out.

    Other libraries' modules answer with a tuple, or with an object that has `logits` (transformers).
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, pixels: Tensor) -> Tensor:
        """Map (batch, 3, height, width) to (batch, classes)."""
        answer: Any = self.module(pixels)
        if isinstance(answer, tuple):
            answer = answer[0]
        return answer if isinstance(answer, Tensor) else answer.logits


def torch_logits(module: nn.Module, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run a module in evaluation mode, in float32 on its own device.

    Args:
        module: A classifier.
        pixels: (batch, 3, height, width) float32, normalised.

    Returns:
        (batch, classes) float32.
    """
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    with evaluating(module), torch.inference_mode():
        logits = Logits(module)(torch.from_numpy(pixels).to(device))
    answers: NDArray[np.float32] = logits.float().cpu().numpy()
    return answers


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode for a while; each of its parts then gets the mode back that it had."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def digest(module: nn.Module) -> str:
    """Give the SHA-256 of a module's weights: names, types, shapes and bytes, in the order of the state dict."""
    sha256 = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        sha256.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha256.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return sha256.hexdigest()

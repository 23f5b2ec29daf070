"""The grids of simulated quantizers, laid over what a network's activations span (quantization-aware training)."""

from collections.abc import Mapping

import numpy as np
import torch

from ..models import ViT
from ..quantizers import simulate
from ..quantizers.ranges import Range
from .batches import Examples
from .evaluate import prepared
from .memory import enough_memory

# Images whose activations tell the ranges, as many as an export takes.
_IMAGES = 128


def measure(model: ViT, images: Examples) -> Mapping[str, Range]:
    """Measure what a network's activations span on some of the images, evenly chosen, as an export does.

    Raises:
        TrainingError: Memory is short.
    """
    places = np.linspace(0, len(images) - 1, min(_IMAGES, len(images))).astype(np.int64).tolist()

    def run() -> None:
        device = model.cls_token.device
        short = enough_memory(
            f"measuring activations on {device}",
            advice="train a smaller network, or at a smaller --image-size",
        )
        with short, torch.no_grad():
            for pixels in prepared(images, places):
                model(pixels[None].to(device))

    model.eval()
    return simulate.measure_ranges(model, run)

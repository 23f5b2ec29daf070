"""How good a network is on images that it does not learn from."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ..errors import TrainingError
from ..models import ViT
from ..runtime.cores import usable_cores
from ..runtime.preprocess import crop_pixels, normalise
from .batches import Examples
from .memory import is_out_of_memory
from .processes import Processes
from .products import fast_products


def evaluate(
    model: ViT, images: Examples, *, batch_size: int = 256, processes: Processes | None = None
) -> tuple[float, float]:
    """Give a network's mean loss and accuracy (a share) on images prepared by the runtime's own code.

    Args:
        model: The network; it is left in evaluation mode.
        images: The images.
        batch_size: How many are answered at once; fewer where memory is short.
        processes: Those that share the images out among them.

    Raises:
        TrainingError: Memory does not even hold one image.
    """
    model.eval()
    device = model.cls_token.device
    rank, world = (0, 1) if processes is None else (processes.rank, processes.world)
    sharded = processes is not None and processes.sharded
    loss, right = 0.0, 0
    mine = range(rank, len(images), world)
    # Where weights are shared out, every process takes part in every answer: a stand-in where it has no image left.
    rounds = -(-len(images) // world)
    start, size = 0, batch_size
    # Not inference mode: shared out weights are gathered into buffers that training writes to.
    with torch.no_grad(), fast_products(device):
        while start < rounds:
            places = mine[start : start + size]
            try:
                pixels = prepared(images, list(places) or [0]).to(device)
                logits = model(pixels)[: len(places)]
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if size == 1 or sharded:
                    raise TrainingError(
                        f"memory ran out on {device} with {size} validation images; train a smaller network, or at a "
                        "smaller --image-size"
                    ) from None
                size //= 2
                continue
            answers = torch.from_numpy(images.targets[list(places)]).to(device)
            part_loss, part_right = sums(logits, answers)
            loss, right = loss + part_loss, right + part_right
            start += size
    if processes is not None:
        loss, total = processes.sum(loss, float(right))
        right = round(total)
    return loss / len(images), right / len(images)


def sums(logits: Tensor, answers: Tensor) -> tuple[float, int]:
    """Give the sum of images' plain losses, and how many are answered right."""
    if not len(answers):
        return 0.0, 0
    loss = functional.cross_entropy(logits, answers, reduction="sum").item()
    return loss, int((logits.argmax(dim=1) == answers).sum())


def prepared(images: Examples, places: list[int]) -> Tensor:
    """Give images as a device would prepare them: (images, 3, height, width) float32, normalised."""
    preprocessing = images.preprocessing

    def one(place: int) -> NDArray[np.float32]:
        image, _ = images.example(place)
        return normalise(image if images.cropped else crop_pixels(image, preprocessing), preprocessing)

    if images.cropped:
        return torch.from_numpy(np.stack([one(place) for place in places]))
    # Decoding leaves Python alone, so that threads share it out.
    with ThreadPoolExecutor(usable_cores()) as pool:
        return torch.from_numpy(np.stack(list(pool.map(one, places))))

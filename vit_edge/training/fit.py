"""The training loop."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ..checkpoint import save_checkpoint
from ..errors import TrainingError
from ..models import ViT, ViTConfig
from ..runtime.labels import Labels
from ..runtime.preprocess import Preprocessing, normalise
from .augment import augment
from .images import ImageSet
from .recipe import Recipe, learning_rate
from .run import BEST, record


@dataclass(frozen=True, slots=True)
class Epoch:
    """One pass over the training images, and what the network can do after it.

    Attributes:
        epoch: Its number, from 1.
        epochs: How many there will be.
        loss: The mean training loss, with label smoothing and changed images.
        val_loss: The mean loss on the validation images, plain.
        val_accuracy: The share of validation images whose likeliest class is the right one.
        learning_rate: That of its last step.
        images_per_second: Training images, without the validation.
        seconds_left: For the remaining epochs, at the pace so far.
        best: Whether it is the best so far, and so was written to `BEST`.
    """

    epoch: int
    epochs: int
    loss: float
    val_loss: float
    val_accuracy: float
    learning_rate: float
    images_per_second: float
    seconds_left: float
    best: bool


def new_model(config: ViTConfig, *, seed: int) -> ViT:
    """Make a network with random weights: the same for the same seed, and no other chance is touched."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ViT(config)


def fit(
    model: ViT, training: ImageSet, validation: ImageSet, *, labels: Labels, recipe: Recipe, run: Path
) -> Iterator[Epoch]:
    """Train a network, in place, on the device where it is.

    AdamW (Loshchilov and Hutter 2019), a linear warm-up, then a cosine to 0, label smoothing and a clipped
    gradient. The same recipe, images, machine and number of threads give the same weights, bit for bit, on a
    processor.

    Args:
        model: The network; afterwards it holds the weights of the last epoch.
        training: Images to learn from.
        validation: Images that choose the best epoch.
        labels: The classes, to be kept in the checkpoint.
        recipe: The numbers.
        run: The folder for `BEST` and `METRICS`, as `open_run` gives it.

    Yields:
        Each epoch as it ends, its files written. The best has the highest validation accuracy; where two have
        the same, the lower validation loss.

    Raises:
        TrainingError: The loss or the gradient is no longer a number, or the metrics cannot be written.
        CheckpointError: The checkpoint cannot be written.
        ValueError: The two sets were made by different preprocessing.
    """
    if training.preprocessing != validation.preprocessing:
        raise ValueError(
            "expected one preprocessing for both sets, "
            f"got {training.preprocessing} and {validation.preprocessing}"
        )
    optimizer = torch.optim.AdamW(parameter_groups(model, recipe.weight_decay), lr=recipe.learning_rate)
    generator = torch.Generator().manual_seed(recipe.seed)
    best, started = (-1.0, -math.inf), time.monotonic()
    for number in range(1, recipe.epochs + 1):
        epoch_started = time.monotonic()
        loss, rate = _train(model, training, optimizer, recipe, number, generator)
        spent = time.monotonic() - epoch_started
        val_loss, val_accuracy = evaluate(model, validation)
        improved = (val_accuracy, -val_loss) > best
        if improved:
            best = (val_accuracy, -val_loss)
            save_checkpoint(run / BEST, model, labels=labels, preprocessing=training.preprocessing)
        epoch = Epoch(
            epoch=number,
            epochs=recipe.epochs,
            loss=loss,
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            learning_rate=rate,
            images_per_second=len(training) / spent,
            seconds_left=(time.monotonic() - started) / number * (recipe.epochs - number),
            best=improved,
        )
        record(run, epoch)
        yield epoch


def evaluate(model: ViT, images: ImageSet, *, batch_size: int = 256) -> tuple[float, float]:
    """Give a network's mean loss and accuracy (a share) on images normalised by the runtime's own code."""
    model.eval()
    device = model.cls_token.device
    loss, right = 0.0, 0
    with torch.inference_mode():
        for start in range(0, len(images), batch_size):
            part = slice(start, start + batch_size)
            pixels = np.stack([normalise(image, images.preprocessing) for image in images.pixels[part]])
            targets = torch.from_numpy(images.targets[part]).to(device)
            logits = model(torch.from_numpy(pixels).to(device))
            loss += functional.cross_entropy(logits, targets, reduction="sum").item()
            right += int((logits.argmax(dim=1) == targets).sum())
    return loss / len(images), right / len(images)


def parameter_groups(model: ViT, weight_decay: float) -> list[dict[str, object]]:
    """Sort a network's parameters into those that decay and those that do not, for an optimizer.

    Biases, norms, positions and the class token do not: they set places and offsets, which decay would pull
    to 0 for no gain (timm and big_vision leave them alone too).
    """
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        matrix = parameter.ndim >= 2 and name not in ("cls_token", "pos_embed")
        (decayed if matrix else kept).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]


def to_network(images: ImageSet, places: NDArray[np.int64]) -> Tensor:
    """Normalise some images of a set at once.

    Args:
        images: The set.
        places: (batch,) which of them.

    Returns:
        (batch, 3, height, width) float32, what `normalise` gives to one unit in the last place.
    """
    pixels = torch.from_numpy(images.pixels[places]).permute(0, 3, 1, 2).float().div_(255)
    mean, std = _channels(images.preprocessing)
    return pixels.sub_(mean).div_(std).contiguous()


def _train(
    model: ViT,
    images: ImageSet,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    epoch: int,
    generator: torch.Generator,
) -> tuple[float, float]:
    """Go through the images once, in place; give the mean loss and the last learning rate."""
    model.train()
    device = model.cls_token.device
    order = torch.randperm(len(images), generator=generator).numpy()
    starts = range(0, len(images), recipe.batch_size)
    steps = len(starts) * recipe.epochs
    total, rate = 0.0, 0.0
    for step, start in enumerate(starts, len(starts) * (epoch - 1)):
        places = order[start : start + recipe.batch_size]
        pixels = augment(
            to_network(images, places),
            shift=recipe.shift,
            zoom=recipe.zoom,
            flip=recipe.flip,
            generator=generator,
        )
        targets = torch.from_numpy(images.targets[places])
        rate = learning_rate(step, steps=steps, recipe=recipe)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = functional.cross_entropy(
            model(pixels.to(device)), targets.to(device), label_smoothing=recipe.label_smoothing
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        _require_numbers(loss.item(), norm.item(), f"step {step + 1} of {steps} (epoch {epoch})", rate)
        optimizer.step()
        total += loss.item() * len(places)
    return total / len(images), rate


def _channels(preprocessing: Preprocessing) -> tuple[Tensor, Tensor]:
    return torch.tensor(preprocessing.mean).view(3, 1, 1), torch.tensor(preprocessing.std).view(3, 1, 1)


def _require_numbers(loss: float, norm: float, where: str, rate: float) -> None:
    """Stop before the optimizer spreads a NaN to every weight."""
    if math.isfinite(loss) and math.isfinite(norm):
        return
    what = f"the loss became {loss}" if not math.isfinite(loss) else f"the gradient's norm became {norm}"
    raise TrainingError(
        f"{what} at {where}: at a learning rate of {rate:.2g} the weights outgrew the numbers; "
        "lower the rate with --lr"
    )

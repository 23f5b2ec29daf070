"""One step of training: from a batch to moved weights, or to a sentence that says why not."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import TrainingError
from ..models import ViT
from ..runtime.preprocess import Preprocessing
from .augment import shifted
from .batches import Batch
from .depth import branches, drop
from .losses import losses
from .memory import batch_that_fits, is_out_of_memory
from .mixing import draw, mixed
from .optimizer import SHARE
from .processes import Processes, computing
from .recipe import Recipe
from .teacher import Teacher, channels


class Learner:
    """Moves the weights of a network, batch by batch."""

    def __init__(
        self,
        model: ViT,
        called: nn.Module,
        optimizer: Any,
        *,
        recipe: Recipe,
        preprocessing: Preprocessing,
        teacher: Teacher | None,
        processes: Processes,
        on_features: bool,
    ) -> None:
        """Prepare.

        Args:
            model: The network, placed.
            called: It as it is called: prepared, compiled, or its heads alone.
            optimizer: Of its parameters.
            recipe: The numbers.
            preprocessing: What the network takes.
            teacher: The network to learn from, where the recipe distils.
            processes: This process among others.
            on_features: Whether batches hold features in the place of images.
        """
        self._model, self._called, self._optimizer = model, called, optimizer
        self._recipe, self._preprocessing, self._teacher = recipe, preprocessing, teacher
        self._processes, self._on_features = processes, on_features
        self._branches = branches(model, recipe)

    def step(self, batch: Batch, *, epoch: int, step: int, rate: float, total: int) -> float:
        """Make a step, in place; give the sum of the losses of this process's images.

        Args:
            batch: This process's part of the batch.
            epoch: From 1.
            step: The step of the run, from 0.
            rate: The learning rate.
            total: How many steps the run has.

        Raises:
            TrainingError: Memory is short, a number is none, or the network cannot be compiled.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group[SHARE]
        loss = taught = None
        try:
            loss, taught = self._losses(batch, epoch=epoch, step=step)
            self._optimizer.zero_grad()
            # The mean over the whole batch, since the gradients of all processes are averaged.
            self._processes.backward(loss.sum() * (batch.weight * self._processes.world / batch.whole))
            norm = self._processes.clip(self._called, self._recipe.clip_norm)
            # Both numbers at once, for which a GPU is waited for.
            summed, length = torch.stack([loss.detach().sum(), norm.detach().to(loss)]).tolist()
            summed *= batch.weight
            if not (math.isfinite(summed) and math.isfinite(length)):
                what = f"the loss became {summed}" if not math.isfinite(summed) else ""
                what = what or f"the gradient's norm became {length}"
                where = f"step {step + 1} of {total} (epoch {epoch})"
                raise TrainingError(f"{what} at {where}: {self._cause(taught, rate)}")
            self._optimizer.step()
            return float(summed)
        except (RuntimeError, MemoryError) as error:
            if self._recipe.compile and _is_compiler(error):
                raise TrainingError(
                    f"torch.compile failed ({_said(error)}); install a C++ compiler such as g++, or leave out "
                    "--compile"
                ) from error
            if not is_out_of_memory(error):
                raise
        # Out here, where nothing holds on to what the step had computed.
        del loss, taught
        raise TrainingError(self._short(len(batch.targets)))

    def _losses(self, batch: Batch, *, epoch: int, step: int) -> tuple[Tensor, Tensor | None]:
        recipe, device = self._recipe, self._processes.device
        mix = None
        images = batch.images.to(device, non_blocking=True)
        if not self._on_features:
            images = to_network(images, self._preprocessing)
            if recipe.augment == "shift":
                images = shifted(images, recipe=recipe, epoch=epoch, places=batch.places)
            size = (images.shape[-2], images.shape[-1])
            mix = draw(recipe, step=step, first=batch.first, count=len(images), size=size)
            if mix is not None:
                images = mixed(images, mix)
            places = batch.first + np.arange(len(images))
            drop(self._branches, recipe, step=step, places=places, device=device)
        with computing(recipe, device):
            taught = self._taught(images)
            logits = self._called(images)
        targets = batch.targets.to(device, non_blocking=True)
        return losses(logits, targets, recipe=recipe, mix=mix, teacher=taught), taught

    def _taught(self, images: Tensor) -> Tensor | None:
        return None if self._teacher is None else self._teacher(images, self._preprocessing)

    def _cause(self, taught: Tensor | None, rate: float) -> str:
        """Say why a step gave no number, and what to do; the weights are still those before it."""
        if taught is not None and not taught.isfinite().all():
            return "the teacher's answers are no numbers; give another with --teacher"
        for name, value in self._model.named_parameters():
            local = value.to_local() if hasattr(value, "to_local") else value
            if not local.isfinite().all():
                return (
                    f"the weights {name} hold what is no number; start from another checkpoint with --from, or go on "
                    "from the last good one"
                )
        advice = "lower the rate with --lr"
        if self._recipe.precision != "float32":
            advice += ", or train with --precision float32"
        return f"at a learning rate of {rate:.2g} the weights outgrew the numbers; {advice}"

    def _short(self, count: int) -> str:
        """Say that memory is short, and how many images would fit."""
        processes = self._processes
        where = f"on {processes.device}"
        if processes.world > 1:
            # Others wait in the middle of the step, so that nothing can be tried.
            whole = self._recipe.batch_size
            advice = f"give a smaller --batch-size than {whole}, such as {max(1, whole // 2)}"
        elif fits := batch_that_fits(
            self._model, count, processes.device, recipe=self._recipe, beside=self._taught
        ):
            advice = f"about {fits} images fit: give --batch-size {fits}"
        else:
            advice = "not even one image fits; train a smaller network, or at a smaller --image-size"
        return f"memory ran out {where} with {count} images; {advice}"


def to_network(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Normalise images: (batch, 3, height, width) uint8 to float32, as `normalise` to one unit in the last place."""
    mean, std = channels(preprocessing)
    return images.float().div_(255).sub_(mean.to(images.device)).div_(std.to(images.device))


def _is_compiler(error: BaseException) -> bool:
    from torch._dynamo.exc import TorchDynamoException

    return isinstance(error, TorchDynamoException) or "compiler" in str(error).lower()


def _said(error: BaseException) -> str:
    """Give what an error says, without the advice and the log that torch adds."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:200]

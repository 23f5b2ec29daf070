"""The training loop."""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..checkpoint import save_checkpoint
from ..errors import OptionError, TrainingError
from ..models import ViT, ViTConfig
from ..models.vit import StochasticDepth
from ..quantizers import simulate
from ..runtime.labels import Labels
from ..runtime.preprocess import Preprocessing, crop_pixels, normalise
from .augment import shifted
from .average import Average
from .batches import Batch, Examples, batches
from .chance import DEPTH, uniform
from .losses import losses
from .memory import batch_that_fits, is_out_of_memory
from .mixing import draw, mixed
from .optimizer import SHARE, optimizer_for
from .processes import Processes, require_precision
from .recipe import Recipe, learning_rate
from .run import BEST, LAST, record, trim
from .state import fingerprint, load_state, save_state
from .teacher import Teacher, channels

# Images whose activations tell the ranges of simulated quantizers, as many as an export takes.
_CALIBRATION_IMAGES = 128


@dataclass(frozen=True, slots=True)
class Step:
    """A step that has just been made.

    Attributes:
        step, steps: Its number from 1, and how many the whole run has.
        epoch: The epoch that it is in, from 1.
        loss: The mean loss of its images.
        learning_rate: Its rate.
        images_per_second: Since the epoch began, or was gone on with.
        seconds_left: For the run's remaining steps at that pace, without validations.
    """

    step: int
    steps: int
    epoch: int
    loss: float
    learning_rate: float
    images_per_second: float
    seconds_left: float


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
    model: ViT,
    training: Examples,
    validation: Examples,
    *,
    labels: Labels,
    recipe: Recipe,
    run: Path,
    teacher: Teacher | None = None,
    processes: Processes | None = None,
    workers: int = 0,
    resume: bool = False,
    save_every_s: float = 300.0,
    on_step: Callable[[Step], None] = lambda step: None,
) -> Iterator[Epoch]:
    """Train a network, in place.

    AdamW (Loshchilov and Hutter 2019), a linear warm-up, then a cosine to 0, a clipped gradient, and what the recipe
    adds. The same recipe, images, machine and number of threads give the same weights, bit for bit, on a processor;
    a run that was stopped and resumed gives them too, and one on several processes to rounding.

    Args:
        model: The network; afterwards it holds the weights of the last epoch.
        training: Images to learn from.
        validation: Images that choose the best epoch.
        labels: The classes, to be kept in the checkpoints.
        recipe: The numbers.
        run: The folder for what is written, as `open_run` gives it.
        teacher: The network to learn from, where the recipe distils.
        processes: This process among others; those that the environment tells of unless given.
        workers: How many processes load images beside this one.
        resume: Go on from the run's state, where there is one.
        save_every_s: How often the state is written within an epoch; at its end it always is.
        on_step: Called after every step.

    Yields:
        Each epoch as it ends, its files written. The best has the highest validation accuracy; where two have
        the same, the lower validation loss.

    Raises:
        TrainingError: The loss or the gradient is no longer a number, memory is short, a file cannot be written, or the
            state to go on from is of another run.
        CheckpointError: The checkpoint cannot be written.
        ValueError: The two sets were made by different preprocessing.
    """
    if training.preprocessing != validation.preprocessing:
        raise ValueError(
            "expected one preprocessing for both sets, "
            f"got {training.preprocessing} and {validation.preprocessing}"
        )
    yield from _Fit(
        model, training, validation, labels, recipe, run, teacher, processes or Processes(), workers
    ).epochs(resume=resume, save_every_s=save_every_s, on_step=on_step)


def evaluate(
    model: ViT, images: Examples, *, batch_size: int = 256, processes: Processes | None = None
) -> tuple[float, float]:
    """Give a network's mean loss and accuracy (a share) on images prepared by the runtime's own code."""
    model.eval()
    device = model.cls_token.device
    rank, world = (0, 1) if processes is None else (processes.rank, processes.world)
    loss, right = 0.0, 0
    mine = range(rank, len(images), world)
    with torch.inference_mode():
        for start in range(0, len(mine), batch_size):
            pixels, targets = [], []
            for place in mine[start : start + batch_size]:
                image, target = images.example(place)
                crop = image if images.cropped else crop_pixels(image, images.preprocessing)
                pixels.append(normalise(crop, images.preprocessing))
                targets.append(target)
            answers = torch.tensor(targets).to(device)
            logits = model(torch.from_numpy(np.stack(pixels)).to(device))
            loss += functional.cross_entropy(logits, answers, reduction="sum").item()
            right += int((logits.argmax(dim=1) == answers).sum())
    if processes is not None:
        loss, total = processes.sum(loss, float(right))
        right = round(total)
    return loss / len(images), right / len(images)


class _Fit:
    """A run: the network, what trains it, and where it is."""

    def __init__(
        self,
        model: ViT,
        training: Examples,
        validation: Examples,
        labels: Labels,
        recipe: Recipe,
        run: Path,
        teacher: Teacher | None,
        processes: Processes,
        workers: int,
    ) -> None:
        self._training, self._validation = training, validation
        self._labels, self._recipe, self._run = labels, recipe, run
        self._teacher, self._processes, self._workers = teacher, processes, workers
        require_precision(recipe, processes.device)
        if (recipe.distillation == "none") != (teacher is None):
            raise OptionError(
                "distillation needs a teacher, and a teacher a kind of distillation: soft or hard"
            )
        if recipe.quantize:
            simulate.simulate(model)
        self._model = model.to(processes.device)
        optimizer = optimizer_for(model, recipe)
        self._average = Average(model, decay=recipe.ema) if recipe.ema else None
        self._depths = _depths(model, recipe)
        self._called, self._optimizer = processes.prepare(model, optimizer)
        if recipe.compile:
            self._called = torch.compile(self._called)  # type: ignore[assignment]
        self._steps = math.ceil(len(training) / recipe.batch_size)
        self._place = {"epoch": 1, "step": 0}
        self._loss = 0.0
        self._best = (-1.0, -math.inf)

    def epochs(
        self, *, resume: bool, save_every_s: float, on_step: Callable[[Step], None]
    ) -> Iterator[Epoch]:
        recipe, started = self._recipe, time.monotonic()
        data = fingerprint(self._training, self._validation)
        if resume and (state := load_state(self._run, recipe, data)) is not None:
            self._restore(state)
        if self._processes.first:
            trim(self._run, self._place["epoch"] - 1)
        first = self._place["epoch"]
        for number in range(first, recipe.epochs + 1):
            epoch_started, done_before = time.monotonic(), self._place["step"]
            if recipe.quantize:
                self._measure_ranges()
            rate = self._train(number, data, save_every_s, on_step)
            seen = len(self._training) - done_before * recipe.batch_size
            pace = seen / (time.monotonic() - epoch_started)
            (loss,) = self._processes.sum(self._loss)
            val_loss, val_accuracy = evaluate(self._answering, self._validation, processes=self._processes)
            improved = (val_accuracy, -val_loss) > self._best
            if improved:
                self._best = (val_accuracy, -val_loss)
            epoch = Epoch(
                epoch=number,
                epochs=recipe.epochs,
                loss=loss / len(self._training),
                val_loss=val_loss,
                val_accuracy=val_accuracy,
                learning_rate=rate,
                images_per_second=pace,
                seconds_left=(time.monotonic() - started) / (number - first + 1) * (recipe.epochs - number),
                best=improved,
            )
            self._loss = 0.0
            self._place = {"epoch": number + 1, "step": 0}
            self._write(epoch, data)
            yield epoch

    @property
    def _answering(self) -> ViT:
        """The network that is validated and kept."""
        return self._model if self._average is None else self._average.model

    def _train(self, epoch: int, data: str, save_every_s: float, on_step: Callable[[Step], None]) -> float:
        """Go through the rest of an epoch's images, in place; give the last learning rate."""
        self._called.train()
        recipe, total = self._recipe, self._steps * self._recipe.epochs
        started = saved = time.monotonic()
        seen, rate = 0, 0.0
        for batch in batches(
            self._training,
            recipe,
            epoch=epoch,
            start=self._place["step"],
            rank=self._processes.rank,
            world=self._processes.world,
            workers=self._workers,
        ):
            step = self._steps * (epoch - 1) + self._place["step"]
            rate = learning_rate(step, steps=total, recipe=recipe)
            for group in self._optimizer.param_groups:
                group["lr"] = rate * group[SHARE]
            loss = self._step(batch, epoch=epoch, step=step, rate=rate, total=total)
            if self._average is not None:
                self._average.update(self._model, step=step)
            self._loss += loss
            self._place["step"] += 1
            seen += batch.whole
            now = time.monotonic()
            on_step(
                Step(
                    step=step + 1,
                    steps=total,
                    epoch=epoch,
                    loss=loss / len(batch.targets),
                    learning_rate=rate,
                    images_per_second=seen / (now - started),
                    seconds_left=(now - started) / seen * recipe.batch_size * (total - step - 1),
                )
            )
            if now - saved >= save_every_s and self._place["step"] < self._steps:
                self._save(data)
                saved = time.monotonic()
        return rate

    def _step(self, batch: Batch, *, epoch: int, step: int, rate: float, total: int) -> float:
        """Make a step, in place; give the sum of the losses of this process's images."""
        try:
            loss = self._losses(batch, epoch=epoch, step=step)
            # The mean over the whole batch, since the gradients of all processes are averaged.
            self._optimizer.zero_grad()
            self._processes.backward(loss.sum() * (batch.weight * self._processes.world / batch.whole))
            norm = float(self._processes.clip(self._called, self._recipe.clip_norm))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            where = f"on {self._processes.device}"
            fits = batch_that_fits(self._model, len(batch.targets), self._processes.device)
            advice = (
                f"about {fits} images fit: give --batch-size {fits}" if fits else "not even one image fits"
            )
            raise TrainingError(
                f"memory ran out {where} with {len(batch.targets)} images; {advice}"
            ) from error
        summed = float(loss.detach().sum()) * batch.weight
        _require_numbers(summed / batch.whole, norm, f"step {step + 1} of {total} (epoch {epoch})", rate)
        self._optimizer.step()
        return summed

    def _losses(self, batch: Batch, *, epoch: int, step: int) -> Tensor:
        recipe, device = self._recipe, self._processes.device
        images = to_network(batch.images.to(device), self._training.preprocessing)
        if recipe.augment == "shift":
            images = shifted(images, recipe=recipe, epoch=epoch, places=batch.places)
        size = (images.shape[-2], images.shape[-1])
        mix = draw(recipe, step=step, first=batch.first, count=len(images), size=size)
        if mix is not None:
            images = mixed(images, mix)
        self._drop(step, batch)
        taught = None if self._teacher is None else self._teacher(images, self._training.preprocessing)
        half = recipe.precision == "bf16"
        with torch.autocast(device.type, torch.bfloat16) if half else nullcontext():
            logits = self._called(images)
        return losses(logits, batch.targets.to(device), recipe=recipe, mix=mix, teacher=taught)

    def _drop(self, step: int, batch: Batch) -> None:
        """Draw which images skip which branches (Huang et al. 2016, eq. 4: more of the later blocks)."""
        places = batch.first + np.arange(len(batch.images))
        for index, (branch, rate) in enumerate(self._depths):
            kept = uniform(self._recipe.seed, DEPTH, step, index, places=places) >= rate
            factors = torch.from_numpy((kept / (1 - rate)).astype(np.float32))
            branch.factors = factors.reshape(-1, 1, 1).to(self._processes.device)

    def _measure_ranges(self) -> None:
        """Lay the simulated quantizers' grids anew: the weights have moved since they were last laid."""
        places = np.linspace(0, len(self._training) - 1, min(_CALIBRATION_IMAGES, len(self._training)))
        pixels = []
        for place in places.astype(np.int64).tolist():
            image, _ = self._training.example(place)
            crop = image if self._training.cropped else crop_pixels(image, self._training.preprocessing)
            pixels.append(normalise(crop, self._training.preprocessing))

        def run() -> None:
            with torch.no_grad():
                for image in pixels:
                    self._model(torch.from_numpy(image)[None].to(self._processes.device))

        self._model.eval()
        spans = simulate.measure_ranges(self._model, run)
        simulate.set_ranges(self._model, spans)
        if self._average is not None:
            simulate.set_ranges(self._average.model, spans)

    def _write(self, epoch: Epoch, data: str) -> None:
        """Write an epoch's files: what can be lost of them at any moment is made again from the state before."""
        weights = self._processes.weights(self._called) if self._processes.sharded else None
        if self._processes.first:
            kept = self._answering
            if weights is not None:
                kept = _unsharded(self._model.config, weights)
            for name in (BEST, LAST) if epoch.best else (LAST,):
                save_checkpoint(
                    self._run / name, kept, labels=self._labels, preprocessing=self._training.preprocessing
                )
            record(self._run, epoch)
        self._save(data)

    def _save(self, data: str) -> None:
        (loss,) = self._processes.sum(self._loss)
        if self._processes.first and not self._processes.sharded:
            state: dict[str, Any] = {
                "recipe": json.dumps(self._recipe.to_dict()),
                "data": data,
                "place": dict(self._place),
                "loss": loss,
                "best": list(self._best),
                "model": self._model.state_dict(),
                "average": None if self._average is None else self._average.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "ranges": {name: list(span) for name, span in simulate.ranges(self._model).items()},
            }
            save_state(self._run, state)
        self._processes.wait()

    def _restore(self, state: dict[str, Any]) -> None:
        self._model.load_state_dict(state["model"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._place = dict(state["place"])
        # All that was lost so far is the first process's from now on.
        self._loss = state["loss"] if self._processes.first else 0.0
        self._best = (state["best"][0], state["best"][1])


def to_network(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Normalise images: (batch, 3, height, width) uint8 to float32, as `normalise` to one unit in the last place."""
    mean, std = channels(preprocessing)
    return images.float().div_(255).sub_(mean.to(images.device)).div_(std.to(images.device))


def _depths(model: ViT, recipe: Recipe) -> list[tuple[StochasticDepth, float]]:
    """Give the branches that may be left out, and each one's share."""
    if not recipe.drop_path:
        return []
    last = max(1, len(model.blocks) - 1)
    found = []
    for index, block in enumerate(model.blocks):
        branches = (module for module in block.modules() if isinstance(module, StochasticDepth))
        found += [(branch, recipe.drop_path * index / last) for branch in branches if index]
    return found


def _unsharded(config: ViTConfig, weights: dict[str, Tensor]) -> ViT:
    model = ViT(config)
    model.load_state_dict(weights)
    return model


def _require_numbers(loss: float, norm: float, where: str, rate: float) -> None:
    """Stop before the optimizer spreads a NaN to every weight."""
    if math.isfinite(loss) and math.isfinite(norm):
        return
    what = f"the loss became {loss}" if not math.isfinite(loss) else f"the gradient's norm became {norm}"
    raise TrainingError(
        f"{what} at {where}: at a learning rate of {rate:.2g} the weights outgrew the numbers; "
        "lower the rate with --lr"
    )

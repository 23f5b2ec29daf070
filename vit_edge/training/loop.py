"""A run: the network, what trains it, and where it is."""

import json
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from ..checkpoint import save_checkpoint
from ..errors import OptionError, TrainingError
from ..models import ViT
from ..quantizers import simulate
from ..runtime.labels import Labels
from .average import Average
from .batches import Batch, Examples, batches, worker_errors
from .evaluate import evaluate
from .grids import measure
from .held import Heads, Held, can_hold, evaluate_held, held_batches, hold, stays
from .learner import Learner
from .memory import enough_memory
from .optimizer import optimizer_for
from .processes import Processes, computing, require_precision
from .recipe import Recipe, learning_rate
from .run import BEST, LAST, record, trim
from .start import new_model
from .state import fingerprint, forget_state, load_state, save_state
from .teacher import Teacher
from .told import Epoch, Step


class Run:
    """Goes through epochs, writes what is to be kept, and goes on where it stopped; see `fit`."""

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
            simulate.simulate(model, symmetric=recipe.symmetric, weight_bits=recipe.weight_bits)
        # Before weights are shared out, for a copy is made of them.
        with enough_memory(f"bringing the network to {processes.device}", advice="train a smaller one"):
            self._average = Average(model, decay=recipe.ema) if recipe.ema else None
            if self._average is not None:
                processes.place(self._average.model)
            self._model = processes.place(model)
        called, self._optimizer = processes.prepare(model, optimizer_for(model, recipe))
        # What is frozen gives the same features each time: they are computed once, where one process has them all.
        alone = recipe.freeze and not recipe.quantize and processes.world == 1
        self._holds_validation = alone and can_hold(model, validation)
        self._holds_training = self._holds_validation and stays(recipe) and can_hold(model, training)
        if self._holds_training:
            called = Heads(model)
        elif recipe.compile:
            called = torch.compile(called)  # type: ignore[assignment]
        self._called = called
        self._learner = Learner(
            model,
            called,
            self._optimizer,
            recipe=recipe,
            preprocessing=training.preprocessing,
            teacher=teacher,
            processes=processes,
            on_features=self._holds_training,
        )
        self._held: tuple[Held | None, Held | None] = (None, None)
        self._steps = -(-len(training) // recipe.batch_size)
        self._place = {"epoch": 1, "step": 0}
        self._loss = 0.0
        self._best = (-1.0, float("-inf"))

    def epochs(
        self,
        *,
        resume: bool,
        save_every_s: float,
        on_step: Callable[[Step], None],
        on_features: Callable[[int, int], None],
    ) -> Generator[Epoch, None, None]:
        """Train, and give each epoch as it ends; the arguments are those of `fit`."""
        recipe = self._recipe
        sets = self._training, self._validation
        asked = fingerprint(self._model.config, self._labels, *sets, teacher=self._teacher)
        self._open(asked, resume=resume)
        first = self._place["epoch"]
        if first <= recipe.epochs:
            self._hold(on_features)
        started = time.monotonic()
        # While a run goes on its workers live, and the death of one is told of wherever this process is at that moment.
        with closing(self._batches(range(first, recipe.epochs + 1))) as stream, worker_errors():
            for number in range(first, recipe.epochs + 1):
                epoch_started, done_before = time.monotonic(), self._place["step"]
                # Only where an epoch begins: one that is gone on with keeps its grids.
                if recipe.quantize and not done_before:
                    _lay_grids(self._model, self._training)
                left = islice(stream, self._steps - done_before)
                rate = self._train(left, number, asked, save_every_s, on_step)
                seen = len(self._training) - done_before * recipe.batch_size
                pace = seen / (time.monotonic() - epoch_started)
                more = (recipe.epochs - number) / (number - first + 1)
                yield self._finish(number, asked, rate=rate, pace=pace, started=started, more=more)

    @property
    def _answering(self) -> ViT:
        """The network that is validated and kept."""
        return self._model if self._average is None else self._average.model

    def _open(self, asked: dict[str, str], *, resume: bool) -> None:
        """Go on from the run's state, in place, or clear what an earlier run left."""
        state = load_state(self._run, self._recipe, asked) if resume else None
        (found,) = self._processes.sum(float(state is not None))
        if 0 < found < self._processes.world:
            raise TrainingError(
                f"only {found:.0f} of {self._processes.world} processes find the state in {self._run}; put the run on "
                "a disk that all machines see"
            )
        if state is not None:
            self._restore(state)
        if self._processes.first:
            if state is None:
                forget_state(self._run)
            trim(self._run, self._place["epoch"] - 1)

    def _hold(self, on_features: Callable[[int, int], None]) -> None:
        """Compute the features of images that are seen again and again unchanged, in place."""
        total = len(self._training) * self._holds_training + len(self._validation) * self._holds_validation
        done = 0

        def told(count: int) -> None:
            nonlocal done
            done += count
            on_features(done, total)

        training = validation = None
        if self._holds_training:
            within = computing(self._recipe, self._processes.device)
            training = hold(self._model, self._training, told=told, within=within)
        if self._holds_validation:
            # In float32, whatever is learned from: it is what a device will answer.
            validation = hold(self._model, self._validation, told=told)
        self._held = training, validation

    def _evaluate(self) -> tuple[float, float]:
        held = self._held[1]
        if held is not None:
            return evaluate_held(self._answering, held)
        return evaluate(self._answering, self._validation, processes=self._processes)

    def _batches(self, epochs: Iterable[int]) -> Generator[Batch, None, None]:
        start, held = self._place["step"], self._held[0]
        if held is not None:
            return held_batches(held, self._recipe, epochs=epochs, start=start)
        return batches(
            self._training,
            self._recipe,
            epochs=epochs,
            start=start,
            rank=self._processes.rank,
            world=self._processes.world,
            workers=self._workers,
            pinned=self._processes.device.type == "cuda",
        )

    def _train(
        self,
        left: Iterable[Batch],
        epoch: int,
        asked: dict[str, str],
        save_every_s: float,
        on_step: Callable[[Step], None],
    ) -> float:
        """Go through what is left of an epoch's batches, in place; give the last learning rate."""
        self._called.train()
        recipe, total = self._recipe, self._steps * self._recipe.epochs
        started = saved = time.monotonic()
        seen, rate = 0, 0.0
        for batch in left:
            step = self._steps * (epoch - 1) + self._place["step"]
            rate = learning_rate(step, steps=total, recipe=recipe)
            loss = self._learner.step(batch, epoch=epoch, step=step, rate=rate, total=total)
            if self._average is not None:
                self._average.update(self._model, step=step)
            # The first process's clock decides for all of them.
            due = self._processes.first and time.monotonic() - saved >= save_every_s
            loss, saves = self._processes.sum(loss, float(due))
            self._loss += loss
            self._place["step"] += 1
            seen += batch.whole
            taken = time.monotonic() - started
            on_step(
                Step(
                    step=step + 1,
                    steps=total,
                    epoch=epoch,
                    loss=loss / batch.whole,
                    learning_rate=rate,
                    images_per_second=seen / taken,
                    seconds_left=taken / seen * recipe.batch_size * (total - step - 1),
                )
            )
            if saves and self._place["step"] < self._steps:
                self._save(asked)
                saved = time.monotonic()
        return rate

    def _finish(
        self, number: int, asked: dict[str, str], *, rate: float, pace: float, started: float, more: float
    ) -> Epoch:
        """Validate what an epoch came to, and write its files."""
        if self._recipe.quantize:
            # As an export of these very weights would lay them. Those to train on are measured anew in any case.
            _lay_grids(self._answering, self._training)
        val_loss, val_accuracy = self._evaluate()
        improved = (val_accuracy, -val_loss) > self._best
        if improved:
            self._best = (val_accuracy, -val_loss)
        epoch = Epoch(
            epoch=number,
            epochs=self._recipe.epochs,
            loss=self._loss / len(self._training),
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            learning_rate=rate,
            images_per_second=pace,
            seconds_left=(time.monotonic() - started) * more,
            best=improved,
        )
        self._loss = 0.0
        self._place = {"epoch": number + 1, "step": 0}
        self._write(epoch, asked)
        return epoch

    def _write(self, epoch: Epoch, asked: dict[str, str]) -> None:
        """Write an epoch's files: what can be lost of them at any moment is made again from the state before."""
        kept = self._answering
        if self._processes.sharded:
            weights = self._processes.whole(kept.state_dict())
            kept = new_model(kept.config, seed=0)
            kept.load_state_dict(weights)
        if self._processes.first:
            for name in (BEST, LAST) if epoch.best else (LAST,):
                save_checkpoint(
                    self._run / name, kept, labels=self._labels, preprocessing=self._training.preprocessing
                )
            record(self._run, epoch)
        self._save(asked)

    def _save(self, asked: dict[str, str]) -> None:
        weights: dict[str, Any] = {
            "model": self._model.state_dict(),
            "average": None if self._average is None else self._average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }
        weights = self._processes.whole(weights)
        if self._processes.first:
            state = {
                "recipe": json.dumps(self._recipe.to_dict()),
                "asked": asked,
                "place": dict(self._place),
                "loss": self._loss,
                "best": list(self._best),
                "ranges": {name: list(span) for name, span in simulate.ranges(self._model).items()},
                **weights,
            }
            save_state(self._run, state)
        self._processes.wait()

    def _restore(self, state: dict[str, Any]) -> None:
        spans = {name: (low, high) for name, (low, high) in state["ranges"].items()}
        self._processes.take_weights(self._model, state["model"])
        simulate.set_ranges(self._model, spans)
        if self._average is not None:
            self._processes.take_weights(self._average.model, state["average"])
        self._processes.take_optimizer(self._optimizer, state["optimizer"])
        self._place = dict(state["place"])
        self._loss = state["loss"]
        self._best = (state["best"][0], state["best"][1])


def _lay_grids(model: ViT, images: Examples) -> None:
    """Lay a network's simulated quantizers' grids anew, in place: its weights have moved since they were last laid."""
    simulate.set_ranges(model, measure(model, images))

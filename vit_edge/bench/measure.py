"""Times what a device does with an image, from the file's bytes to the answer, for several models in turns."""

import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime.classifier import Classifier
from ..runtime.image import read_image
from ..runtime.opening import Compiling
from ..runtime.timing import as_steps, in_turns
from .load import Load, Ran, Times
from .pictures import Pictures

_ROUNDS = 10

# Warming up: the first answers allocate memory, and choose kernels on some providers.
_WARM_UPS = 3

# However slow a model is, its turn holds so many calls of each kind in every thread.
_AT_LEAST = 2


@dataclass(frozen=True, slots=True)
class Setting:
    """How a model is run.

    Attributes:
        provider: The short name of an execution provider, or ``auto``.
        threads: How many threads compute one answer; None for the classifier's own choice.
        batch: How many images a call holds.
        concurrency: How many threads share the classifier, each with calls of its own.
        provider_options: Names and values of the provider's own options.
    """

    provider: str = "auto"
    threads: int | None = None
    batch: int = 1
    concurrency: int = 1
    provider_options: tuple[tuple[str, str], ...] = ()

    def open(self, model: Path, compiling: Compiling = nullcontext) -> Classifier:
        """Open a model in this setting; for *compiling* see `Classifier`."""
        return Classifier(
            model,
            self.provider,
            self.threads,
            provider_options=dict(self.provider_options),
            compiling=compiling,
        )

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, ready for JSON."""
        return {**asdict(self), "provider_options": dict(self.provider_options)}


@dataclass(frozen=True, slots=True)
class Step:
    """A measurement has moved on."""

    stage: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured of a model in a setting. Times are those of a call, which holds `Setting.batch` images.

    Attributes:
        model: The file.
        seal: Its seal, by which it is known whatever it is called.
        setting: How it was run, with the provider and threads that were really used.
        decode: From the bytes of image files to RGB pixels.
        preprocess: Resizing, cropping and, where the graph does not do it itself, normalising.
        inference: The graph alone.
        end_to_end: `Classifier.__call__` on the bytes, timed by itself: no sum of the others.
        images_per_s: Throughput end to end, of all threads together.
        ratio: The time that an image takes, end to end, relative to the first model's in the same setting (of one
            model alone, to its first setting's): the median over the rounds, each compared within itself.
        placement: How many of the graph's nodes each provider runs.
        notes: What a user should know of this file here, as `Classifier.notes`.
    """

    model: Path
    seal: str
    setting: Setting
    decode: Times
    preprocess: Times
    inference: Times
    end_to_end: Times
    images_per_s: float
    ratio: float
    placement: Mapping[str, int]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, ready for JSON."""
        stages = {name: getattr(self, name).to_dict() for name in STAGES}
        return {
            "model": str(self.model),
            "seal": self.seal,
            **self.setting.to_dict(),
            **stages,
            "images_per_s": self.images_per_s,
            "ratio": self.ratio,
            "placement": dict(self.placement),
            "notes": list(self.notes),
        }


STAGES = ("decode", "preprocess", "inference", "end_to_end")


def measure(
    models: Sequence[Path],
    settings: Sequence[Sequence[Setting]],
    pictures: Pictures,
    *,
    seconds: float = 4.0,
    compiling: Compiling = nullcontext,
) -> Generator[Step, None, tuple[Row, ...]]:
    """Time models in turns, so that a machine whose speed drifts treats all alike.

    Every turn is preceded by a pause, since the threads of the session before spin on for a while.

    Args:
        models: The files.
        settings: For each model the settings to run it in; the same number for all.
        pictures: What they classify.
        seconds: How long each model is timed in each setting; slow models take longer, for enough calls.
        compiling: As `Classifier` takes it.

    Returns:
        The rows, setting by setting, and in each the models in their order.

    Raises:
        VitEdgeError: A model or image cannot be used, or a provider is missing.
    """
    with ExitStack() as stack:
        cases = [case for group in zip(*settings, strict=True) for case in zip(models, group, strict=True)]
        opened: dict[tuple[Path, Setting], Classifier] = {}
        contenders = []
        for done, (model, setting) in enumerate(cases):
            yield Step("opening", done, len(cases))
            key = (model, replace(setting, batch=1, concurrency=1))
            if key not in opened:
                opened[key] = stack.enter_context(setting.open(model, compiling))
            load = stack.enter_context(Load(setting.concurrency))
            contenders.append(_Contender(model, opened[key], setting, pictures, load))
        yield Step("opening", len(cases), len(cases))
        turn_s = seconds / _ROUNDS / 2
        for done, contender in enumerate(contenders):
            yield Step("warming up", done, len(contenders))
            contender.warm_up()
        yield Step("warming up", len(contenders), len(contenders))
        race = in_turns([partial(one.turn, turn_s) for one in contenders], _ROUNDS)
        turns = yield from as_steps(race, partial(Step, "timing"))
        bases = [place - place % len(models) if len(models) > 1 else 0 for place in range(len(contenders))]
        return tuple(
            contender.row(found, turns[base])
            for contender, found, base in zip(contenders, turns, bases, strict=True)
        )


@dataclass(frozen=True, slots=True)
class _Turn:
    """What a turn gave: seconds of decoding, preprocessing and inference for each call; and whole calls."""

    staged: Ran[tuple[float, float, float]]
    whole: Ran[float]
    batch: int

    @property
    def image_s(self) -> float:
        """The time of an image, of all threads together."""
        return self.whole.seconds / (len(self.whole.results) * self.batch)


class _Contender:
    def __init__(
        self, model: Path, classifier: Classifier, setting: Setting, pictures: Pictures, load: Load
    ) -> None:
        self._model, self._classifier, self._pictures, self._load = model, classifier, pictures, load
        self._setting = replace(setting, provider=classifier.provider, threads=classifier.threads)

    def warm_up(self) -> None:
        self._load.run(self._staged, 0, at_least=_WARM_UPS)
        self._load.run(self._whole, 0, at_least=_WARM_UPS)

    def turn(self, seconds: float) -> _Turn:
        # The first answer after a pause wakes the threads up.
        self._load.run(self._whole, 0)
        staged = self._load.run(self._staged, seconds, at_least=_AT_LEAST)
        whole = self._load.run(self._whole, seconds, at_least=_AT_LEAST)
        return _Turn(staged, whole, self._setting.batch)

    def row(self, turns: Sequence[_Turn], base: Sequence[_Turn]) -> Row:
        staged = [call for turn in turns for call in turn.staged.results]
        decode, preprocess, inference = (Times.of(stage) for stage in zip(*staged, strict=True))
        calls = [call for turn in turns for call in turn.whole.results]
        ratios = [own.image_s / other.image_s for own, other in zip(turns, base, strict=True)]
        return Row(
            self._model,
            self._classifier.seal,
            self._setting,
            decode,
            preprocess,
            inference,
            Times.of(calls),
            len(calls) * self._setting.batch / sum(turn.whole.seconds for turn in turns),
            float(np.median(ratios)),
            self._classifier.placement,
            self._classifier.notes,
        )

    def _staged(self, number: int) -> tuple[float, float, float]:
        files = self._pictures.batch(number, self._setting.batch)
        start = time.perf_counter()
        images = [read_image(file) for file in files]
        decoded = time.perf_counter()
        pixels = np.stack([self._classifier.pixels(image) for image in images])
        prepared = time.perf_counter()
        self._classifier.logits(pixels)
        return decoded - start, prepared - decoded, time.perf_counter() - prepared

    def _whole(self, number: int) -> float:
        files = self._pictures.batch(number, self._setting.batch)
        start = time.perf_counter()
        self._classifier(files, batch_size=self._setting.batch)
        return time.perf_counter() - start

"""Finds the thread count with which a model answers fastest on this device."""

from collections.abc import Generator, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime.classifier import Classifier
from ..runtime.cores import usable_cores
from ..runtime.opening import Compiling
from ..runtime.timing import as_steps, in_turns
from .load import Load
from .measure import Setting, Step
from .pictures import Pictures

_ROUNDS = 9
_TURN_S = 0.1
_AT_LEAST = 3

# Up to so many cores every count is tried.
_EVERY = 8

# Fewer threads that are as good as the best within this much leave cores to others.
_ALIKE = 0.03

# Whatever else the machine does only ever adds time.
_QUANTILE = 0.2


@dataclass(frozen=True, slots=True)
class Sweep:
    """What each thread count gave.

    Attributes:
        model: The file.
        provider: The execution provider that was used.
        ms: The time of an image in milliseconds, by thread count: inference alone.
        best: The smallest count within 3 % of the fastest.
    """

    model: Path
    provider: str
    ms: dict[int, float]
    best: int

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, ready for JSON."""
        ms = {str(threads): value for threads, value in self.ms.items()}
        return {"model": str(self.model), "provider": self.provider, "ms_per_image": ms, "best": self.best}


def candidates(cores: int) -> tuple[int, ...]:
    """Give the thread counts to try: each one on small devices, powers of two and parts of all cores on large ones.

    >>> candidates(4)
    (1, 2, 3, 4)
    >>> candidates(24)
    (1, 2, 4, 8, 12, 16, 18, 24)
    """
    if cores <= _EVERY:
        return tuple(range(1, cores + 1))
    powers = {2**power for power in range(cores.bit_length())}
    return tuple(sorted(powers | {cores // 2, cores * 3 // 4, cores}))


def fewest_as_good(ms: Mapping[int, float]) -> int:
    """Give the smallest thread count whose time is within 3 % of the fastest.

    >>> fewest_as_good({1: 13.8, 2: 9.9, 3: 9.7, 4: 9.6})
    3
    """
    fastest = min(ms.values())
    return min(threads for threads, time in ms.items() if time <= fastest * (1 + _ALIKE))


def sweep_threads(
    model: Path, setting: Setting, pictures: Pictures, *, compiling: Compiling = nullcontext
) -> Generator[Step, None, Sweep]:
    """Time a model's inference at each thread count, in turns.

    Args:
        model: The file.
        setting: The provider, the batch and how many threads share the classifier; its `threads` has no meaning.
        pictures: What it classifies.
        compiling: As `Classifier` takes it.

    Raises:
        VitEdgeError: The model cannot be used, or the provider is missing.
    """
    counts = candidates(usable_cores())
    with ExitStack() as stack:
        load = stack.enter_context(Load(setting.concurrency))
        classifiers = [
            stack.enter_context(replace(setting, threads=threads).open(model, compiling))
            for threads in counts
        ]
        first = classifiers[0]
        pixels = np.stack([first.pixels(file) for file in pictures.batch(0, setting.batch)])

        def turn(classifier: Classifier, seconds: float = _TURN_S) -> float:
            def work(number: int) -> None:
                classifier.logits(pixels)

            load.run(work, 0)
            ran = load.run(work, seconds, at_least=_AT_LEAST)
            return ran.seconds * 1e3 / len(ran.results) / setting.batch

        for classifier in classifiers:
            turn(classifier, 0)
        race = in_turns([partial(turn, one) for one in classifiers], _ROUNDS)
        turns = yield from as_steps(race, partial(Step, f"threads for {model.name}"))
    ms = {count: float(np.quantile(times, _QUANTILE)) for count, times in zip(counts, turns, strict=True)}
    return Sweep(model, first.provider, ms, fewest_as_good(ms))

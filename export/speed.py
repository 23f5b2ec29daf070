"""Times graphs against each other on the machine at hand."""

import time
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from .images import Runner, Tick

_WARM_UPS = 3
_ROUNDS = 9

# So long a graph runs in each of its turns, and at least and at most so many times.
_TURN_S = 0.05
_RUNS = (3, 40)

# Whatever else the machine does only ever adds time, most of all to threads that wait for one another.
_QUANTILE = 0.2

# ONNX Runtime's threads go on spinning for a while after an answer, and would slow the next graph down.
_PAUSE_S = 0.02


def race(
    models: Sequence[onnx.ModelProto], pixels: NDArray[Any], stage: str = "timing"
) -> Generator[Tick, None, tuple[float, ...]]:
    """Time graphs in turns, so that a machine whose speed drifts treats all alike.

    Args:
        models: The graphs.
        pixels: One input, as the graphs take it.
        stage: What is timed, for the progress.

    Returns:
        For each graph the time of an answer in milliseconds, on the CPU provider with all cores: the 20th percentile.
    """
    runners = [Runner(model) for model in models]
    runs = []
    for runner in runners:
        for _ in range(_WARM_UPS):
            runner(pixels)
        runs.append(int(np.clip(_TURN_S * 1e3 / _time_ms(runner, pixels), *_RUNS)))
    times: list[list[float]] = [[] for _ in runners]
    for done in range(1, _ROUNDS + 1):
        for runner, count, found in zip(runners, runs, times, strict=True):
            time.sleep(_PAUSE_S)
            # The first answer after a pause wakes the threads up.
            runner(pixels)
            found += (_time_ms(runner, pixels) for _ in range(count))
        yield Tick(stage, done, _ROUNDS)
    return tuple(float(np.quantile(found, _QUANTILE)) for found in times)


def _time_ms(runner: Runner, pixels: NDArray[Any]) -> float:
    start = time.perf_counter()
    runner(pixels)
    return (time.perf_counter() - start) * 1e3

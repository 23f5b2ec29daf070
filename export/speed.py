"""Times graphs against each other on the machine at hand."""

import time
from collections.abc import Generator, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from .images import Runner, Tick

_WARM_UPS = 3
_ROUNDS = 7
_RUNS = 5

# ONNX Runtime's threads go on spinning for a while after an answer, and would slow the next graph down.
_PAUSE_S = 0.02


def race(
    models: Sequence[onnx.ModelProto], pixels: NDArray[np.float32]
) -> Generator[Tick, None, tuple[float, ...]]:
    """Time graphs in turns, so that a machine whose speed drifts treats all alike.

    Args:
        models: The graphs.
        pixels: One input, (batch, 3, height, width) float32.

    Returns:
        For each graph the median time of an answer in milliseconds, on the CPU provider with all cores.
    """
    runners = [Runner(model) for model in models]
    for runner in runners:
        for _ in range(_WARM_UPS):
            runner(pixels)
    times: list[list[float]] = [[] for _ in runners]
    for done in range(1, _ROUNDS + 1):
        for runner, found in zip(runners, times, strict=True):
            time.sleep(_PAUSE_S)
            # The first answer after a pause wakes the threads up.
            runner(pixels)
            for _ in range(_RUNS):
                start = time.perf_counter()
                runner(pixels)
                found.append((time.perf_counter() - start) * 1e3)
        yield Tick("timing", done, _ROUNDS)
    return tuple(float(np.median(found)) for found in times)

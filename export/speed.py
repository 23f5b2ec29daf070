"""Times graphs against each other on the machine at hand."""

from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ..runtime.timing import as_steps, take_turns
from .images import Runner, Tick


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

    def answer(runner: Runner) -> Callable[[], NDArray[np.float32]]:
        return lambda: runner(pixels)

    turns = take_turns([answer(Runner(model)) for model in models])
    return (yield from as_steps(turns, partial(Tick, stage)))

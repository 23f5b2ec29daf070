"""Repeats work in one or more threads for a while, and describes the times that it took."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar

import numpy as np

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Times:
    """How long calls took.

    Attributes:
        count: How many calls were timed.
        p50_ms: The median, in milliseconds.
        p90_ms: Nine in ten calls took no longer.
        p99_ms: Ninety-nine in a hundred took no longer; with fewer calls than that it is close to the slowest.
        spread: Half of all calls lie within a range this wide, relative to the median (interquartile range).
    """

    count: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    spread: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Times":
        """Describe the times of calls, given in seconds."""
        p25, p50, p75, p90, p99 = (float(value) * 1e3 for value in np.quantile(seconds, _QUANTILES))
        return cls(len(seconds), p50, p90, p99, (p75 - p25) / p50)

    def to_dict(self) -> dict[str, float]:
        """Give plain values, ready for JSON."""
        return asdict(self)


_QUANTILES = (0.25, 0.5, 0.75, 0.9, 0.99)


@dataclass(frozen=True, slots=True)
class Ran(Generic[Result]):
    """What repeated work gave.

    Attributes:
        results: One for each call, of all threads.
        seconds: From the first call's start to the last one's end.
    """

    results: list[Result]
    seconds: float


class Load:
    """Threads, held open, that do the same work at the same time.

    With one, it is the calling thread that works, so that nothing is measured but the work.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def run(self, work: Callable[[int], Result], seconds: float, *, at_least: int = 1) -> Ran[Result]:
        """Repeat work in every thread.

        Args:
            work: It is given a number that goes up with every call, and begins elsewhere in each thread.
            seconds: No call starts later than this after the start.
            at_least: How many calls each thread makes however long they take.
        """
        if self._pool is None:
            return _repeat(work, 0, seconds, at_least)
        begun: list[float] = []
        start = threading.Barrier(self._threads, action=lambda: begun.append(time.perf_counter()))

        def one(first: int) -> Ran[Result]:
            start.wait()
            return _repeat(work, first, seconds, at_least)

        futures = [self._pool.submit(one, first) for first in range(self._threads)]
        parts = [future.result() for future in futures]
        return Ran([result for part in parts for result in part.results], time.perf_counter() - begun[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown()


def _repeat(work: Callable[[int], Result], first: int, seconds: float, at_least: int) -> Ran[Result]:
    results: list[Result] = []
    start = now = time.perf_counter()
    while len(results) < at_least or now - start < seconds:
        results.append(work(first + len(results)))
        now = time.perf_counter()
    return Ran(results, now - start)

"""Times calls against each other in turns. It imports nothing of this package, so that a lone file can run it."""

import time
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

import numpy as np

Turn = TypeVar("Turn")
Step = TypeVar("Step")
Result = TypeVar("Result")

_WARM_UPS = 3
_ROUNDS = 9

# So long a call is repeated in each of its turns, and at least and at most so many times.
_TURN_S = 0.05
_RUNS = (3, 40)

# Whatever else the machine does only ever adds time, most of all to threads that wait for one another.
_QUANTILE = 0.2

# ONNX Runtime's threads go on spinning for a while after an answer, and would slow the next graph down.
_PAUSE_S = 0.02


def take_turns(
    contenders: Sequence[Callable[[], object]],
) -> Generator[tuple[int, int], None, tuple[float, ...]]:
    """Time calls in turns, so that a machine whose speed drifts treats all alike; yields rounds done and their total.

    Args:
        contenders: Each is called many times.

    Returns:
        For each the time of a call in milliseconds: the 20th percentile.
    """
    found = yield from sample_turns(contenders)
    return tuple(float(np.quantile(times, _QUANTILE)) for times in found)


def sample_turns(
    contenders: Sequence[Callable[[], object]], *, rounds: int | None = None
) -> Generator[tuple[int, int], None, tuple[tuple[float, ...], ...]]:
    """Time calls in turns as `take_turns` does, and give every single time.

    Args:
        contenders: Each is called a few times to warm up, and then in every round as often as fits its turn.
        rounds: How many turns each gets; 9 unless given.

    Returns:
        For each the times of its calls in milliseconds, in the order of the calls.
    """
    turns = [_repeated(call) for call in contenders]
    found = yield from in_turns(turns, _ROUNDS if rounds is None else rounds)
    return tuple(tuple(time for turn in turns for time in turn) for turns in found)


def in_turns(
    contenders: Sequence[Callable[[], Turn]], rounds: int
) -> Generator[tuple[int, int], None, tuple[list[Turn], ...]]:
    """Let contenders take turns; yields rounds done and their total.

    A pause comes before each turn, and each round begins with another contender, so that none always follows the same.

    Args:
        contenders: Each is called once a round, for as long as it likes.
        rounds: How many turns each gets.

    Returns:
        For each contender what its turns gave, in the order of the rounds.
    """
    given: tuple[list[Turn], ...] = tuple([] for _ in contenders)
    for done in range(rounds):
        for place in range(len(contenders)):
            number = (place + done) % len(contenders)
            time.sleep(_PAUSE_S)
            given[number].append(contenders[number]())
        yield done + 1, rounds
    return given


def as_steps(
    turns: Generator[tuple[int, int], None, Result], step: Callable[[int, int], Step]
) -> Generator[Step, None, Result]:
    """Yield the rounds of a race as the steps of the work that it is a part of; gives what the race gave.

    Args:
        turns: What `take_turns` or `in_turns` began.
        step: Makes a step of the rounds done and their total.
    """
    while True:
        try:
            done, total = next(turns)
        except StopIteration as end:
            result: Result = end.value
            return result
        yield step(done, total)


def time_ms(call: Callable[[], object]) -> float:
    """Give the time of one call in milliseconds."""
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def _repeated(call: Callable[[], object]) -> Callable[[], list[float]]:
    for _ in range(_WARM_UPS):
        call()
    count = int(np.clip(_TURN_S * 1e3 / max(time_ms(call), 1e-6), *_RUNS))

    def turn() -> list[float]:
        # The first answer after a pause wakes the threads up.
        call()
        return [time_ms(call) for _ in range(count)]

    return turn

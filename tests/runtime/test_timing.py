"""Times of calls that take turns."""

import time
from collections.abc import Generator
from functools import partial
from typing import Any

import pytest

from vit_edge.runtime import timing
from vit_edge.runtime.timing import sample_turns, take_turns


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_TURN_S", 0.005)


def drained(turns: Generator[tuple[int, int], None, Any]) -> tuple[list[tuple[int, int]], Any]:
    ticks = []
    while True:
        try:
            ticks.append(next(turns))
        except StopIteration as end:
            return ticks, end.value


def test_the_slower_call_is_told_wherever_it_stands() -> None:
    """A race that favoured the first or the last would pick the wrong file for a device."""
    for order in ((0.0005, 0.01), (0.01, 0.0005)):
        ticks, times = drained(take_turns([partial(time.sleep, pause) for pause in order]))
        found = dict(zip(order, times, strict=True))
        assert found[0.01] > 3 * found[0.0005] > 0
        assert ticks == [(done, 9) for done in range(1, 10)]


def test_calls_take_turns_after_a_warm_up() -> None:
    """One after the other in full, a machine that slows down meanwhile would decide the race."""
    called: list[str] = []
    ticks, samples = drained(sample_turns([lambda: called.append("a"), lambda: called.append("b")], rounds=3))
    turns = [name for place, name in enumerate(called) if place == 0 or called[place - 1] != name]
    # Warming up is a turn of its own, and what is called in it is not among the times.
    assert turns == ["a", "b"] * 4
    assert [tick[0] for tick in ticks] == [1, 2, 3]
    for name, times in zip("ab", samples, strict=True):
        assert 9 <= len(times) < called.count(name)
        assert all(sample >= 0 for sample in times)

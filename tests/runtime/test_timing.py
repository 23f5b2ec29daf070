"""Times of calls that take turns."""

import time
from functools import partial
from itertools import pairwise

import pytest

from vit_edge.runtime import timing
from vit_edge.runtime.timing import in_turns, sample_turns, take_turns

from ..drain import drained


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_TURN_S", 0.005)


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
    # Warming up is a turn of its own, and what is called in it is not among the times. Each round begins with
    # another, so that who ends a round begins the next.
    assert turns == ["a", "b"] * 3
    assert [tick[0] for tick in ticks] == [1, 2, 3]
    for name, times in zip("ab", samples, strict=True):
        assert 9 <= len(times) < called.count(name)
        assert all(sample >= 0 for sample in times)


def test_each_round_begins_with_another_contender() -> None:
    """One that always came after a heavy one would run on a hotter, slower processor."""
    calls: list[str] = []

    def contender(name: str) -> str:
        calls.append(name)
        return f"{name}{len(calls)}"

    ticks, (a, b, c) = drained(in_turns([partial(contender, name) for name in "abc"], rounds=3))
    assert "".join(calls) == "abcbcacab"
    assert (a, b, c) == (["a1", "a6", "a8"], ["b2", "b4", "b9"], ["c3", "c5", "c7"])
    assert ticks == [(1, 3), (2, 3), (3, 3)]


def test_a_pause_comes_before_each_turn() -> None:
    """ONNX Runtime's threads spin on after an answer, and would slow down whoever comes next."""
    turns: list[float] = []
    drained(in_turns([lambda: turns.append(time.perf_counter())] * 2, rounds=2))
    assert all(later - earlier >= 0.02 for earlier, later in pairwise(turns))

"""The last minute in numbers."""

import json
import math

from vit_edge.page.history import KEPT_S, STEP_S, History


def add(
    history: History, at_s: float, *, age: float = 40.0, latency: float | None = 20.0, dropped: int = 0
) -> None:
    history.add(at_s, age_ms=age, latency_ms=latency, dropped=dropped)


def test_a_step_tells_the_mean_and_the_worst() -> None:
    """A mean alone hides the one late frame that people see."""
    history = History()
    for age in (30.0, 40.0, 110.0):
        add(history, 0.1, age=age, latency=age / 2, dropped=3)
    assert history.since(0) == [[0, 3, 60.0, 110.0, 30.0, 55.0, 3]]


def test_a_repeated_answer_has_no_latency() -> None:
    """The model was not asked; a 0 would flatter the mean."""
    history = History()
    add(history, 0.1, latency=None)
    assert history.since(0) == [[0, 1, 40.0, 40.0, None, None, 0]]
    add(history, 0.2, latency=20.0)
    assert history.since(0)[0][4:6] == [20.0, 20.0]


def test_a_run_of_months_keeps_a_minute() -> None:
    """The device has its memory for other things."""
    history = History()
    for place in range(10_000):
        add(history, place * STEP_S)
    assert len(history.since(0)) <= KEPT_S / STEP_S + 1
    assert history.since(9_999) == [[9_999, 1, 40.0, 40.0, 20.0, 20.0, 0]]


def test_dropped_frames_are_told_by_the_step() -> None:
    """The count of the whole run does not say when they were lost."""
    history = History()
    for at_s, dropped in ((0.1, 2), (0.7, 2), (1.2, 7)):
        add(history, at_s, dropped=dropped)
    assert [step[6] for step in history.since(0)] == [2, 0, 5]


def test_a_gap_is_counted_with_its_length() -> None:
    """A camera that was away for a night shows it in the morning."""
    history = History()
    for at_s in (0.0, 0.1, 0.2, 0.3, 5.3, 5.4, 5.5, 8.5):
        add(history, at_s)
    assert history.to_dict() == {"gaps": 2, "longest_gap_s": 5.0}


def test_a_slow_rhythm_is_no_gap() -> None:
    """An answer every ten seconds is what a battery device is told to give."""
    history = History()
    for turn in range(20):
        add(history, turn * 10.0)
    assert history.gaps == 0


def test_what_is_not_finite_does_not_reach_the_browser() -> None:
    """JSON has no NaN, and a browser that cannot read a message shows nothing more."""
    history = History()
    add(history, 0.1, age=math.nan, latency=math.inf)
    json.dumps(history.since(0), allow_nan=False)

"""Answers are steadied over time, and nothing is shown below the threshold."""

import math

import numpy as np
import pytest

from vit_edge.runtime.steady import Steady

RED, GREEN = np.array([0.9, 0.06, 0.04]), np.array([0.06, 0.9, 0.04])


def labels(steady: Steady, rows: list[tuple[np.ndarray, float]]) -> list[int | None]:
    return [steady.update(row, time_s).index for row, time_s in rows]


def test_without_a_time_constant_each_frame_stands_by_itself() -> None:
    """`--raw`: someone who measures wants what the model said."""
    steady = Steady()
    assert labels(steady, [(RED, 0.0), (GREEN, 0.001), (RED, 0.002)]) == [0, 1, 0]
    assert steady.update(GREEN, 0.003).probabilities.tolist() == GREEN.tolist()


def test_one_wrong_frame_does_not_change_the_label() -> None:
    """A label that flickers for a thirtieth of a second cannot be read."""
    steady = Steady(time_constant_s=0.4)
    assert labels(steady, [(RED, 0.0), (RED, 0.1), (GREEN, 0.133), (RED, 0.167)]) == [0, 0, 0, 0]


def test_a_lasting_change_is_shown_soon() -> None:
    """Steady must not mean deaf."""
    steady = Steady(time_constant_s=0.4)
    steady.update(RED, 0.0)
    shown = [steady.update(GREEN, place / 30).index for place in range(1, 31)]
    # The averages cross when half of the past is forgotten: 0.4 s * ln 2 = 0.28 s, and the margin takes a little more.
    assert shown[7] == 0
    assert shown[11] == 1


@pytest.mark.parametrize("rate", [5, 30, 120])
def test_the_average_depends_on_time_and_not_on_the_rate_of_frames(rate: int) -> None:
    """The same scene on a slow device must not be steadied for four times as long."""
    steady = Steady(time_constant_s=0.5)
    steady.update(RED, 0.0)
    for place in range(1, rate + 1):
        last = steady.update(GREEN, place / rate)
    kept = math.exp(-1 / 0.5)
    assert last.probabilities == pytest.approx(kept * RED + (1 - kept) * GREEN)


def test_after_a_gap_the_past_is_forgotten() -> None:
    """What a camera saw before it was unplugged says nothing of now."""
    steady = Steady(time_constant_s=0.4)
    steady.update(RED, 0.0)
    assert steady.update(GREEN, 60.0).index == 1


def test_of_two_that_are_alike_the_shown_one_stays() -> None:
    """Noise of a hundredth would swap them thirty times a second."""
    steady = Steady(time_constant_s=0.1)
    a, b = np.array([0.41, 0.39, 0.2]), np.array([0.39, 0.41, 0.2])
    shown = labels(steady, [((a, b)[place % 2 or 0], place * 1.0) for place in range(8)])
    assert shown == [0] * 8
    assert steady.update(np.array([0.3, 0.5, 0.2]), 20.0).index == 1


@pytest.mark.parametrize("time_constant_s", [0.0, 0.3])
def test_below_the_threshold_nothing_is_shown(time_constant_s: float) -> None:
    """Rather no answer than a guess, whatever was shown before."""
    steady = Steady(time_constant_s=time_constant_s, threshold=0.6)
    assert steady.update(RED, 0.0).index == 0
    assert steady.update(np.array([0.59, 0.3, 0.11]), 9.0).index is None
    assert steady.update(RED, 18.0).index == 0


def test_at_the_threshold_unknown_does_not_flicker() -> None:
    """Out of the unknown an answer has to be a little surer than to stay out of it."""
    steady = Steady(time_constant_s=0.1, threshold=0.6)
    low, high = np.array([0.59, 0.41, 0.0]), np.array([0.62, 0.38, 0.0])
    shown = labels(steady, [((low, high)[place % 2], place * 1.0) for place in range(6)])
    assert shown == [None] * 6
    assert steady.update(np.array([0.66, 0.34, 0.0]), 9.0).index == 0
    assert steady.update(high, 10.0).index == 0


def test_a_sure_answer_is_known_again_at_any_threshold() -> None:
    """The room above a high threshold would else be beyond 1."""
    steady = Steady(time_constant_s=0.1, threshold=0.98)
    assert steady.update(RED, 0.0).index is None
    assert steady.update(np.array([0.995, 0.005, 0.0]), 9.0).index == 0


def test_time_that_goes_back_changes_nothing() -> None:
    """Some drivers stamp a frame earlier than the one before."""
    steady = Steady(time_constant_s=0.4)
    steady.update(RED, 1.0)
    assert steady.update(GREEN, 0.5).probabilities == pytest.approx(RED)

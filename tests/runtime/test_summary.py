"""What a loop has done is counted in little memory, and told in one line."""

import time

import numpy as np
import pytest

from vit_edge.runtime.summary import Quantiles, Tally


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_quantiles_are_right_within_a_hundredth(share: float) -> None:
    """A month of ages cannot be kept one by one."""
    numbers = np.random.default_rng(0).lognormal(3.0, 0.5, 20_000)
    found = Quantiles()
    for number in numbers:
        found.add(number)
    assert found.at(share) == pytest.approx(np.quantile(numbers, share), rel=0.015)


@pytest.mark.parametrize("number", [0.0, -1.0, 1e-9, 1e12])
def test_a_strange_number_ends_nothing(number: float) -> None:
    """A clock that was set back gives an age below zero."""
    found = Quantiles()
    found.add(number)
    assert found.at(0.5) >= 0


def test_without_answers_the_summary_says_so() -> None:
    """Zeros would look like a very fast model."""
    summary = Tally().summary(dropped=0, gaps=0, gap_s=0.0)
    assert str(summary) == "no frame was answered"
    assert summary.saved == 0


def test_the_summary_tells_all_that_was_counted() -> None:
    """It is what remains of a run."""
    tally = Tally()
    tally.began(time.monotonic() - 2.0)
    for place in range(4):
        tally.answered(age_ms=20.0, prepare_ms=2.0, infer_ms=8.0, repeated=place == 3)
    tally.frames, tally.rested, tally.late = 10, 4, 1
    summary = tally.summary(dropped=6, gaps=2, gap_s=3.25)
    assert (summary.answers, summary.repeated, summary.dropped, summary.gaps) == (4, 1, 6, 2)
    assert summary.saved == 0.5
    assert summary.infer_ms == pytest.approx(8.0, rel=0.02)
    assert summary.fps == pytest.approx(2.0, rel=0.1)
    text = str(summary)
    assert text.startswith("4 answers to 10 frames in 2.0 s")
    for part in (
        "6 dropped",
        "1 later than asked for",
        "50 % of the frames spared the model",
        "2 gaps, 3.2 s in all",
    ):
        assert part in text
    assert summary.to_dict()["saved"] == 0.5

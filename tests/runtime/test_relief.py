"""Work is shed to hold the age of answers, taken up again later, and what cannot be held is said once."""

import pytest

from vit_edge.runtime.relief import STEPS, Relief


def feed(relief: Relief, age_ms: float, *, needed_ms: float = 10.0, looks: int = 1) -> list[str]:
    """Give a relief as many answers as it takes to look *looks* times."""
    return [said for _ in range(20 * looks) if (said := relief.note(age_ms, needed_ms))]


def test_without_a_limit_nothing_is_shed() -> None:
    """Whoever asks for nothing gets all there is."""
    relief = Relief(None)
    assert feed(relief, 1e6, looks=5) == []
    assert relief.step == 0


def test_late_answers_shed_more_and_more() -> None:
    """Drawing and recording take the processor from the model."""
    relief = Relief(30.0)
    assert feed(relief, 20.0) == []
    assert relief.step == 0
    assert feed(relief, 40.0, looks=2) == []
    assert relief.step == 2


def test_with_room_enough_the_work_is_taken_up_again() -> None:
    """One slow minute must not leave the window at one picture a second for ever."""
    relief = Relief(30.0)
    feed(relief, 40.0, looks=3)
    feed(relief, 28.0, looks=20)  # held, but with no room to spare
    assert relief.step == 3
    feed(relief, 10.0, looks=4 * 3)
    assert relief.step == 0


def test_a_limit_that_cannot_be_held_is_said_once() -> None:
    """With the reason and the next step; a line a second would bury everything else."""
    relief = Relief(30.0)
    said = feed(relief, 40.0, looks=STEPS + 10)
    assert said == [
        "answers are 40 ms old and the limit of 30 ms cannot be held, although all other work is shed: preprocessing "
        "and inference alone take 10 ms; take a smaller or faster model, or a higher limit"
    ]


def test_a_model_that_is_too_slow_by_itself_is_said_at_once() -> None:
    """Shedding step by step would only delay the news."""
    relief = Relief(30.0)
    (said,) = feed(relief, 60.0, needed_ms=55.0)
    assert "preprocessing and inference alone take 55 ms" in said
    assert relief.step == STEPS


@pytest.mark.parametrize("late", [1, 2])
def test_one_late_answer_in_ten_is_borne(late: int) -> None:
    """A single hiccup is not a load."""
    relief = Relief(30.0)
    for place in range(20):
        relief.note(40.0 if place < late else 20.0, 10.0)
    assert relief.step == 0

"""The choice among candidates: what can ship, what beats what, and which one is taken."""

import dataclasses

from vit_edge.evaluation import Bounds, Comparison
from vit_edge.export.pareto import PICKS, Row, judged, preferred

BOUNDS = Bounds(min_agreement=0.98, max_drift=0.15, max_drop=1.0, min_batched_agreement=0.9)


def row(name: str, megabytes: float, latency_ms: float | None, flips: int, drift: float) -> Row:
    comparison = Comparison(images=100, flips=tuple(range(flips)), max_abs_drift=drift, drift=drift)
    return Row(name, int(1e6 * megabytes), comparison, latency_ms, None)


def names(rows: tuple[Row, ...]) -> list[str]:
    return [one.recipe for one in rows if one.best]


ROWS = (
    row("closest", 8.0, 12.0, 0, 0.02),
    row("balanced", 7.0, 10.5, 1, 0.03),
    row("fastest", 7.0, 10.0, 1, 0.05),
    row("smallest", 6.0, 11.0, 2, 0.06),
    row("beaten", 8.5, 12.5, 2, 0.07),
)


def test_what_another_beats_in_every_way_is_no_choice() -> None:
    """The table is there to choose from: a row that is larger, slower and further off is noise."""
    rows = judged(ROWS, BOUNDS, float_ms=30.0, min_speedup=1.05)
    assert names(rows) == ["closest", "balanced", "fastest", "smallest"]
    assert all(one.problem is None for one in rows)


def test_equal_rows_beat_neither() -> None:
    """Two ways to the same numbers are both as good as any."""
    twins = (row("one", 7.0, 10.0, 1, 0.03), row("two", 7.0, 10.0, 1, 0.03))
    assert names(judged(twins, BOUNDS, float_ms=None, min_speedup=1.0)) == ["one", "two"]


def test_each_preference_takes_its_own() -> None:
    """`--pick` is a promise by name."""
    rows = judged(ROWS, BOUNDS, float_ms=30.0, min_speedup=1.05)
    for pick in PICKS:
        place = preferred(rows, pick)[0]
        assert rows[place].recipe == pick


def test_what_comes_next_is_what_would_be_taken_without_the_first() -> None:
    """The last word may be against the first choice, and there are others."""
    rows = judged(ROWS, BOUNDS, float_ms=30.0, min_speedup=1.05)
    order = [rows[place].recipe for place in preferred(rows, "balanced")]
    assert order == ["balanced", "fastest", "closest", "smallest", "beaten"]


def test_of_equals_in_the_one_thing_the_better_in_the_others_is_taken() -> None:
    """Two recipes often drift alike, and one of them costs more."""
    twins = (
        row("large", 8.0, 10.0, 1, 0.03),
        row("slow", 7.0, 11.0, 1, 0.03),
        row("good", 7.0, 10.0, 1, 0.03),
    )
    rows = judged(twins, BOUNDS, float_ms=30.0, min_speedup=1.05)
    assert [preferred(rows, pick)[0] for pick in PICKS] == [2] * len(PICKS)


def test_a_row_that_breaks_a_bound_never_ships_and_beats_nothing() -> None:
    """The fastest is often the one that is wrong."""
    wrong = row("wrong", 1.0, 1.0, 3, 0.01)
    far = row("far", 1.0, 1.0, 0, 0.16)
    rows = judged((wrong, far, *ROWS), BOUNDS, float_ms=30.0, min_speedup=1.05)
    assert rows[0].problem == "agreement 97.00 % on 100 images, at least 98 % wanted"
    assert rows[1].problem == "logit drift 0.16, at most 0.15 wanted"
    assert names(rows) == ["closest", "balanced", "fastest", "smallest"]
    place = preferred(rows, "smallest")[0]
    assert rows[place].recipe == "smallest"


def test_a_row_that_is_not_faster_than_float_never_ships() -> None:
    """An INT8 file that is slower than the float one has nothing to offer for its errors."""
    rows = judged(ROWS, BOUNDS, float_ms=11.0, min_speedup=1.05)
    assert [one.problem is None for one in rows] == [False, False, True, False, False]
    assert rows[0].problem == (
        "an answer takes 12.00 ms and in float32 11.00 ms, at least 1.05 times as fast wanted"
    )


def test_where_nothing_passes_nothing_is_picked() -> None:
    """Then float32 ships, with the reason."""
    rows = judged(ROWS, dataclasses.replace(BOUNDS, max_drift=0.01), float_ms=30.0, min_speedup=1.0)
    assert preferred(rows, "balanced") == []


def test_what_was_not_timed_is_chosen_by_its_answers() -> None:
    """A provider that is not at hand leaves no times to choose by."""
    rows = judged(
        (row("far", 7.0, None, 0, 0.05), row("near", 7.5, None, 0, 0.02)),
        BOUNDS,
        float_ms=None,
        min_speedup=1.05,
    )
    for pick in PICKS:
        assert preferred(rows, pick)[0] == (0 if pick == "smallest" else 1)

"""The outcome of a search: candidates by size, latency, agreement and drift, and the choice among them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from ..evaluation import Bounds, Comparison

Pick = Literal["balanced", "fastest", "smallest", "closest"]
PICKS: tuple[Pick, ...] = get_args(Pick)

# So much slower than the fastest a candidate may be that is picked for its answers, where no preference is given.
_BALANCED = 1.12


@dataclass(frozen=True, slots=True)
class Row:
    """A candidate as measured.

    Attributes:
        recipe: What it is.
        bytes: The size of its graph.
        comparison: Its answers on the calibration images against the reference's.
        latency_ms: The time of one answer on the target's provider; None where that was not measured.
        problem: Why it cannot ship; None where it can.
        best: Whether no other that can ship is at least as good in size, latency, agreement and drift.
    """

    recipe: str
    bytes: int
    comparison: Comparison
    latency_ms: float | None
    problem: str | None
    best: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, ready for JSON."""
        return {
            "recipe": self.recipe,
            "bytes": self.bytes,
            "latency_ms": None if self.latency_ms is None else round(self.latency_ms, 3),
            "agreement": round(self.comparison.agreement, 6),
            "drift": self.comparison.to_dict()["drift"],
            "problem": self.problem,
            "best": self.best,
        }


def judged(
    rows: Sequence[Row], bounds: Bounds, *, float_ms: float | None, min_speedup: float
) -> tuple[Row, ...]:
    """Say of each row whether it can ship, and whether another is better in every way.

    Args:
        rows: The candidates as measured.
        bounds: What their answers must keep.
        float_ms: The time of one answer of the float graph; None where it was not measured.
        min_speedup: How many times as fast a candidate must be.
    """
    passed = [_judged(row, bounds, float_ms=float_ms, min_speedup=min_speedup) for row in rows]
    able = [row for row in passed if row.problem is None]
    return tuple(
        replace(row, best=row.problem is None and not any(_beats(other, row) for other in able))
        for row in passed
    )


def preferred(rows: Sequence[Row], pick: Pick) -> list[int]:
    """Give the places of the rows that can ship, the one to ship first, then what would be taken without it, and so on.

    ``balanced`` takes the one that drifts least among those at most 12 % slower than the fastest.
    """
    left = [place for place, row in enumerate(rows) if row.problem is None]
    order = []
    while left:
        order.append(_picked(rows, left, pick))
        left.remove(order[-1])
    return order


def _picked(rows: Sequence[Row], able: Sequence[int], pick: Pick) -> int:

    # What comes after the first wish breaks ties, so that no row is taken that another beats.
    def drift(place: int) -> tuple[float, ...]:
        size, time, agreement, drift = _merits(rows[place])
        return drift, agreement, time, size

    def time(place: int) -> tuple[float, ...]:
        size, time, agreement, drift = _merits(rows[place])
        return time, drift, agreement, size

    if pick == "closest":
        return min(able, key=drift)
    if pick == "smallest":
        return min(able, key=lambda place: (rows[place].bytes, *drift(place)))
    fastest = min(able, key=time)
    if pick == "fastest":
        return fastest
    return min((place for place in able if time(place)[0] <= _BALANCED * time(fastest)[0]), key=drift)


def _judged(row: Row, bounds: Bounds, *, float_ms: float | None, min_speedup: float) -> Row:
    problem = row.problem or bounds.broken_by(row.comparison)
    if float_ms is None or row.latency_ms is None:
        return replace(row, problem=problem, best=False)
    if problem is None and float_ms < min_speedup * row.latency_ms:
        problem = (
            f"an answer takes {row.latency_ms:.2f} ms and in float32 {float_ms:.2f} ms, at least "
            f"{min_speedup:g} times as fast wanted"
        )
    return replace(row, problem=problem, best=False)


def _beats(other: Row, row: Row) -> bool:
    ours, theirs = _merits(row), _merits(other)
    return theirs != ours and all(better <= own for better, own in zip(theirs, ours, strict=True))


def _merits(row: Row) -> tuple[float, ...]:
    latency = float("inf") if row.latency_ms is None else row.latency_ms
    return (row.bytes, latency, -row.comparison.agreement, row.comparison.drift)

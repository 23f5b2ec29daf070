"""The last minute in numbers: latency and frame age, gathered into short steps of time."""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any

STEP_S = 0.5
"""The length of one step of the chart."""

KEPT_S = 60.0
"""How far the chart looks back."""

# An answer this late is a gap, where answers usually come faster than a quarter of it.
_GAP_S = 2.0
_GAP_RATIO = 4.0


@dataclass(slots=True)
class _Step:
    """Sums over one step: answers, those that the model was asked for, and sums and worst of age and latency, ms."""

    place: int
    answers: int = 0
    age_sum: float = 0.0
    age_worst: float = 0.0
    asked: int = 0
    latency_sum: float = 0.0
    latency_worst: float = 0.0
    dropped: int = 0

    def to_list(self) -> list[float | None]:
        return [
            self.place,
            self.answers,
            round(self.age_sum / self.answers, 2),
            round(self.age_worst, 2),
            round(self.latency_sum / self.asked, 2) if self.asked else None,
            round(self.latency_worst, 2) if self.asked else None,
            self.dropped,
        ]


@dataclass(slots=True)
class History:
    """What the chart shows, at a fixed size however long the run and however fast the answers.

    Attributes:
        gaps: How often answers stayed away for long.
        longest_gap_s: The longest such time, seconds.
    """

    gaps: int = 0
    longest_gap_s: float = 0.0
    _steps: deque[_Step] = field(default_factory=lambda: deque(maxlen=round(KEPT_S / STEP_S) + 1))
    _last_s: float | None = None
    _interval_s: float = math.inf
    _dropped: int = 0

    def add(self, at_s: float, *, age_ms: float, latency_ms: float | None, dropped: int) -> None:
        """Take in one answer.

        Args:
            at_s: When it came, seconds since the start; never less than before.
            age_ms: From capture to answer; what is not finite counts as 0.
            latency_ms: The time of preprocessing and inference; None where an earlier answer was repeated.
            dropped: Frames passed over so far.
        """
        self._look_for_gap(at_s)
        place = int(at_s / STEP_S)
        if not self._steps or self._steps[-1].place != place:
            self._steps.append(_Step(place))
        step = self._steps[-1]
        age_ms = finite(age_ms) or 0.0
        step.answers += 1
        step.age_sum += age_ms
        step.age_worst = max(step.age_worst, age_ms)
        if latency_ms is not None:
            latency_ms = finite(latency_ms) or 0.0
            step.asked += 1
            step.latency_sum += latency_ms
            step.latency_worst = max(step.latency_worst, latency_ms)
        step.dropped += max(0, dropped - self._dropped)
        self._dropped = dropped

    def since(self, place: int) -> list[list[float | None]]:
        """Give the steps from *place* on.

        Returns:
            For each ``[place, answers, mean age, worst age, mean latency, worst latency, dropped frames]``, ms;
            the latencies are None where the model was not asked.
        """
        return [step.to_list() for step in self._steps if step.place >= place]

    def to_dict(self) -> dict[str, Any]:
        """Give the gaps as plain values."""
        return {"gaps": self.gaps, "longest_gap_s": round(self.longest_gap_s, 2)}

    def _look_for_gap(self, at_s: float) -> None:
        if self._last_s is not None:
            waited_s = at_s - self._last_s
            if waited_s > max(_GAP_S, _GAP_RATIO * self._interval_s) and self._interval_s < math.inf:
                self.gaps += 1
                self.longest_gap_s = max(self.longest_gap_s, waited_s)
            elif self._interval_s < math.inf:
                self._interval_s += 0.1 * (waited_s - self._interval_s)
            else:
                self._interval_s = waited_s
        self._last_s = at_s


def finite(value: float) -> float | None:
    """Give a number that JSON can hold, or None for infinity and NaN."""
    number = float(value)
    return number if math.isfinite(number) else None

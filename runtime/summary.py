"""Counts what a loop does, in the same memory after a month as after a minute."""

import math
import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

# Neighbouring marks differ by 2 %, from 0.01 ms on; the last is above a day.
_RATIO, _LOWEST, _MARKS = 1.02, 0.01, 1160

# Answers a second are told of the last so many, and of the last so many seconds.
_LATE_ANSWERS, _LATE_S = 60, 2.0


@dataclass(frozen=True, slots=True)
class Summary:
    """What a loop has done so far.

    Attributes:
        frames: How many frames the source gave; those that were passed over count.
        answers: How many answers were handed out.
        dropped: How many frames were passed over, on purpose or not.
        repeated: How many answers were the one before again, because the scene stood still.
        rested: How many frames were passed over because of a limited rate.
        late: How many answers were older than asked for.
        seconds: From the first frame to the last answer.
        fps: Answers a second.
        age_p50_ms: The median age of an answer: from the taking of its frame to its handing out.
        age_p90_ms: Nine of ten answers were no older.
        prepare_ms: The median time of preprocessing.
        infer_ms: The median time of inference.
        gaps: How often the source went away.
        gap_s: For how long in all.
    """

    frames: int
    answers: int
    dropped: int
    repeated: int
    rested: int
    late: int
    seconds: float
    fps: float
    age_p50_ms: float
    age_p90_ms: float
    prepare_ms: float
    infer_ms: float
    gaps: int
    gap_s: float

    @property
    def saved(self) -> float:
        """The share of the frames that the model was spared on purpose, 0..1."""
        return (self.repeated + self.rested) / self.frames if self.frames else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, ready for JSON."""
        return asdict(self) | {"saved": self.saved}

    def __str__(self) -> str:
        """Give one line for people."""
        if not self.answers:
            return "no frame was answered" + self._gap_text()
        parts = [
            f"{self.answers} answers to {self.frames} frames in {self.seconds:.1f} s ({self.fps:.1f} a second)",
            f"{self.dropped} dropped",
            f"age {self.age_p50_ms:.1f} ms median, {self.age_p90_ms:.1f} ms for 9 of 10",
        ]
        if self.late:
            parts.append(f"{self.late} later than asked for")
        if self.repeated or self.rested:
            parts.append(f"{100 * self.saved:.0f} % of the frames spared the model")
        return "; ".join(parts) + self._gap_text()

    def _gap_text(self) -> str:
        if not self.gaps:
            return ""
        return f"; {self.gaps} gap{'s' * (self.gaps > 1)}, {self.gap_s:.1f} s in all"


class Quantiles:
    """Quantiles of positive numbers, within 1 %, in a fixed amount of memory.

    >>> numbers = Quantiles()
    >>> for number in (1.0, 2.0, 3.0):
    ...     numbers.add(number)
    >>> round(numbers.at(0.5), 1)
    2.0
    """

    def __init__(self) -> None:
        self._counts = [0] * _MARKS
        self._total = 0

    def add(self, number: float) -> None:
        """Count a number."""
        place = math.log(max(number, _LOWEST) / _LOWEST, _RATIO)
        self._counts[min(round(place), _MARKS - 1)] += 1
        self._total += 1

    def at(self, share: float) -> float:
        """Give the number that *share* of all are at or below; 0 where there is none."""
        wanted = share * self._total
        seen = 0
        for place, count in enumerate(self._counts):
            seen += count
            if count and seen >= wanted:
                return _LOWEST * _RATIO**place
        return 0.0


class Tally:
    """The counters behind a summary."""

    def __init__(self) -> None:
        self.ages = Quantiles()
        self.prepare = Quantiles()
        self.infer = Quantiles()
        self.frames = self.answers = self.repeated = self.rested = self.late = 0
        self._lately: deque[float] = deque(maxlen=_LATE_ANSWERS)
        self._began_s: float | None = None
        self._ended_s = 0.0

    def began(self, captured_s: float) -> None:
        """Note when the first frame was taken."""
        if self._began_s is None:
            self._began_s = captured_s

    def answered(self, *, age_ms: float, prepare_ms: float, infer_ms: float, repeated: bool) -> None:
        """Count an answer that is handed out now."""
        now = time.monotonic()
        self.answers += 1
        self._ended_s = now
        self._lately.append(now)
        self.ages.add(age_ms)
        if repeated:
            self.repeated += 1
        else:
            self.prepare.add(prepare_ms)
            self.infer.add(infer_ms)

    @property
    def fps(self) -> float:
        """Answers a second of late."""
        lately = [moment for moment in self._lately if self._ended_s - moment <= _LATE_S]
        if len(lately) < 2 or lately[-1] == lately[0]:
            return 0.0
        return (len(lately) - 1) / (lately[-1] - lately[0])

    def summary(self, *, dropped: int, gaps: int, gap_s: float) -> Summary:
        """Give all counts as they are now."""
        seconds = max(0.0, self._ended_s - (self._began_s or 0.0)) if self.answers else 0.0
        return Summary(
            frames=self.frames,
            answers=self.answers,
            dropped=dropped,
            repeated=self.repeated,
            rested=self.rested,
            late=self.late,
            seconds=seconds,
            fps=self.answers / seconds if seconds > 0 else 0.0,
            age_p50_ms=self.ages.at(0.5),
            age_p90_ms=self.ages.at(0.9),
            prepare_ms=self.prepare.at(0.5),
            infer_ms=self.infer.at(0.5),
            gaps=gaps,
            gap_s=gap_s,
        )

"""Holds the age of answers below a limit by shedding work that is not an answer."""

import time

# Each step halves how often pictures are drawn, recorded and shown.
STEPS = 5

# From how many answers the decision is made, after at most so long.
_ANSWERS, _LOOK_S = 20, 1.0

# Shedding begins when more than one answer in ten is late, and is taken back when nine in ten have this much room.
_LATE_SHARE, _ROOM, _CALM_LOOKS = 0.1, 0.7, 4

_SAY_AGAIN_S = 60.0


class Relief:
    """Decides how much is to be shed, from the ages of the answers."""

    def __init__(self, max_age_ms: float | None) -> None:
        """Begin with nothing shed.

        Args:
            max_age_ms: How old an answer may be; None for any age.
        """
        self._max_age_ms = max_age_ms
        self._ages: list[float] = []
        self._since_s = time.monotonic()
        self._calm = 0
        self._said_s: float | None = None
        self.step = 0

    def note(self, age_ms: float, needed_ms: float) -> str | None:
        """Take in an answer's age.

        Args:
            age_ms: It.
            needed_ms: What preprocessing and inference take of late.

        Returns:
            A sentence to say where the limit cannot be held, else None.
        """
        limit = self._max_age_ms
        if limit is None:
            return None
        self._ages.append(age_ms)
        now = time.monotonic()
        if len(self._ages) < _ANSWERS and now - self._since_s < _LOOK_S:
            return None
        late = sum(age > limit for age in self._ages) / len(self._ages)
        roomy = sum(age <= _ROOM * limit for age in self._ages) / len(self._ages)
        median = sorted(self._ages)[len(self._ages) // 2]
        self._ages.clear()
        self._since_s = now
        if late <= _LATE_SHARE:
            self._calm = self._calm + 1 if roomy >= 1 - _LATE_SHARE else 0
            if self._calm >= _CALM_LOOKS and self.step:
                self.step, self._calm = self.step - 1, 0
            return None
        self._calm = 0
        if self.step < STEPS and needed_ms <= limit:
            self.step += 1
            return None
        self.step = STEPS
        if self._said_s is not None and now - self._said_s < _SAY_AGAIN_S:
            return None
        self._said_s = now
        return (
            f"answers are {median:.0f} ms old and the limit of {limit:g} ms cannot be held, although all other work "
            f"is shed: preprocessing and inference alone take {needed_ms:.0f} ms; take a smaller or faster model, "
            "or a higher limit"
        )

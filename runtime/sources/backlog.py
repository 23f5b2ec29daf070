"""Tells when pictures come out of a decoder later and later after they went in."""

import math

# The quickest picture of about so long a time is taken for one that did not wait: a camera's clock and this one's
# drift apart, so it cannot be that of all time; seconds.
_WINDOW_S = 30.0

# A step of this much between two pictures is a camera that set its clock, or a network that stood still; seconds.
_JUMP_S = 0.5


class Backlog:
    """Compares the time at which pictures come out with the time that the stream gives them."""

    def __init__(self) -> None:
        self._late_s = math.nan
        self._start_s = 0.0
        self._least_s = self._least_before_s = math.inf

    def add(self, now_s: float, position_s: float) -> float:
        """Give how much longer this picture took than the quickest of late, seconds.

        Args:
            now_s: When it came out, seconds.
            position_s: Its time in the stream, seconds.

        >>> backlog = Backlog()
        >>> [round(backlog.add(0.06 * picture, picture / 30), 2) for picture in (0, 1, 2, 30)]
        [0.0, 0.03, 0.05, 0.0]
        >>> round(backlog.add(0.06 * 31, 31 / 30), 2)
        0.03
        """
        late_s = now_s - position_s
        if not abs(late_s - self._late_s) <= _JUMP_S:
            self._least_s = self._least_before_s = math.inf
            self._start_s = now_s
        elif now_s - self._start_s > _WINDOW_S:
            self._least_before_s, self._least_s = self._least_s, math.inf
            self._start_s = now_s
        self._late_s = late_s
        self._least_s = min(self._least_s, late_s)
        return late_s - min(self._least_s, self._least_before_s)

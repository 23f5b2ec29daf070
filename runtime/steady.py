"""Steadies answers over time, so that labels do not flicker from frame to frame."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_MARGIN = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """Which class is to be shown, if any.

    Attributes:
        index: The class's place among the model's outputs; None below the threshold.
        probabilities: (classes,) float64, those that decided.
    """

    index: int | None
    probabilities: NDArray[np.float64]


class Steady:
    """Averages probabilities over time and holds on to a label until another is clearly ahead."""

    def __init__(
        self, *, time_constant_s: float = 0.0, threshold: float = 0.0, margin: float = _MARGIN
    ) -> None:
        """Begin without a memory.

        Args:
            time_constant_s: After so long a sudden change has come to 63 % of its height, whatever the rate of the
                frames is; 0 takes each frame by itself.
            threshold: A class is shown from this probability on, 0..1.
            margin: By how much another class must be ahead of the shown one to take its place, and by how much above
                the threshold an unknown becomes known again. Nothing is shown below the threshold.
        """
        self._time_constant_s = time_constant_s
        self._threshold = threshold
        self._margin = margin if time_constant_s > 0 else 0.0
        self._average: NDArray[np.float64] | None = None
        self._time_s = -math.inf
        self._index: int | None = None
        self._known = True

    def update(self, probabilities: NDArray[np.floating], time_s: float) -> Verdict:
        """Take in what the model says of a frame.

        Args:
            probabilities: (classes,), 0..1.
            time_s: When the frame was taken, in seconds from any beginning.

        Returns:
            The class to show and the averaged probabilities.
        """
        new = np.asarray(probabilities, np.float64)
        average = self._average
        if average is None or self._time_constant_s <= 0:
            average = new
        else:
            # The exponential average of samples at uneven times (Eckner 2012, "last point" form): the weight of the
            # past falls with the time that went by, not with the number of frames.
            kept = math.exp(-max(0.0, time_s - self._time_s) / self._time_constant_s)
            average = kept * average + (1.0 - kept) * new
        self._average, self._time_s = average, max(time_s, self._time_s)
        leader = int(average.argmax())
        held = self._index
        if held is None or average[leader] >= average[held] + self._margin:
            held = leader
        self._index = held
        # The room above the threshold shrinks where it is high, so that a sure answer always gets through.
        needed = self._threshold + (0.0 if self._known else min(self._margin, (1 - self._threshold) / 2))
        self._known = bool(average[held] >= needed)
        return Verdict(self._index if self._known else None, average)

"""Tells when a live source's frame is to be taken, and which one would be too old when it is answered."""

import math
import threading
import time

# Rather an old answer than none for longer than this.
_SILENCE_S = 1.0

# A wait is cut into pieces: Python cannot wait for ever, nor be interrupted on Windows.
_GLANCE_S = 0.2


class Pace:
    """Knows how long preparing and answering take of late, and whether the model is at work.

    Attributes:
        infer_s: What an answer takes of late, seconds.
        passed_over: How many frames were too old.
    """

    def __init__(self, *, live: bool, max_age_ms: float | None) -> None:
        """Begin with a model that is not ready yet, where frames come whether it is or not.

        Args:
            live: Whether only the newest frame counts.
            max_age_ms: How old an answer may be; None for any age.
        """
        self.infer_s = self._prepare_s = 0.0
        self.passed_over = 0
        self._limit_s = None if max_age_ms is None else max_age_ms / 1e3
        self._answered_s = 0.0
        self._turn = threading.Condition()
        self._stopped = False
        # When the model is expected to be free; None while it is.
        self._free_at_s: float | None = math.inf if live else None

    @property
    def needed_s(self) -> float:
        """What preparing and answering a frame take of late, seconds."""
        return self._prepare_s + self.infer_s

    def stop(self) -> bool:
        """End every wait, from any thread; tell whether this is the first time."""
        with self._turn:
            first, self._stopped = not self._stopped, True
            self._turn.notify_all()
            return first

    def sleep_until(self, due_s: float) -> bool:
        """Wait for a moment; False where it was stopped."""
        with self._turn:
            while not self._stopped and (left := due_s - time.monotonic()) > 0:
                self._turn.wait(min(left, _GLANCE_S))
            return not self._stopped

    def await_turn(self) -> bool:
        """Wait until a frame that is prepared from now on is ready when the model is; False where it was stopped."""
        with self._turn:
            while not self._stopped and self._free_at_s is not None:
                left = self._free_at_s - self._prepare_s - time.monotonic()
                if left <= 0:
                    break
                self._turn.wait(min(left, _GLANCE_S))
            return not self._stopped

    def too_old(self, captured_s: float, left_s: float) -> bool:
        """Tell whether a frame's answer would come too late, where a newer frame's can come in time; count it then.

        Args:
            captured_s: When the frame was taken, as `time.monotonic` tells the time.
            left_s: What is still to be done for its answer, seconds.
        """
        if self._limit_s is None:
            return False
        now = time.monotonic()
        if now - captured_s + left_s <= self._limit_s:
            return False
        if self.needed_s > self._limit_s or now - self._answered_s > _SILENCE_S:
            return False
        self.passed_over += 1
        return True

    def prepared(self, prepare_s: float) -> None:
        """Note what preparing a frame took."""
        self._prepare_s = _lately(self._prepare_s, prepare_s)

    def begins(self) -> None:
        """Note that the model sets to work."""
        with self._turn:
            if self._free_at_s is None:
                self._free_at_s = time.monotonic() + self.infer_s

    def ended(self, infer_s: float) -> None:
        """Note that the model is free again, and what its answer took."""
        self.infer_s = _lately(self.infer_s, infer_s)
        with self._turn:
            self._free_at_s = None
            self._turn.notify_all()

    def answered(self) -> None:
        """Note that there is an answer, however it came about."""
        self._answered_s = time.monotonic()


def _lately(before: float, now: float) -> float:
    return now if before == 0 else before + 0.2 * (now - before)

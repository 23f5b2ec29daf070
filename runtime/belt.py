"""Hands things from one thread to the next: all of them in order, or only the newest."""

import threading
import time
from collections import deque
from typing import Generic, TypeVar

Thing = TypeVar("Thing")

# A wait without any end cannot be interrupted on Windows.
_GLANCE_S = 0.2


class Ended(Exception):  # noqa: N818  it is no error: nothing more comes
    """Nothing more comes over a belt."""


class Belt(Generic[Thing]):
    """A short queue between two threads, which can be ended from either side."""

    def __init__(self, size: int, *, newest: bool) -> None:
        """Make an empty belt.

        Args:
            size: How many things lie on it at most.
            newest: When it is full, a new thing pushes the oldest off; otherwise the giver waits.
        """
        self._size, self._newest = size, newest
        self._things: deque[Thing] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._error: BaseException | None = None
        self.pushed_off = 0

    def __len__(self) -> int:
        return len(self._things)

    def put(self, thing: Thing) -> bool:
        """Lay a thing on the belt; False where the belt has ended."""
        with self._changed:
            while len(self._things) >= self._size and not self._newest and not self._ended:
                self._changed.wait(_GLANCE_S)
            if self._ended:
                return False
            if len(self._things) >= self._size:
                self._things.popleft()
                self.pushed_off += 1
            self._things.append(thing)
            self._changed.notify_all()
            return True

    def get(self, timeout_s: float | None = None) -> Thing | None:
        """Take the oldest thing off; None after *timeout_s*.

        Raises:
            Ended: Nothing lies on it and nothing more comes; or the error that `end` was given.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while not self._things:
                if self._ended:
                    raise self._error or Ended
                left = _GLANCE_S if until is None else until - time.monotonic()
                if left <= 0:
                    return None
                self._changed.wait(min(left, _GLANCE_S))
            thing = self._things.popleft()
            self._changed.notify_all()
            return thing

    def end(self, error: BaseException | None = None, *, discard: bool = False) -> None:
        """Say that nothing more comes; what lies on the belt can still be taken, unless *discard*."""
        with self._changed:
            if not self._ended:
                self._ended, self._error = True, error
            if discard:
                self._things.clear()
            self._changed.notify_all()

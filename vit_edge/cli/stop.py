"""Signals that ask a long session to stop: it ends in order, and a second one has its usual effect."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

# How long a loop that was told to stop may wait for a slow reader of its answers.
_PATIENCE_S = 0.3

# Windows knows no SIGHUP, which is what a terminal says when it is closed.
_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class StoppedError(BaseException):
    """A signal came before there was a loop to end."""


class Stop:
    """Notes that a signal asked to stop; a second one has its usual effect."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._hurry: Callable[[], None] | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        # What is ignored stays so, as after nohup.
        heard = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._handle) for number in heard}
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        self._restore()
        return kind is StoppedError

    def calls(self, hurry: Callable[[], None]) -> None:
        """Name what to call when a signal comes; from then on, the loop looks at `number` by itself."""
        self._hurry = hurry

    def _handle(self, number: int, _: FrameType | None) -> None:
        self._restore()
        self.number = number
        if self._hurry is None:
            raise StoppedError
        # In a thread, since what the signal interrupted may hold the lock; and only if the loop doesn't end soon.
        timer = threading.Timer(_PATIENCE_S, self._hurry)
        timer.daemon = True
        timer.start()

    def _restore(self) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before = {}

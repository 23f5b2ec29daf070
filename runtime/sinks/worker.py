"""Does a sink's slow work in a thread of its own, so that the loop never waits for a disk or a pipe."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from ..belt import Belt, Ended

Work = TypeVar("Work")

# How long the end waits for work that is stuck, as in a pipe that nobody reads.
_FINISH_S = 0.5


class Worker(Generic[Work]):
    """A thread that does one piece of work after the other."""

    def __init__(
        self,
        do: Callable[[Work], None],
        *,
        size: int,
        newest: bool,
        idle: Callable[[], None] | None = None,
        idle_s: float | None = None,
    ) -> None:
        """Start the thread.

        Args:
            do: Does a piece of work.
            size: How many pieces may wait.
            newest: When too many wait, the oldest is left undone; otherwise the giver waits.
            idle: Called when there was no work for *idle_s*.
            idle_s: How long to wait for work.
        """
        self._do, self._idle, self._idle_s = do, idle, idle_s
        self._belt: Belt[Work] = Belt(size, newest=newest)
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="sink", daemon=True)
        self._thread.start()

    @property
    def left_undone(self) -> int:
        """How many pieces of work were left undone because too many waited."""
        return self._belt.pushed_off

    def give(self, work: Work) -> None:
        """Give a piece of work; what an earlier one raised is raised here."""
        if not self._belt.put(work) and self._error is not None:
            raise self._error

    def hurry(self) -> None:
        """Take no more work, so that nobody waits to give some; from any thread."""
        self._belt.end()

    def finish(self, timeout_s: float = _FINISH_S) -> bool:
        """Do what waits and end; False where that is stuck for *timeout_s*, counted anew with each piece done.

        What a piece raised, and nobody was told of yet, is raised here.
        """
        told = self._error is not None
        self._belt.end()
        until = time.monotonic() + timeout_s
        while self._thread.is_alive() and time.monotonic() < until:
            waiting = len(self._belt)
            self._thread.join(0.05)
            if len(self._belt) < waiting:
                until = time.monotonic() + timeout_s
        if self._error is not None and not told:
            raise self._error
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while True:
                work = self._belt.get(self._idle_s)
                if work is not None:
                    self._do(work)
                elif self._idle is not None:
                    self._idle()
        except Ended:
            return
        except Exception as error:  # raised again where work is given
            self._error = error
            self._belt.end(discard=True)


class WorkedSink(Generic[Work]):
    """What sinks whose slow work a worker does have in common; they hire it when they are entered."""

    _worker: Worker[Work] | None = None

    def hurry(self) -> None:
        """Take no more answers; those that were taken are still written."""
        if (worker := self._worker) is not None:
            worker.hurry()

    def _dismiss(self) -> Worker[Work] | None:
        """Give the worker, to be finished; it gets no more work."""
        worker, self._worker = self._worker, None
        return worker

"""What a sink is, and how answers are handed to several: one that fails does not stop the others."""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Protocol, Self

import cv2

from ..answer import Answer
from ..errors import VitEdgeError

_LOG = logging.getLogger(__name__)

# How often a costly sink is asked at most where something is shed; each further step halves it. A person who
# watches still sees that there is life.
_SHED_HZ, _LEAST_HZ = 15.0, 1.0

# What a sink may fail with; anything else is a mistake in the program.
_FAILURES = (OSError, VitEdgeError, cv2.error)


class Sink(Protocol):
    """Takes answers; a context manager that finishes what it holds open.

    A sink may have more: a ``name`` for people; ``costly``, which is true where it is to be asked less often when work
    is shed; ``idle()``, called while there is no answer, which gives what `show` gives; and ``hurry()``, called when
    the program is asked to stop, after which `show` may no longer wait for anything.
    """

    def show(self, answer: Answer) -> bool:
        """Take an answer; False where the user wants to stop, as by closing a window."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Fan:
    """Hands each answer to several sinks."""

    name = "outputs"

    def __init__(self, sinks: Sequence[Sink], *, relief: Callable[[], int] = lambda: 0) -> None:
        """Gather sinks; they are opened when this context is entered.

        Args:
            sinks: What the answers go to, in this order.
            relief: How much is to be shed, as `Watch.relief` tells: costly sinks are then asked less often.
        """
        self._given = tuple(sinks)
        self._open: dict[int, tuple[Sink, ExitStack]] = {}
        self._shown_s: dict[int, float] = {}
        self._relief = relief

    def __enter__(self) -> Self:
        try:
            for place, sink in enumerate(self._given):
                stack = ExitStack()
                # Before it is opened, so that nothing lies between opening and remembering it.
                self._open[place] = (sink, stack)
                try:
                    stack.enter_context(sink)
                except _FAILURES as error:
                    del self._open[place]
                    _LOG.warning("no %s: %s", _name(sink), _reason(error))
        except BaseException as error:  # a signal may come at any time
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for place in tuple(self._open):
            self._close(place)

    def __len__(self) -> int:
        """Tell how many sinks still take answers."""
        return len(self._open)

    def show(self, answer: Answer) -> bool:
        """Hand an answer on; False where the user wants to stop, or no sink is left."""
        return self._each(
            lambda place, sink: (getattr(sink, "costly", False) and self._shed(place)) or sink.show(answer)
        )

    def idle(self) -> bool:
        """Let the sinks do what they have to while there is no answer; False where the user wants to stop."""
        return self._each(lambda place, sink: not hasattr(sink, "idle") or bool(sink.idle()))

    def hurry(self) -> None:
        """Keep the sinks from waiting for slow readers and disks any longer; from any thread."""
        for sink, _ in tuple(self._open.values()):
            if hasattr(sink, "hurry"):
                sink.hurry()

    def _each(self, do: Callable[[int, Sink], bool]) -> bool:
        going = True
        for place, (sink, _) in tuple(self._open.items()):
            try:
                going = do(place, sink) and going
            except _FAILURES as error:
                _LOG.warning("the %s stopped: %s", _name(sink), _reason(error))
                self._close(place)
        return going and bool(self._open)

    def _shed(self, place: int) -> bool:
        step = self._relief()
        now = time.monotonic()
        if step and now - self._shown_s.get(place, 0.0) < 1 / max(_LEAST_HZ, _SHED_HZ / 2 ** (step - 1)):
            return True
        self._shown_s[place] = now
        return False

    def _close(self, place: int) -> None:
        sink, stack = self._open.pop(place)
        try:
            stack.close()
        except _FAILURES as error:
            _LOG.warning("the %s could not be finished: %s", _name(sink), _reason(error))


def _name(sink: Sink) -> str:
    return str(getattr(sink, "name", type(sink).__name__))


def _reason(error: BaseException) -> str:
    if isinstance(error, BrokenPipeError):
        return "its reader went away"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower() + (f" ({error.filename})" if error.filename else "")
    if isinstance(error, cv2.error):
        return " ".join(str(error.err).split())
    return str(error)

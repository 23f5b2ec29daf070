"""Answers as lines: JSON for programs, text for people."""

import json
import time
from collections.abc import Callable
from types import TracebackType
from typing import BinaryIO, Self

from ..answer import Answer
from ..errors import SinkError
from .worker import WorkedSink, Worker

# Enough for a reader that pauses for some seconds.
_WAITING = 256


class _Lines(WorkedSink[bytes]):
    """Writes lines of bytes into a stream, from a thread of its own."""

    name = "lines"

    def __init__(self, stream: BinaryIO, *, live: bool) -> None:
        self._stream, self._live = stream, live

    def __enter__(self) -> Self:
        self._worker = Worker(self._write, size=_WAITING, newest=self._live)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        worker = self._dismiss()
        if worker is None:
            return
        if not worker.finish():
            raise SinkError("nobody reads them, and the last ones are lost")
        if worker.left_undone:
            raise SinkError(f"their reader was too slow, and {worker.left_undone} are missing")

    def _put(self, line: str) -> None:
        if self._worker is not None:
            self._worker.give(line.encode("utf-8", "backslashreplace") + b"\n")

    def _write(self, line: bytes) -> None:
        left = memoryview(line)
        while left:
            # A stream without a buffer may take a part of it.
            left = left[self._stream.write(left) or 0 :]
        self._stream.flush()


class JsonSink(_Lines):
    """Writes each answer as one JSON object a line."""

    name = "JSON lines"

    def __init__(self, stream: BinaryIO, *, live: bool = True) -> None:
        """Store the stream; who opened it closes it.

        Args:
            stream: Where the lines go. One without a buffer is best: what is stuck in another's buffer hinders the end
                of the program.
            live: Whether lines are left out when the reader is too slow, rather than the loop held up.
        """
        super().__init__(stream, live=live)

    def show(self, answer: Answer) -> bool:
        """Write an answer."""
        self._put(json.dumps(answer.to_dict()))
        return True


class TextSink(_Lines):
    """Writes a line for people whenever the label changes."""

    name = "text"

    def __init__(
        self, stream: BinaryIO, *, live: bool = True, place: Callable[[Answer], str] | None = None
    ) -> None:
        """Store the stream; who opened it closes it.

        Args:
            stream: Where the lines go.
            live: Whether lines are left out when the reader is too slow, rather than the loop held up.
            place: Says where an answer belongs; the local time of day unless given.
        """
        super().__init__(stream, live=live)
        self._place = place or _time_of_day
        self._last: tuple[str, str] | None = None

    def show(self, answer: Answer) -> bool:
        """Write an answer that differs from the one before."""
        now = (answer.source, answer.label)
        if now != self._last:
            self._last = now
            self._put(
                f"{self._place(answer)}  {100 * answer.probability:5.1f} %  {answer.age_ms:6.1f} ms  "
                f"{answer.label}"
            )
        return True


def _time_of_day(answer: Answer) -> str:
    return time.strftime("%H:%M:%S", time.localtime(answer.time))

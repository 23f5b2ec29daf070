"""Progress on stderr: a live bar on a terminal, a plain line now and then elsewhere."""

import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import Protocol, Self, TypeVar

from .hiding import hide

Moved = TypeVar("Moved")
Result = TypeVar("Result")

# Rich lines in a log: often enough to see life, seldom enough to read.
_LINE_EVERY_S = 10.0

# What ends before a person wonders is not worth a line.
_SILENT_S = 2.0

# Shows for how long something has been at work, until its standard input ends. ONNX Runtime stops all of Python's
# threads while it compiles a graph, so that this has to be another process; it ends with the one that started it.
_TICKER = """
import sys, threading, time
title, live, first, every = sys.argv[1], sys.argv[2] == "live", float(sys.argv[3]), float(sys.argv[4])
begun, ended = time.monotonic(), threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
wait = first
while not ended.wait(wait):
    text = f"{title}: {time.monotonic() - begun:.0f} s"
    print("\\r" + text if live else text, end="" if live else "\\n", file=sys.stderr, flush=True)
    wait = every
if live and wait != first:
    print("\\r\\x1b[K", end="", file=sys.stderr, flush=True)
"""


class Advance(Protocol):
    """Moves a progress display on by *steps*, with an optional note about what has just been reached."""

    def __call__(self, steps: int = 1, note: str = "") -> None: ...


@contextmanager
def progress(title: str, *, total: int, unit: str, quiet: bool = False) -> Iterator[Advance]:
    """Show how far a piece of work is, on stderr.

    Args:
        title: What is being done.
        total: How many steps there are.
        unit: What one step is, in the plural.
        quiet: Show nothing.
    """
    if quiet:
        yield lambda steps=1, note="": None
    elif sys.stderr.isatty():
        with _bar(title, total=total, unit=unit) as advance:
            yield advance
    else:
        yield _lines(title, total=total, unit=unit)


@contextmanager
def _bar(title: str, *, total: int, unit: str) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}"),
    )
    # Rich sends what is printed meanwhile through its own console, to keep the bar whole. That console is stderr, so
    # answers on their way to a file or pipe must not take that way.
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=sys.stdout.isatty()) as bar:
        task = bar.add_task(title, total=total, note="")

        def advance(steps: int = 1, note: str = "") -> None:
            if note:
                bar.update(task, advance=steps, note=note)
            else:
                bar.update(task, advance=steps)

        yield advance


@contextmanager
def working(title: str, *, quiet: bool = False, silent_s: float = _SILENT_S) -> Iterator[None]:
    """Show on stderr for how long something has been at work, even where Python itself stands still meanwhile.

    Args:
        title: What is being done.
        quiet: Show nothing.
        silent_s: What ends sooner is not shown.
    """
    begun = time.monotonic()
    with ExitStack() as stack:
        # A program with Python inside has no interpreter of its own; it sees the last line alone.
        if not quiet and sys.executable:
            stack.enter_context(_ticking(title, silent_s))
        yield
    took = time.monotonic() - begun
    if took >= silent_s:
        note(f"{title}: done in {took:.1f} s", quiet=quiet)


@contextmanager
def _ticking(title: str, first_s: float) -> Iterator[None]:
    live = sys.stderr.isatty()
    command = [sys.executable, "-I", "-S", "-c", _TICKER, title, "live" if live else "lines"]
    # A second is what a clock on a screen shows.
    command += [str(first_s), str(1.0 if live else _LINE_EVERY_S)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        assert child.stdin is not None
        with suppress(OSError):
            child.stdin.close()
        child.wait()


class Stages:
    """Progress of work whose stages are told as it goes; one display at a time, on stderr."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._stage = ""
        self._done = 0
        self._advance: Advance | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def show(self, stage: str, done: int, total: int) -> None:
        """Show that a stage has come to *done* of *total*; a new stage ends the one before."""
        if stage != self._stage or self._advance is None:
            self.close()
            self._stage, self._done = stage, 0
            self._advance = self._stack.enter_context(
                progress(stage, total=total, unit="", quiet=self._quiet)
            )
        if done > self._done:
            self._advance(done - self._done)
            self._done = done

    def follow(
        self, work: Generator[Moved, None, Result], place: Callable[[Moved], tuple[str, int, int]]
    ) -> Result:
        """Show work to its end, and give what it returns.

        Args:
            work: It yields whenever it has moved on.
            place: Tells the stage, what is done of it, and its total, as `show` takes them.
        """
        while True:
            try:
                moved = next(work)
            except StopIteration as end:
                result: Result = end.value
                return result
            self.show(*place(moved))

    def close(self) -> None:
        """End the stage that is shown."""
        self._stack.close()
        self._advance = None


def answer(line: str) -> None:
    """Print an answer on stdout at once; on a terminal that shows a bar, above the bar.

    ``typer.echo`` would look past what Rich puts in the place of ``sys.stdout``, and write into the bar.
    """
    print(line, flush=True)


def note(line: str, *, quiet: bool = False) -> None:
    """Say something on stderr, beside the answers on stdout."""
    if not quiet:
        print(hide(line, sys.argv[1:]), file=sys.stderr, flush=True)


def _lines(title: str, *, total: int, unit: str) -> Callable[..., None]:
    done, shown = 0, time.monotonic()

    def advance(steps: int = 1, note: str = "") -> None:
        nonlocal done, shown
        done += steps
        now = time.monotonic()
        if done >= total or now - shown >= _LINE_EVERY_S:
            shown = now
            unit_text, note_text = f" {unit}" if unit else "", f", {note}" if note else ""
            print(f"{title}: {done}/{total}{unit_text}{note_text}", file=sys.stderr, flush=True)

    return advance

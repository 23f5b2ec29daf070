"""Progress on stderr: a live bar on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Protocol, Self

# Rich lines in a log: often enough to see life, seldom enough to read.
_LINE_EVERY_S = 10.0


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
        print(line, file=sys.stderr, flush=True)


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

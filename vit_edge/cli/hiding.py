"""Keeps credentials that stand on the command line out of what is said of it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from typer.core import TyperCommand, TyperGroup


def hide(text: str, arguments: Sequence[str]) -> str:
    """Give a text in which addresses among the arguments are repeated without their credentials.

    A path's form of them, too: one that came where a file's name belongs.

    >>> hide("there is no file rtsp:/me:secret@host/1", ["camera", "rtsp://me:secret@host/1"])
    'there is no file rtsp://host/1'
    """
    from ..runtime.address import redact, redact_text, scheme_of

    for argument in sorted(arguments, key=len, reverse=True):
        if ":" in argument:
            address = scheme_of(argument.strip()) is not None
            shown = redact(argument.strip()) if address else redact_text(argument)
            text = text.replace(argument, shown).replace(str(Path(argument)), shown)
    return text


@contextmanager
def _hidden(arguments: Sequence[str]) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # Typer's own errors, whose class lies elsewhere in each of its versions.
        if isinstance(message := getattr(error, "message", None), str):
            vars(error)["message"] = hide(message, arguments)
        raise


class Command(TyperCommand):
    """A command that repeats no credentials where it is used wrongly."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse, as ever."""
        with _hidden(tuple(args)):
            return super().parse_args(ctx, args)


class Group(TyperGroup):
    """Likewise, all commands."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command, as ever."""
        with _hidden(tuple(args)):
            return super().resolve_command(ctx, args)

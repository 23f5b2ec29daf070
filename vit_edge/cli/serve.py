"""The live page on the command line: ``--serve`` with or without an address, and the token that it needs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import OptionError

if TYPE_CHECKING:
    from ..page import PageSink
    from ..runtime.classifier import Classifier

OPTION = "--serve"


def complete(arguments: Sequence[str]) -> list[str]:
    """Give ``--serve`` its usual address where none follows: Typer knows no option whose value may be absent.

    >>> complete(["camera", "m.onnx", "--serve"])
    ['camera', 'm.onnx', '--serve=127.0.0.1:8000']
    >>> complete(["camera", "m.onnx", "--serve", "clip.mp4"])
    ['camera', 'm.onnx', '--serve=127.0.0.1:8000', 'clip.mp4']
    >>> complete(["camera", "m.onnx", "--serve", "0.0.0.0:80", "0"])
    ['camera', 'm.onnx', '--serve', '0.0.0.0:80', '0']
    """
    completed: list[str] = []
    for place, argument in enumerate(arguments):
        if argument == "--":
            return [*completed, *arguments[place:]]
        if argument == OPTION and not _is_address(arguments[place + 1 : place + 2]):
            from ..page import DEFAULT_ADDRESS

            argument = f"{OPTION}={DEFAULT_ADDRESS[0]}:{DEFAULT_ADDRESS[1]}"
        completed.append(argument)
    return completed


def make_page(
    address: str | None, *, token: str | None, classifier: "Classifier", model: Path
) -> "PageSink | None":
    """Make the live page of a model file, where there is to be one; where others can reach it, it has a token."""
    if address is None:
        return None
    from ..page import PageSink, is_local, new_token, parse_address
    from .info import about

    host, port = parse_address(address)
    if not token and not is_local(host):
        token = new_token()
    return PageSink(host, port, token=token or None, about=about(classifier, model))


def _is_address(following: Sequence[str]) -> bool:
    # A number alone is a camera's, and a word a file's; only what has a port is an address.
    if not following or ":" not in following[0]:
        return False
    from ..page import parse_address

    try:
        parse_address(following[0])
    except OptionError:
        # A source with colons of its own, or an address with a mistake in it, which must not be taken for a source.
        return "/" not in following[0]
    return True

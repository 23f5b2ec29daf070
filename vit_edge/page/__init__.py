"""The live page: the newest answers in a browser, for devices without a screen."""

from typing import TYPE_CHECKING, Any

from .address import DEFAULT_ADDRESS, is_local, new_token, parse_address

if TYPE_CHECKING:
    from .sink import PageSink

__all__ = ["DEFAULT_ADDRESS", "PageSink", "is_local", "new_token", "parse_address"]


def __getattr__(name: str) -> Any:
    # The server needs what the extra `page` brings; addresses are read without it.
    if name != "PageSink":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .sink import PageSink

    return PageSink

"""Runs a generator to its end."""

from collections.abc import Generator
from typing import TypeVar

Yielded = TypeVar("Yielded")
Returned = TypeVar("Returned")


def drained(work: Generator[Yielded, None, Returned]) -> tuple[list[Yielded], Returned]:
    """Give what a generator yielded, and what it returned."""
    seen = []
    while True:
        try:
            seen.append(next(work))
        except StopIteration as end:
            return seen, end.value

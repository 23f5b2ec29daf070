"""Writes files that are there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a name beside a file to write to, which takes the file's place at the end of the block.

    A kill at any moment leaves the old file or the new one, and an error the old one alone.

    Args:
        path: The file; its folder exists.

    Raises:
        OSError: It cannot be replaced.
    """
    # Of this process alone, for several may write the same.
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        # Where nothing can be written, nothing can be removed either; the first error tells more.
        with suppress(OSError):
            unfinished.unlink()

"""Sources that are read when a frame is wanted, and whose every frame counts: files, images, pipes, iterators."""

import threading
import time
from collections.abc import Generator, Iterator
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ..frame import Frame
from .source import EndedError, Gap

Pictures = Generator[tuple[str, NDArray[np.uint8]], None, None]
"""Names and pictures, (height, width, 3) uint8 RGB; what it holds it lets go of when it is closed."""


class PulledSource:
    """Gives every picture of a generator, one when asked for one; never sleeps."""

    live = False
    dropped = 0
    gaps: tuple[Gap, ...] = ()

    def __init__(
        self,
        name: str,
        pictures: Pictures,
        *,
        fps: float | None = None,
        closed: threading.Event | None = None,
    ) -> None:
        """Take over a generator.

        Args:
            name: For people; never with credentials.
            pictures: The generator.
            fps: The frames a second that the source says it has.
            closed: Is set by `close`, for a generator that waits meanwhile.
        """
        self.name = name
        self.fps = fps
        self._pictures = pictures
        self._number = 0
        self._closed = closed or threading.Event()
        # Held by whoever runs the generator, which can neither be entered nor closed meanwhile.
        self._running = threading.Lock()

    def __iter__(self) -> Iterator[Frame]:
        while (frame := self._next()) is not None:
            yield frame

    def _next(self) -> Frame | None:
        with self._running:
            found = None if self._closed.is_set() else next(self._pictures, None)
        if found is None or self._closed.is_set():
            self.close()
            return None
        name, image = found
        self._number += 1
        return Frame(image, time.monotonic(), self._number - 1, name)

    def close(self) -> None:
        """Let go of the file, from any thread; iterating then ends after the frame that is being read."""
        self._closed.set()
        # Where another thread is reading, that one closes when it has the frame.
        if self._running.acquire(blocking=False):
            try:
                self._pictures.close()
            finally:
                self._running.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class PulledDevice:
    """A generator of pictures as the device of a live source: read as fast as it gives them."""

    fps: float | None = None

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures
        self._picture: NDArray[np.uint8] | None = None

    def grab(self) -> float:
        """Wait for the next picture."""
        found = next(self._pictures, None)
        if found is None:
            raise EndedError
        self._picture = found[1]
        return time.monotonic()

    def retrieve(self) -> NDArray[np.uint8] | None:
        """Give it."""
        return self._picture

    def to_rgb(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Give it as it is."""
        return picture

    def release(self) -> None:
        """Close the generator."""
        self._pictures.close()

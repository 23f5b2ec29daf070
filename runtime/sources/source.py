"""What a source of frames is to those who use it, and what a device is to the sources."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import SourceError
from ..frame import Frame

_FOURCC_LENGTH = 4


@dataclass(frozen=True, slots=True)
class Gap:
    """A time without frames: from the last one before it to the first one after it, or to now."""

    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class Capture:
    """How frames are taken. A camera takes the nearest that it can, and the log says so where that differs.

    Attributes:
        size: Width and height in pixels; the camera's own choice unless given.
        fps: Frames a second; the camera's own choice unless given.
        fourcc: The four letters of the format between camera and computer, such as ``MJPG`` or ``YUYV``. From
            1280x720 on, MJPG is asked for unless another is given: USB 2 is too slow for more than some 10 raw
            pictures a second.
        live: Whether only the newest frame counts. Cameras and streams are live, files are not, and neither can be
            changed. Standard input and iterators are not live unless asked for: then they are read as fast as they
            deliver, and what is not taken is passed over.
        reconnect: Whether a live source that goes away is opened again; otherwise that is an error.
        stall_s: A live source that gives no frame for so many seconds counts as gone.
        open_s: How many seconds opening may take.
    """

    size: tuple[int, int] | None = None
    fps: float | None = None
    fourcc: str | None = None
    live: bool | None = None
    reconnect: bool = True
    stall_s: float = 5.0
    open_s: float = 10.0

    def __post_init__(self) -> None:
        if self.size is not None and not (len(self.size) == 2 and min(self.size) > 0):
            raise SourceError(
                f"expected a size as width and height in pixels, like 1280x720, got {self.size}"
            )
        if self.fps is not None and not self.fps > 0:
            raise SourceError(f"expected more than 0 frames a second, got {self.fps}")
        if self.fourcc is not None and not (len(self.fourcc) == _FOURCC_LENGTH and self.fourcc.isascii()):
            raise SourceError(
                f"expected the four letters of a format, such as MJPG or YUYV, got {self.fourcc!r}"
            )
        if not (self.stall_s > 0 and self.open_s > 0):
            raise SourceError(f"expected times above 0 s, got stall_s={self.stall_s}, open_s={self.open_s}")


class Source(Protocol):
    """Frames, one after another; a context manager that lets go of what it holds.

    Attributes:
        name: For people; never with credentials.
        live: Whether only the newest frame counts, rather than every one.
        fps: How many frames a second the source says it has; None where it doesn't.
        dropped: How many frames of a live source have been passed over so far.
        gaps: The times without frames so far.
    """

    @property
    def name(self) -> str: ...
    @property
    def live(self) -> bool: ...
    @property
    def fps(self) -> float | None: ...
    @property
    def dropped(self) -> int: ...
    @property
    def gaps(self) -> tuple[Gap, ...]: ...

    def __iter__(self) -> Iterator[Frame]: ...

    def close(self) -> None:
        """Let go of the device or file, from any thread; iterating then ends within a second."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *error: object) -> None: ...


class Device(Protocol):
    """What a live source holds open; its calls come from one thread, and each may take its time."""

    @property
    def fps(self) -> float | None: ...

    def grab(self) -> float:
        """Wait for the next picture and give its time of capture.

        Raises:
            GoneError: There will be none.
            EndedError: All have been given.
        """

    def retrieve(self) -> NDArray[Any] | None:
        """Give the picture that was grabbed last, as the device has it; None where it is damaged."""

    def to_rgb(self, picture: NDArray[Any]) -> NDArray[np.uint8] | None:
        """Give a retrieved picture as (height, width, 3) uint8, RGB; None where it is damaged.

        This one is called from any thread, also when the device has been let go of.
        """

    def release(self) -> None:
        """Let go of it."""


class GoneError(Exception):
    """A device went away; the text says how."""


class EndedError(Exception):
    """A source has no more frames, as it should."""

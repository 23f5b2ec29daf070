"""A picture from a source, with the moment at which it was taken."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A picture, and where and when it was taken.

    Attributes:
        image: (height, width, 3) uint8, RGB, 0..255.
        captured_s: When it was taken, as `time.monotonic` tells the time, seconds: by the driver's own stamp where it
            gives one, else when the picture was handed over.
        number: Its place in the source, from 0; frames that were passed over count.
        name: Where it comes from, for people: a file's name, ``camera 0``, an address without its credentials.
    """

    image: NDArray[np.uint8]
    captured_s: float
    number: int
    name: str


def capture_time(stamp_s: float, now_s: float) -> float:
    """Give when a picture was taken: by its stamp, or *now_s* where that cannot be the time.

    Args:
        stamp_s: What the driver says, seconds: some stamp by another clock than `time.monotonic`, or not at all.
        now_s: When the picture was handed over, as `time.monotonic` tells the time, seconds.
    """
    return stamp_s if now_s - 1 < stamp_s <= now_s else now_s

"""Tells a scene that stands still, by a small picture of it."""

import cv2
import numpy as np
from numpy.typing import NDArray

# So small a picture averages a sensor's noise away, and a hand at the frame's edge still fills a cell of it.
_SIZE = (32, 24)

STILL_LEVEL = 6.0
"""The change of a cell, in levels of 0..255, from which on a scene has moved."""


class Scene:
    """Remembers the last frame that counted."""

    def __init__(self, level: float = STILL_LEVEL) -> None:
        """Begin without a memory.

        Args:
            level: How much any cell of the small picture may change, in levels of 0..255.
        """
        self._level = level
        self._kept: NDArray[np.int16] | None = None

    def small(self, image: NDArray[np.uint8]) -> NDArray[np.int16]:
        """Shrink (height, width, 3) uint8 RGB to (24, 32, 3) int16 RGB, 0..255."""
        return np.asarray(cv2.resize(image, _SIZE, interpolation=cv2.INTER_AREA), np.int16)

    def moved(self, small: NDArray[np.int16]) -> bool:
        """Tell whether a small picture differs from the one that was kept; the first always does."""
        return self._kept is None or float(np.abs(small - self._kept).max()) > self._level

    def keep(self, small: NDArray[np.int16]) -> None:
        """Remember a small picture."""
        self._kept = small

"""What a benchmark classifies: image files in memory, so that no disk is measured."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..data import list_images
from ..runtime.image import read_image

# A camera's usual frame, and the quality that cameras and phones compress with.
_WIDTH, _HEIGHT = 1280, 720
_QUALITY = 90

# So many of a folder's images are taken: enough for a variety of sizes, and little memory.
_MOST = 32


@dataclass(frozen=True, slots=True)
class Pictures:
    """Image files in memory.

    Attributes:
        name: Where they come from, for people.
        files: Their bytes.
        sizes: The width and height of each in pixels.
    """

    name: str
    files: tuple[bytes, ...]
    sizes: tuple[tuple[int, int], ...]

    def batch(self, number: int, size: int) -> list[bytes]:
        """Give the files of a call, which go on where those of the call before ended, around and around."""
        first = number * size
        return [self.files[place % len(self.files)] for place in range(first, first + size)]

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, ready for JSON."""
        return {
            "name": self.name,
            "count": len(self.files),
            "bytes": sum(map(len, self.files)),
            "sizes": sorted({f"{width}x{height}" for width, height in self.sizes}),
        }


def made_pictures() -> Pictures:
    """Make one picture as a camera would give it, the same on every device: a JPEG of 1280x720 pixels."""
    encoded = cv2.imencode(".jpg", _scene()[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1]
    return Pictures("a made picture", (encoded.tobytes(),), ((_WIDTH, _HEIGHT),))


def pictures_in(folder: Path) -> Pictures:
    """Take images of a folder, at most 32, evenly spread over it.

    Raises:
        DataError: There is no such folder, or no image in it.
        ImageError: One of them cannot be read.
    """
    paths = list_images(folder)
    step = max(1, len(paths) // _MOST)
    chosen = tuple(islice(paths, 0, None, step))[:_MOST]
    shapes = [read_image(path).shape for path in chosen]
    return Pictures(
        str(folder),
        tuple(path.read_bytes() for path in chosen),
        tuple((width, height) for height, width, _ in shapes),
    )


def _scene() -> NDArray[np.uint8]:
    """Paint a sky, a ground and things of many sizes, with a sensor's noise: (height, width, 3) uint8 RGB.

    How long a JPEG takes to decode depends on its detail; this one has about a photograph's bits per pixel.
    """
    random = np.random.default_rng(7)
    rows = np.linspace(0, 1, _HEIGHT)[:, None, None]
    scene = (1 - rows) * np.array([110, 160, 230]) + rows * np.array([90, 110, 60])
    image = np.ascontiguousarray(np.broadcast_to(scene, (_HEIGHT, _WIDTH, 3)), np.uint8)
    for _ in range(400):
        centre = (int(random.integers(_WIDTH)), int(_HEIGHT * random.beta(3, 2)))
        axes = tuple(int(axis) for axis in random.exponential(26, 2) + 2)
        colour = tuple(int(value) for value in random.integers(0, 256, 3))
        cv2.ellipse(image, centre, axes, float(random.uniform(0, 180)), 0, 360, colour, -1, cv2.LINE_AA)
    coarse = random.normal(0, 14, (_HEIGHT // 4, _WIDTH // 4, 3)).astype(np.float32)
    noise = cv2.resize(coarse, (_WIDTH, _HEIGHT)) + random.normal(0, 3, image.shape)
    return np.asarray(np.clip(image + noise, 0, 255), np.uint8)

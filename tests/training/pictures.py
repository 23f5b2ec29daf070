"""Makes folders of small pictures that a network can tell apart after a few steps."""

from pathlib import Path

import cv2
import numpy as np

# Blue, green, red, as OpenCV writes them.
COLOURS = {"blue": (220, 40, 40), "green": (40, 200, 40), "red": (40, 40, 220)}


def paint(
    folder: Path, *, each: int = 8, names: tuple[str, ...] = ("blue", "green", "red"), seed: int = 0
) -> Path:
    """Write *each* noisy pictures of every named colour, 12x10 pixels, one folder per colour."""
    generator = np.random.default_rng(seed)
    for name in names:
        (folder / name).mkdir(parents=True)
        for index in range(each):
            noise = generator.integers(-30, 30, (10, 12, 3))
            picture = np.clip(noise + COLOURS[name], 0, 255).astype(np.uint8)
            cv2.imwrite(str(folder / name / f"{index}.png"), picture)
    return folder

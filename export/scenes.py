"""Paints pictures by code: textured scenes that nobody owns, varied enough to get varied answers."""

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

# At this height, in pixels, the patterns are as fine as they are painted; a larger scene has the same ones, larger.
_HEIGHT = 248


def scene(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """Paint a scene: a sky, a ground, and up to five lit things with a pattern on them.

    Args:
        seed: Which one.
        height: In pixels.
        width: In pixels.

    Returns:
        (height, width, 3) uint8, RGB, 0..255: the same for the same arguments, and at another size of the same shape
        the same scene.
    """
    random = np.random.default_rng(seed)
    y, x = (axis.astype(np.float32) for axis in np.mgrid[:height, :width])
    sky = _mix(_clouds(random, height, width, random.uniform(2, 12)), _colour(random), _colour(random, 0.4))
    texture = 0.7 * _clouds(random, height, width, random.uniform(4, 40)) + 0.3 * _pattern(
        random, x, y, height
    )
    ground = _mix(texture, _colour(random, 0.0, 0.5), _colour(random, 0.2, 0.9))
    hills = (_noise(random, height, width, random.uniform(2, 9)) - 0.5) * height * random.uniform(0, 0.6)
    horizon = height * random.uniform(-0.2, 0.9) + hills
    picture = np.where((y > horizon)[..., None], ground, sky)
    for _ in range(random.integers(6)):
        picture = _with_thing(random, picture, x, y)
    return np.asarray((np.clip(picture, 0, 1) * 255).round(), np.uint8)


def _with_thing(
    random: Generator, picture: NDArray[np.float32], x: NDArray[np.float32], y: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Put an ellipse, a diamond or a rounded box into a picture, turned somehow, lit from its upper left."""
    height, width = picture.shape[:2]
    across = x - random.uniform(0.15, 0.85) * width
    down = y - random.uniform(0.2, 0.8) * height
    radius, stretch = random.uniform(0.08, 0.4) * height, random.uniform(0.4, 2.5)
    turn = random.uniform(0, np.pi)
    u = (across * np.cos(turn) + down * np.sin(turn)) / stretch
    v = down * np.cos(turn) - across * np.sin(turn)
    power = random.choice([1.0, 2.0, 8.0])
    distance = (np.abs(u) ** power + np.abs(v) ** power) ** (1 / power)
    skin = random.uniform(0.1, 0.9) * _pattern(random, u, v, height)
    skin = _mix(skin + 0.4 * _clouds(random, height, width, random.uniform(5, 20)), *_colours(random))
    spot = ((u + 0.4 * radius) ** 2 + (v + 0.4 * radius) ** 2) / (2.5 * radius**2)
    # An edge as wide as a pixel and a half.
    cover = np.clip((radius - distance) / 1.5 + 0.5, 0, 1)[..., None]
    return np.asarray(
        picture * (1 - cover) + skin * np.clip(1.1 - spot, 0.15, 1)[..., None] * cover, np.float32
    )


def _pattern(
    random: Generator, u: NDArray[np.float32], v: NDArray[np.float32], height: int
) -> NDArray[np.float32]:
    """Give stripes, waves, rings, checks, a net, or nothing, 0..1."""
    kind, pitch = random.integers(6), random.uniform(0.05, 0.5) * _HEIGHT / height
    turn = random.uniform(0, np.pi)
    u, v = u * np.float32(pitch), v * np.float32(pitch)
    patterns = (
        lambda: 0.5 + 0.5 * np.sin(u * np.cos(turn) + v * np.sin(turn)),
        lambda: 0.5 + 0.5 * np.sin(u) * np.sin(v),
        lambda: 0.5 + 0.5 * np.sin(np.hypot(u, v)),
        lambda: np.sin(u) * np.sin(v) > 0,
        lambda: np.maximum(np.abs(np.sin(u / 2)), np.abs(np.sin((v + u / 2) / 2))) ** 6,
        lambda: np.zeros_like(u),
    )
    return np.asarray(patterns[kind](), np.float32)


def _clouds(random: Generator, height: int, width: int, cells: float) -> NDArray[np.float32]:
    """Add up noise, three times, each finer and weaker than the one before, to 0..1."""
    total = sum(0.55**octave * _noise(random, height, width, cells * 2**octave) for octave in range(3))
    return np.asarray(total / sum(0.55**octave for octave in range(3)), np.float32)


def _noise(random: Generator, height: int, width: int, cells: float) -> NDArray[np.float32]:
    """Give smooth noise with so many cells in a row, 0..1."""
    columns, rows = round(cells) + 1, round(cells * height / width) + 1
    grid = random.random((rows, columns), np.float32)
    return np.asarray(cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def _mix(share: NDArray[np.float32], *colours: NDArray[np.float32]) -> NDArray[np.float32]:
    first, second = colours
    share = np.clip(share, 0, 1)[..., None]
    return first * (1 - share) + second * share


def _colours(random: Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return _colour(random), _colour(random)


def _colour(random: Generator, low: float = 0.0, high: float = 1.0) -> NDArray[np.float32]:
    return random.uniform(low, high, 3).astype(np.float32)

"""A scene that stands still is told from one that moves."""

import numpy as np
import pytest

from vit_edge.runtime.still import Scene


def noisy(seed: int, level: float = 4.0) -> np.ndarray:
    """A gray wall as a cheap sensor gives it: (480, 640, 3) uint8."""
    noise = np.random.default_rng(seed).normal(0, level, (480, 640, 3))
    return np.clip(128 + noise, 0, 255).astype(np.uint8)


@pytest.fixture
def scene() -> Scene:
    scene = Scene()
    scene.keep(scene.small(noisy(0)))
    return scene


def test_the_first_frame_has_moved() -> None:
    """There is no answer yet that could be repeated."""
    scene = Scene()
    assert scene.moved(scene.small(noisy(0)))


def test_noise_is_no_motion(scene: Scene) -> None:
    """Every sensor has it, and the model would never rest."""
    assert not any(scene.moved(scene.small(noisy(seed))) for seed in range(1, 6))


def test_a_small_thing_that_comes_in_is_motion(scene: Scene) -> None:
    """A mean over the whole picture would miss a cat in its corner."""
    picture = noisy(1)
    picture[:40, :40] = (200, 60, 60)
    assert scene.moved(scene.small(picture))


def test_a_change_of_colour_alone_is_motion(scene: Scene) -> None:
    """Traffic lights change so; in gray both are alike."""
    picture = noisy(1)
    red = np.array([158, 113, 128])  # 0.299 R + 0.587 G + 0.114 B is the wall's 128
    picture[:] = red
    assert scene.moved(scene.small(picture))


def test_a_slow_change_adds_up(scene: Scene) -> None:
    """Dusk takes an hour; compared with the frame before it would never be seen."""
    moved = []
    for step in range(12):
        picture = np.full((480, 640, 3), 128 + step, np.uint8)
        moved.append(scene.moved(scene.small(picture)))
    assert not moved[1]
    assert moved[11]

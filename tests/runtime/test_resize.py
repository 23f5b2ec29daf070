"""Resizing gives Pillow's bytes."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vit_edge.errors import ImageError
from vit_edge.runtime.resize import Interpolation, resize

from ..shared import SHARED, needs_shared

INTERPOLATIONS = get_args(Interpolation)


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Random bytes, with areas of pure black and white, where a filter overshoots and must be clipped."""
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image[: height // 3] = np.where(image[: height // 3] > 127, 255, 0)
    return image


def pillow(image: NDArray[np.uint8], size: tuple[int, int], interpolation: str) -> NDArray[np.uint8]:
    filters = Image.Resampling
    return np.asarray(Image.fromarray(image).resize(size[::-1], filters[interpolation.upper()]))


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ((720, 1280), (248, 441)),  # a camera's frame, long strips
        ((31, 47), (97, 101)),  # enlarging
        ((64, 64), (32, 32)),  # half: every weight is a round number, and sums end in exact halves
        ((32, 32), (64, 64)),
        ((100, 33), (50, 66)),  # one axis shrinks, the other grows
        ((57, 91), (57, 20)),  # one axis stays, and its pass is left out
        ((57, 91), (20, 91)),
        ((57, 91), (57, 91)),
        ((1, 1), (7, 5)),
        ((1, 300), (9, 2)),
        ((300, 1), (2, 9)),
        ((5, 4), (1, 1)),
        ((2000, 3), (2, 700)),  # ratios of a thousand
        ((3, 5001), (248, 5)),
        ((900, 300), (248, 82)),  # a tall image, whose height Pillow resamples first
        ((900, 300), (900, 82)),
    ],
)
def test_every_filter_gives_pillows_bytes(
    interpolation: Interpolation, inputs: tuple[int, int], outputs: tuple[int, int]
) -> None:
    """Networks were trained on Pillow's bytes; one wrong rounding is another resize."""
    image = noise(*inputs)
    np.testing.assert_array_equal(
        resize(image, outputs, interpolation=interpolation), pillow(image, outputs, interpolation)
    )


@pytest.mark.parametrize("seed", range(40))
def test_random_sizes_and_windows_give_pillows_bytes(seed: int) -> None:
    """A window that starts anywhere needs its own first input and its own blocks of weights."""
    random = np.random.default_rng(seed)
    inputs = (int(random.integers(1, 400)), int(random.integers(1, 400)))
    outputs = (int(random.integers(1, 300)), int(random.integers(1, 300)))
    interpolation = INTERPOLATIONS[seed % len(INTERPOLATIONS)]
    top, left = int(random.integers(outputs[0])), int(random.integers(outputs[1]))
    height = int(random.integers(1, outputs[0] - top + 1))
    width = int(random.integers(1, outputs[1] - left + 1))
    image = noise(*inputs, seed)
    np.testing.assert_array_equal(
        resize(image, outputs, interpolation=interpolation, window=(top, left, height, width)),
        pillow(image, outputs, interpolation)[top : top + height, left : left + width],
    )


def test_an_image_larger_than_a_strip_gives_pillows_bytes() -> None:
    """A photo of 12 megapixels is worked on in strips of a few rows; none may be lost at the seams."""
    image = np.tile(noise(300, 400), (10, 10, 1))
    np.testing.assert_array_equal(resize(image, (248, 330)), pillow(image, (248, 330), "bicubic"))


@pytest.mark.parametrize(
    "view",
    [
        np.s_[:, :, ::-1],
        np.s_[::-1],
        np.s_[:, ::-1],
        np.s_[::2, 1::3],
        np.s_[5:50, 7:40],
    ],
    ids=["channels reversed", "rows reversed", "columns reversed", "stepped", "cut out"],
)
def test_a_view_of_an_array_is_resized_like_its_copy(view: tuple[slice, ...] | slice) -> None:
    """``frame[..., ::-1]`` is how people turn OpenCV's BGR to RGB, and it is not contiguous."""
    image = noise(120, 160)[view]
    np.testing.assert_array_equal(resize(image, (40, 50)), resize(image.copy(), (40, 50)))


def test_the_image_given_is_left_as_it_was() -> None:
    """The caller still shows or stores the frame."""
    image = noise(60, 80)
    before = image.copy()
    resize(image, (30, 40))
    np.testing.assert_array_equal(image, before)


@needs_shared
def test_real_photos_give_pillows_bytes() -> None:
    """Real images have the edges and flat skies that noise lacks."""
    paths = sorted((SHARED / "data" / "calibration250").glob("*.JPEG"))[::25]
    assert len(paths) == 10
    for path in paths:
        image = read(path)
        for interpolation in INTERPOLATIONS:
            np.testing.assert_array_equal(
                resize(image, (248, 300), interpolation=interpolation),
                pillow(image, (248, 300), interpolation),
            )


def read(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
    ],
    ids=["gray", "RGBA", "float", "empty"],
)
def test_what_is_no_colour_image_of_bytes_is_refused(image: NDArray[np.uint8]) -> None:
    """A float image would be resized to nonsense without a word."""
    with pytest.raises(
        ImageError, match=r"expected an image of shape \(height, width, 3\) and dtype uint8, got"
    ):
        resize(image, (4, 4))


@pytest.mark.parametrize("window", [(0, 0, 5, 4), (-1, 0, 2, 2), (0, 3, 2, 2), (0, 0, 0, 2)])
def test_a_window_outside_the_result_is_refused(window: tuple[int, int, int, int]) -> None:
    """There are no pixels there, and none are made up."""
    with pytest.raises(ImageError, match="expected a window within height 4 and width 4"):
        resize(noise(8, 8), (4, 4), window=window)

"""What is classified is the same on every run, and comes from memory."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from vit_edge.bench import Pictures, made_pictures, pictures_in
from vit_edge.errors import DataError, ImageError
from vit_edge.runtime.image import read_image

from ..runtime.onnx_writer import flat_colour, save_picture


def test_the_made_picture_is_a_cameras_frame_and_always_the_same() -> None:
    """Figures of two runs are compared, so they must not come from two pictures."""
    pictures = made_pictures()
    assert pictures == made_pictures()
    (file,) = pictures.files
    assert file.startswith(b"\xff\xd8\xff")
    assert read_image(file).shape == (720, 1280, 3)
    # A photograph at this quality takes one to four bits a pixel; a flat picture would decode too fast.
    assert 1 < 8 * len(file) / (1280 * 720) < 4
    assert pictures.to_dict() == {
        "name": "a made picture",
        "count": 1,
        "bytes": len(file),
        "sizes": ["1280x720"],
    }


def test_calls_go_around_the_images() -> None:
    """One image over and over would stay in the processor's cache."""
    pictures = Pictures("three", (b"a", b"b", b"c"), ((1, 1),) * 3)
    assert [pictures.batch(number, 2) for number in range(3)] == [[b"a", b"b"], [b"c", b"a"], [b"b", b"c"]]
    assert pictures.batch(0, 4) == [b"a", b"b", b"c", b"a"]


def test_a_folders_images_are_taken_evenly(tmp_path: Path) -> None:
    """The first 32 of a sorted folder may all be of one class and camera."""
    for number in range(70):
        save_picture(tmp_path / f"{number:02}.png", np.full((4, 6 + number % 2, 3), number, np.uint8))
    pictures = pictures_in(tmp_path)
    levels = [int(read_image(file)[0, 0, 0]) for file in pictures.files]
    assert levels == list(range(0, 64, 2))
    assert pictures.sizes == ((6, 4),) * 32
    assert pictures.name == str(tmp_path)


def test_a_folder_without_images_or_with_a_broken_one_is_refused(tmp_path: Path) -> None:
    """Before anything is measured."""
    with pytest.raises(DataError, match="expected images"):
        pictures_in(tmp_path)
    save_picture(tmp_path / "fine.png", flat_colour("red"))
    encoded = cv2.imencode(".png", flat_colour("red"))[1].tobytes()
    (tmp_path / "broken.png").write_bytes(encoded[: len(encoded) // 2])
    with pytest.raises(ImageError, match=r"broken\.png is truncated"):
        pictures_in(tmp_path)

"""What is drawn into a frame can be read: the label in any script, its probability, the bars."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

import vit_edge
from vit_edge.runtime import Answer, Score
from vit_edge.runtime.draw import annotate, fit, put_text, spell, text_size

MODERN = hasattr(cv2, "FontFace")


def answer(*labels: str, shape: tuple[int, int] = (480, 640), known: bool = True) -> Answer:
    scores = tuple(Score(label, 0.6 / (place + 1), place) for place, label in enumerate(labels))
    picture = np.full((*shape, 3), 90, np.uint8)
    return Answer(0.0, "x", 0, labels[0], 0.6, scores, 12.0, 0, 9.0, picture, known=known, fps=30.0)


def test_the_frame_itself_is_left_alone() -> None:
    """Other outputs use it at the same time, and what is grabbed for training must be bare."""
    given = answer("cat", "dog")
    picture = annotate(given)
    assert (given.image == 90).all()
    assert picture.shape == given.image.shape
    assert picture.dtype == np.uint8
    assert not np.array_equal(picture, given.image)


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (32, 32), (3, 500), (500, 3), (241, 241), (1080, 1920)])
@pytest.mark.parametrize("label", ["cat", "", "a very long label " * 20, "two\nlines\tand a tab", "猫" * 50])
def test_any_frame_and_any_label_can_be_drawn(shape: tuple[int, int], label: str) -> None:
    """A loop of months must not end with a strange label, or a camera that gives thumbnails."""
    picture = annotate(answer(label, "b", "c", shape=shape))
    factor = -(-240 // shape[0]) if shape[0] < 240 else 1
    assert picture.shape == (factor * shape[0], factor * shape[1], 3)


def ink(text: str) -> np.ndarray:
    picture = np.zeros((60, 400, 3), np.uint8)
    put_text(picture, text, (5, 40), 30, (255, 255, 255))
    return picture


@pytest.mark.skipif(not MODERN, reason="the fonts of OpenCV 4 have ASCII alone")
@pytest.mark.parametrize("text", ["Löwe", "façade", "кошка", "γάτα", "猫", "고양이"])
def test_letters_of_other_scripts_are_drawn_and_not_replaced(text: str) -> None:
    """Half of the world's labels are not ASCII."""
    assert not np.array_equal(ink(text), ink("?" * len(text)))
    assert ink(text).max() == 255


def test_letters_without_a_font_are_spelt() -> None:
    """The fonts of OpenCV 4 would draw two question marks for an umlaut."""
    assert spell("Löwe, façade, Ærø, Łódź, Straße, naïve") == "Lowe, facade, Aero, Lodz, Strasse, naive"
    assert spell("猫") == "?"


def test_the_width_of_a_text_is_that_of_its_ink() -> None:
    """Else a label runs into the numbers beside it."""
    for text in ("cat", "Great Pyrenees", "Löwe"):
        columns = np.flatnonzero(ink(text).max(axis=(0, 2)))
        assert abs(columns.max() - columns.min() - text_size(text, 30)[0]) <= 6


def test_a_long_label_is_cut_to_the_room() -> None:
    """Its beginning tells most."""
    text = fit("German short-haired pointer", 20, 120)
    assert text_size(text, 20)[0] <= 120
    assert text.startswith("German")
    assert text.endswith("…" if MODERN else "...")
    assert fit("cat", 20, 120) == "cat"


def test_an_unknown_looks_different() -> None:
    """From across the room the colour is what one sees."""
    known, unknown = annotate(answer("cat")), annotate(replace(answer("cat"), known=False))
    assert not np.array_equal(known[:40], unknown[:40])


def cut_out(picture: np.ndarray) -> np.ndarray:
    """Give the part of a picture on which there is ink: whatever differs from its last corner."""
    inked = (picture != picture[-1, -1]).any(axis=2)
    rows, columns = np.flatnonzero(inked.any(axis=1)), np.flatnonzero(inked.any(axis=0))
    return picture[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


@pytest.mark.parametrize(
    ("fps", "age_ms", "text"),
    [(30.0, 12.0, "30 fps  12 ms"), (4.26, 1234.4, "4.3 fps  1234 ms"), (0.0, 7.0, "7 ms")],
)
def test_the_rate_and_the_age_stand_at_the_top(fps: float, age_ms: float, text: str) -> None:
    """They tell whether a device keeps up, and one looks at them when it seems not to."""
    picture = annotate(replace(answer("cat"), fps=fps, age_ms=age_ms))
    expected = np.full((48, 400, 3), picture[0, -1], np.uint8)
    put_text(expected, text, (5, 30), 19, (190, 190, 190))
    assert np.array_equal(cut_out(picture[:40, 320:]), cut_out(expected))


def test_a_bar_is_as_long_as_its_probability() -> None:
    """It is the part that people look at."""

    def green(probability: float) -> int:
        scores = (Score("cat", probability, 0),)
        picture = annotate(replace(answer("cat"), top=scores))
        return int(((picture[..., 1] > 180) & (picture[..., 0] < 120)).sum(axis=1).max())

    half, full = green(0.5), green(1.0)
    assert half == pytest.approx(full / 2, abs=2)
    assert full > 60


def test_a_script_that_opencv_4_cannot_draw_becomes_the_number_of_the_class() -> None:
    """A row of question marks says nothing; run with OpenCV's newer functions hidden, as OpenCV 4 lacks them."""
    script = """
import cv2
if hasattr(cv2, "FontFace"):
    del cv2.FontFace
import numpy as np
from vit_edge.runtime import Answer, Score
from vit_edge.runtime import draw
scores = (Score("猫", 0.6, 281), Score("Löwe", 0.2, 7))
answer = Answer(0.0, "x", 0, "猫", 0.6, scores, 12.0, 0, 9.0, np.zeros((480, 640, 3), np.uint8))
print(draw._shown("猫", answer))
print(draw._shown("Löwe", answer))
print(draw.annotate(answer).max())
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={"PYTHONPATH": str(Path(vit_edge.__file__).parents[1]), "PYTHONIOENCODING": "utf-8"},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["class 281", "Löwe", "255"]

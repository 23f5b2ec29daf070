"""Draws an answer into its frame: the label, a bar for each class, answers a second and the frame's age."""

import threading
import unicodedata
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .answer import Answer

Colour = tuple[int, int, int]

_WHITE, _GRAY, _GREEN, _AMBER = (255, 255, 255), (190, 190, 190), (96, 200, 120), (240, 180, 60)

# A picture smaller than this is enlarged first, so that the text can be read.
_LEAST_HEIGHT = 240

# Of the picture's height.
_TITLE, _TEXT, _PAD = 0.06, 0.04, 0.02

# How much of the picture is left where text stands on it.
_SHADE = 0.35

_BARS = 3

# OpenCV 5 draws letters of most scripts; the Hershey fonts of OpenCV 4 have ASCII alone.
_MODERN = hasattr(cv2, "FontFace")
_ELLIPSIS = "…" if _MODERN else "..."

# Letters that no decomposition of Unicode brings to ASCII.
_SPELT = str.maketrans(
    {"ß": "ss", "Æ": "Ae", "æ": "ae", "Ø": "O", "ø": "o", "Œ": "Oe", "œ": "oe", "Ł": "L", "ł": "l"}
    | {"Đ": "D", "đ": "d", "Þ": "Th", "þ": "th", "ð": "d"}
)

_lock = threading.Lock()


def annotate(answer: Answer) -> NDArray[np.uint8]:
    """Draw an answer into a copy of its frame.

    Returns:
        (height, width, 3) uint8, RGB, 0..255; a frame of less than 240 rows is enlarged by a whole number.
    """
    image = answer.image
    if (factor := -(-_LEAST_HEIGHT // image.shape[0])) > 1:
        picture = np.asarray(np.repeat(np.repeat(image, factor, axis=0), factor, axis=1))
    else:
        picture = image.copy()
    height, width = picture.shape[:2]
    pad = max(4, round(_PAD * height))
    size = max(12, round(_TEXT * height))
    _draw_title(picture, answer, pad, max(14, round(_TITLE * height)), size)
    _draw_bars(picture, answer, pad, size, min(width, max(20 * size, width // 2)))
    return picture


def text_size(text: str, size: int) -> tuple[int, int]:
    """Give the width of a text and the height of its letters, in pixels.

    Args:
        text: Any text; what the installed OpenCV cannot draw is spelt in ASCII.
        size: The height of a line.
    """
    if _MODERN:
        with _lock:
            _, _, width, height = cv2.getTextSize((0, 0), text, (0, 0), _font(), size, 400)
        return width, height
    (width, height), _ = cv2.getTextSize(spell(text), *_hershey(size))
    return width, height


def put_text(picture: NDArray[np.uint8], text: str, at: tuple[int, int], size: int, colour: Colour) -> None:
    """Draw a text into a picture.

    Args:
        picture: (height, width, 3) uint8, RGB; changed in place.
        text: Any text; what the installed OpenCV cannot draw is spelt in ASCII.
        at: Where its base line begins, from the left and the top.
        size: The height of a line.
        colour: Red, green, blue.
    """
    if _MODERN:
        with _lock:
            cv2.putText(picture, text, at, colour, _font(), size, 400)
    else:
        font, scale, thickness = _hershey(size)
        cv2.putText(picture, spell(text), at, font, scale, colour, thickness, cv2.LINE_AA)


def spell(text: str) -> str:
    """Spell a text in ASCII for fonts that have nothing else.

    Accents are dropped; what has no such spelling becomes a question mark.

    >>> spell("Löwe, façade, Straße, 猫")
    'Lowe, facade, Strasse, ?'
    """
    apart = unicodedata.normalize("NFKD", text.translate(_SPELT))
    return (
        "".join(letter for letter in apart if not unicodedata.combining(letter))
        .encode("ascii", "replace")
        .decode("ascii")
    )


def _shown(label: str, answer: Answer) -> str:
    """Give a label, or the class's number where the installed OpenCV cannot draw it."""
    if _MODERN or "?" not in spell(label.replace("?", "")):
        return label
    return next((f"class {score.index}" for score in answer.top if score.label == label), label)


def _draw_title(picture: NDArray[np.uint8], answer: Answer, pad: int, title: int, size: int) -> None:
    width = picture.shape[1]
    _shade(picture, 0, 0, width, title + 2 * pad)
    numbers = f"{answer.age_ms:.0f} ms"
    if answer.fps >= 0.05:
        numbers = f"{answer.fps:.{1 if answer.fps < 10 else 0}f} fps  {numbers}"
    base = pad + round(0.8 * title)
    numbers_width, _ = text_size(numbers, size)
    room = width - numbers_width - 3 * pad
    share = f"{100 * answer.probability:.0f} %"
    # Where there is no room for both, the label goes before the numbers.
    if room < width // 2:
        room = width - 2 * pad
    else:
        put_text(picture, numbers, (width - numbers_width - pad, base), size, _GRAY)
    share_width, _ = text_size("  " + share, size)
    label = fit(_shown(answer.label, answer), title, room - share_width)
    colour = _WHITE if answer.known else _AMBER
    put_text(picture, label, (pad, base), title, colour)
    label_width, _ = text_size(label, title)
    put_text(picture, share, (pad + label_width + size // 2, base), size, colour)


def _draw_bars(picture: NDArray[np.uint8], answer: Answer, pad: int, size: int, width: int) -> None:
    scores = answer.top[:_BARS]
    row = size + pad
    top = picture.shape[0] - len(scores) * row - pad
    if top < 4 * pad + size:  # a strip of a picture
        return
    _shade(picture, 0, top, width, picture.shape[0])
    share_width, _ = text_size("100 %", size)
    bar_left, bar_right = width // 2 + pad, width - share_width - 2 * pad
    for place, score in enumerate(scores):
        base = top + pad + place * row + round(0.8 * size)
        put_text(
            picture, fit(_shown(score.label, answer), size, bar_left - 2 * pad), (pad, base), size, _WHITE
        )
        filled = round(score.probability * (bar_right - bar_left))
        low, high = base - round(0.7 * size), base
        cv2.rectangle(picture, (bar_left, low), (bar_right, high), (90, 90, 90), 1)
        cv2.rectangle(picture, (bar_left, low), (bar_left + filled, high), _GREEN, -1)
        put_text(picture, f"{100 * score.probability:.0f} %", (bar_right + pad, base), size, _GRAY)


def fit(text: str, size: int, width: int) -> str:
    """Shorten a text to a width in pixels."""
    # A label is one line, whatever its file holds.
    text = " ".join(text.split())
    if text_size(text, size)[0] <= width:
        return text
    least, most = 0, len(text)
    while least < most:
        middle = (least + most + 1) // 2
        if text_size(text[:middle] + _ELLIPSIS, size)[0] <= width:
            least = middle
        else:
            most = middle - 1
    return text[:least].rstrip() + _ELLIPSIS


def _shade(picture: NDArray[np.uint8], left: int, top: int, right: int, bottom: int) -> None:
    part = picture[top:bottom, left:right]
    cv2.convertScaleAbs(part, part, _SHADE, 0)


@cache
def _font() -> Any:
    return cv2.FontFace("sans")


def _hershey(size: int) -> tuple[int, float, int]:
    thickness = max(1, size // 16)
    # Of a line's height, the letters take seven tenths.
    return (
        cv2.FONT_HERSHEY_SIMPLEX,
        cv2.getFontScaleFromHeight(cv2.FONT_HERSHEY_SIMPLEX, round(0.7 * size), thickness),
        thickness,
    )

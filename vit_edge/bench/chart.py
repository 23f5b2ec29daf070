"""Draws measurements as bars: SVG as text, PNG with OpenCV, since a device has no plotting library."""

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Literal, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import VitEdgeError
from ..runtime.replacing import replacing
from .measure import Row

FORMATS = (".svg", ".png")
"""The endings of the files that `save_chart` writes."""

# Colours that people with any colour vision tell apart (Okabe and Ito 2008).
_STAGES = (("decode", "#56b4e9"), ("preprocess", "#e69f00"), ("inference", "#009e73"))
_INK, _PALE, _GRID = "#222222", "#6b6b6b", "#dddddd"

_WIDTH, _MARGIN, _ROW, _BAR = 960, 24, 44, 20
_TOP, _BOTTOM = 96, 52
_TEXT, _SMALL, _LARGE = 13, 11, 17

# Right of the bars: the room for three columns of figures, and their right edges.
_FIGURES = 210
_COLUMNS = (_WIDTH - _MARGIN - 132, _WIDTH - _MARGIN - 60, _WIDTH - _MARGIN)

# Of a letter's height; an estimate, since SVG has no way to measure text.
_LETTER = 0.58

Anchor = Literal["start", "middle", "end"]


class _Canvas(Protocol):
    def rectangle(self, x: float, y: float, width: float, height: float, colour: str) -> None: ...

    def line(self, x: float, y: float, to_x: float, to_y: float, colour: str, width: float = 1) -> None: ...

    def text(
        self, x: float, y: float, text: str, size: int = _TEXT, colour: str = _INK, anchor: Anchor = "start"
    ) -> None: ...

    def encode(self) -> bytes: ...


def save_chart(path: Path, rows: Sequence[Row], *, title: str, subtitle: str) -> None:
    """Draw a bar for each row: the stages' medians one after the other, and the spread of the whole above them.

    All are times of a call divided by its batch.

    Args:
        path: A new or old file, ending in .svg or .png.
        rows: What was measured.
        title: The headline.
        subtitle: What it was measured on.

    Raises:
        VitEdgeError: The ending is another, or the file cannot be written.
    """
    require_format(path)
    height = _TOP + _ROW * len(rows) + _BOTTOM
    canvas: _Canvas = _Svg(_WIDTH, height) if path.suffix.lower() == ".svg" else _Pixels(_WIDTH, height)
    _draw(canvas, rows, title, subtitle)
    try:
        with replacing(path) as draft:
            draft.write_bytes(canvas.encode())
    except OSError as error:
        raise VitEdgeError(f"{path} cannot be written ({error.strerror}); check the folder") from error


def require_format(path: Path) -> None:
    """Check that a chart can be written to a path, before anything is measured.

    Raises:
        VitEdgeError: The ending is neither .svg nor .png, or there is no such folder.
    """
    if path.suffix.lower() not in FORMATS:
        raise VitEdgeError(f"expected a plot that ends in {' or '.join(FORMATS)}, got {path}")
    if not path.parent.is_dir():
        raise VitEdgeError(f"there is no folder {path.parent} for the plot; make it first")


def _draw(canvas: _Canvas, rows: Sequence[Row], title: str, subtitle: str) -> None:
    labels = [_labels(row) for row in rows]
    widest = max(max(len(name) * _TEXT, len(setting) * _SMALL) for name, setting in labels)
    left = _MARGIN + min(300, int(widest * _LETTER)) + 16
    bottom = _TOP + _ROW * len(rows)
    step, most = _scale(max(_length(row) for row in rows))

    def place(ms: float) -> float:
        return left + (_WIDTH - _FIGURES - left) * ms / most

    canvas.text(_MARGIN, 32, title, _LARGE)
    canvas.text(_MARGIN, 52, subtitle, _SMALL, _PALE)
    _legend(canvas)
    for number in range(round(most / step) + 1):
        x = place(number * step)
        canvas.line(x, _TOP, x, bottom, _GRID)
        canvas.text(x, bottom + 18, f"{number * step:g}", _SMALL, _PALE, "middle")
    canvas.text(place(most / 2), bottom + 38, "milliseconds an image", _SMALL, _PALE, "middle")
    for number, (row, (name, setting)) in enumerate(zip(rows, labels, strict=True)):
        middle = _TOP + _ROW * number + _ROW / 2
        canvas.text(left - 12, middle - 2, name, anchor="end")
        canvas.text(left - 12, middle + 13, setting, _SMALL, _PALE, "end")
        end = 0.0
        for stage, colour in _STAGES:
            start, end = end, end + getattr(row, stage).p50_ms / row.setting.batch
            canvas.rectangle(place(start), middle - _BAR / 2, place(end) - place(start), _BAR, colour)
        whole = [ms / row.setting.batch for ms in _quantiles(row)]
        for ms, half in zip(whole, (8, 5, 5), strict=True):
            canvas.line(place(ms), middle - half, place(ms), middle + half, _INK, 1.5)
        canvas.line(place(whole[0]), middle, place(whole[-1]), middle, _INK, 1.5)
        figures = (f"{whole[0]:.1f}", f"{row.images_per_s:.1f}", f"{row.ratio:.2f}")
        for right, figure in zip(_COLUMNS, figures, strict=True):
            canvas.text(right, middle + 4, figure, anchor="end")


def _legend(canvas: _Canvas) -> None:
    x = float(_MARGIN)
    for stage, colour in _STAGES:
        canvas.rectangle(x, 66, 12, 12, colour)
        canvas.text(x + 18, 76, stage, _SMALL)
        x += 18 + len(stage) * _SMALL * _LETTER + 24
    canvas.line(x, 72, x + 24, 72, _INK, 1.5)
    for tick, half in ((0, 6), (16, 4), (24, 4)):
        canvas.line(x + tick, 72 - half, x + tick, 72 + half, _INK, 1.5)
    canvas.text(x + 32, 76, "end to end: p50, p90, p99", _SMALL)
    for right, heading in zip(_COLUMNS, ("ms", "images/s", "ratio"), strict=True):
        canvas.text(right, 76, heading, _SMALL, _PALE, "end")


def _labels(row: Row) -> tuple[str, str]:
    """Give a row's two lines: its model and its setting."""
    setting = row.setting
    parts = [setting.provider, f"{setting.threads} thread{'s' if setting.threads != 1 else ''}"]
    if setting.batch > 1:
        parts.append(f"batch {setting.batch}")
    if setting.concurrency > 1:
        parts.append(f"{setting.concurrency} at once")
    name = row.model.stem
    return (name if len(name) <= 36 else f"{name[:17]}..{name[-17:]}"), ", ".join(parts)


def _length(row: Row) -> float:
    stages: float = sum(getattr(row, stage).p50_ms for stage, _ in _STAGES)
    return max(stages, *_quantiles(row)) / row.setting.batch


def _quantiles(row: Row) -> tuple[float, float, float]:
    return row.end_to_end.p50_ms, row.end_to_end.p90_ms, row.end_to_end.p99_ms


def _scale(largest: float) -> tuple[float, float]:
    """Give the distance of about eight round marks, and the last of them.

    >>> _scale(13.2)
    (2.0, 14.0)
    """
    rough = largest / 8
    power: float = 10.0 ** math.floor(math.log10(rough))
    step = power * min(factor for factor in (1, 2, 5, 10) if factor * power >= rough * 0.99)
    return step, math.ceil(largest / step) * step


class _Svg:
    def __init__(self, width: int, height: int) -> None:
        self._size = (width, height)
        self._parts = [f'<rect width="{width}" height="{height}" fill="#ffffff"/>']

    def rectangle(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        self._parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'
        )

    def line(self, x: float, y: float, to_x: float, to_y: float, colour: str, width: float = 1) -> None:
        self._parts.append(
            f'<path d="M{x:.1f} {y:.1f}L{to_x:.1f} {to_y:.1f}" stroke="{colour}" stroke-width="{width}"/>'
        )

    def text(
        self, x: float, y: float, text: str, size: int = _TEXT, colour: str = _INK, anchor: Anchor = "start"
    ) -> None:
        self._parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" text-anchor="{anchor}" '
            f'xml:space="preserve">{escape(text)}</text>'
        )

    def encode(self) -> bytes:
        width, height = self._size
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif">'
        )
        return "\n".join((head, *self._parts, "</svg>\n")).encode()


class _Pixels:
    # Twice the size, for sharp text on today's screens.
    _ZOOM = 2
    _FONT = cv2.FONT_HERSHEY_SIMPLEX

    def __init__(self, width: int, height: int) -> None:
        self._image: NDArray[np.uint8] = np.full((height * self._ZOOM, width * self._ZOOM, 3), 255, np.uint8)

    def rectangle(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        corner, other = self._point(x, y), self._point(x + width, y + height)
        if other[0] > corner[0]:
            cv2.rectangle(self._image, corner, (other[0] - 1, other[1] - 1), _bgr(colour), cv2.FILLED)

    def line(self, x: float, y: float, to_x: float, to_y: float, colour: str, width: float = 1) -> None:
        thick = round(width * self._ZOOM)
        cv2.line(self._image, self._point(x, y), self._point(to_x, to_y), _bgr(colour), thick)

    def text(
        self, x: float, y: float, text: str, size: int = _TEXT, colour: str = _INK, anchor: Anchor = "start"
    ) -> None:
        # The height of a capital letter is about seven tenths of a font's size.
        scale = cv2.getFontScaleFromHeight(self._FONT, round(size * 0.7 * self._ZOOM), self._ZOOM)
        (width, _), _ = cv2.getTextSize(text, self._FONT, scale, self._ZOOM)
        left, base = self._point(x, y)
        shift = {"start": 0, "middle": width // 2, "end": width}[anchor]
        place = (left - shift, base)
        cv2.putText(self._image, text, place, self._FONT, scale, _bgr(colour), self._ZOOM, cv2.LINE_AA)

    def encode(self) -> bytes:
        encoded: bytes = cv2.imencode(".png", self._image)[1].tobytes()
        return encoded

    def _point(self, x: float, y: float) -> tuple[int, int]:
        return round(x * self._ZOOM), round(y * self._ZOOM)


def _bgr(colour: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return blue, green, red

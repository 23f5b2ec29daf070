"""Antialiased resizing that gives Pillow's bytes, in numpy and OpenCV, at less than Pillow's time.

Networks are trained on images that Pillow resized, and OpenCV's own modes change 1 to 6 % of a ViT's answers
(``benchmarks/preprocess.py`` prints both). Pillow computes in integers (``Resample.c``): an output pixel is a
sum of input pixels times a filter's weights, which are rounded to 22 bits after the point; it goes along one
axis, rounds to 8 bits, and then along the other. In float64 such a weight, an 8-bit pixel and every sum of
their products are exact, in whatever order a machine adds: a matrix product gives the same bytes everywhere.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from .errors import ImageError

Interpolation = Literal["box", "bilinear", "hamming", "bicubic", "lanczos"]
"""Pillow's filters, by their names in Pillow in lower case; all of them antialias when shrinking."""


def resize(
    image: NDArray[np.uint8],
    size: tuple[int, int],
    *,
    interpolation: Interpolation = "bicubic",
    window: tuple[int, int, int, int] | None = None,
    out: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Resize as Pillow's ``Image.resize`` does, bit for bit, and compute only a window of the result.

    Args:
        image: (height, width, 3) uint8, any channel order, 0..255.
        size: Height and width of the whole result.
        interpolation: The filter.
        window: Top, left, height and width of the part of the result that is wanted; all of it if None.
        out: Where the result is written to, (height, width, 3) uint8 of the window; a new array if None.

    Returns:
        (height, width, 3) uint8 of the window, in the image's channel order.

    Raises:
        ImageError: The image has another shape or type, or the window does not lie within *size*.

    >>> resize(np.full((90, 160, 3), 7, np.uint8), (45, 80), window=(0, 10, 45, 45)).shape
    (45, 45, 3)
    """
    require_pixels(image)
    top, left, height, width = window or (0, 0, *size)
    if not (0 <= top < top + height <= size[0] and 0 <= left < left + width <= size[1]):
        raise ImageError(
            f"expected a window within height {size[0]} and width {size[1]}, got one of height {height} and "
            f"width {width} at row {top}, column {left}"
        )
    rows = _weights(image.shape[0], size[0], top, height, interpolation)
    columns = _weights(image.shape[1], size[1], left, width, interpolation)
    part = image[rows.start : rows.stop, columns.start : columns.stop]
    # Since version 13, Pillow starts with the height where it shrinks by more than twice what the width does.
    if image.shape[0] - size[0] > max(0, 2 * (image.shape[1] - size[1])):
        planes = _resample(part.transpose(1, 0, 2), columns, rows).transpose(0, 2, 1)
    else:
        planes = _resample(part, rows, columns)
    return np.asarray(cv2.merge(list(planes), out), np.uint8)


def require_pixels(image: NDArray[np.uint8]) -> None:
    """Refuse what is not a colour image of bytes.

    Raises:
        ImageError: *image* is not (height, width, 3) uint8 with at least one pixel.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ImageError(
            f"expected an image of shape (height, width, 3) and dtype uint8, got {image.shape} "
            f"{image.dtype}; read_image makes one from files and from other arrays"
        )


class _Block(NamedTuple):
    """A few neighbouring output pixels, as one small matrix over the input pixels that any of them reads."""

    outputs: slice
    inputs: slice
    matrix: NDArray[np.float64]  # (inputs, outputs); the other way round takes a third longer


class _Weights(NamedTuple):
    """The weights along one axis: the inputs that the window needs, and its blocks, counted from *start*."""

    start: int
    stop: int
    blocks: tuple[_Block, ...]
    identity: bool

    @property
    def outputs(self) -> int:
        return int(self.blocks[-1].outputs.stop)


# The weights of an axis form a band: most of the full matrix is zero. Blocks of sixteen outputs keep the
# products near the band, and are wide enough to be worth a call.
_BLOCK = 16
# OpenBLAS starts threads above 2**18 multiplications (interface/gemm.c), which on a busy or small processor
# costs more than it brings: up to 100 times the median was seen. Products stay below it.
_PRODUCT = 1 << 18
# Rows are taken a strip at a time, so that a strip's float64 copy (bytes) stays in a processor's cache.
_STRIP = 3 << 18
_MIN_STRIP_ROWS = 8


def _resample(image: NDArray[np.uint8], rows: _Weights, columns: _Weights) -> NDArray[np.uint8]:
    """Resample the width and then the height: (rows, columns, 3) to (3, rows, columns)."""
    return _resize_rows(_resize_columns(image, columns), rows)


def _resize_columns(image: NDArray[np.uint8], weights: _Weights) -> NDArray[np.uint8]:
    """Resample each row: (rows, columns, 3) to (3, rows, outputs)."""
    height, width = image.shape[:2]
    if weights.identity:
        result = np.empty((3, height, width), np.uint8)
        cv2.split(image, list(result))
        return result
    result = np.empty((3, height, weights.outputs), np.uint8)
    reach = max(block.matrix.size for block in weights.blocks)
    strip = min(height, max(_MIN_STRIP_ROWS, min(_STRIP // (24 * width), _PRODUCT // (3 * reach))))
    for top in range(0, height, strip):
        part = image[top : top + strip]
        if top == 0 or len(part) < strip:
            planes = np.empty((3, len(part), width), np.uint8)
            inputs = np.empty((3 * len(part), width), np.float64)
            outputs = np.empty((3 * len(part), weights.outputs), np.float64)
        cv2.split(part, list(planes))
        inputs[...] = planes.reshape(-1, width)
        for block in weights.blocks:
            np.matmul(inputs[:, block.inputs], block.matrix, out=outputs[:, block.outputs])
        result[:, top : top + strip] = _round(outputs).reshape(3, len(part), weights.outputs)
    return result


def _resize_rows(planes: NDArray[np.uint8], weights: _Weights) -> NDArray[np.uint8]:
    """Resample each column: (3, rows, columns) to (3, outputs, columns)."""
    if weights.identity:
        return planes
    result = np.empty((3, weights.outputs, planes.shape[2]), np.uint8)
    reach = max(block.matrix.size for block in weights.blocks)
    strip = max(_BLOCK, _PRODUCT // reach)
    for left in range(0, planes.shape[2], strip):
        part = planes[:, :, left : left + strip]
        for block in weights.blocks:
            sums = np.matmul(block.matrix.T, part[:, block.inputs].astype(np.float64))
            result[:, block.outputs, left : left + strip] = _round(sums)
    return result


def _round(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Clip to what an assignment to uint8 cuts to Pillow's value: halves go up. Changes *sums* in place."""
    sums += 0.5
    return np.clip(sums, 0, 255, out=sums)


# A camera or a video needs one entry per axis; a folder of photos a few hundred, of at most some 100 kB each.
@lru_cache(maxsize=64)
def _weights(inputs: int, outputs: int, first: int, count: int, interpolation: Interpolation) -> _Weights:
    """Compute the weights of *count* outputs from *first* on, as ``precompute_coeffs`` in Resample.c does."""
    if inputs == outputs:
        everything = _Block(slice(0, count), slice(0, count), np.empty((0, 0)))
        return _Weights(first, first + count, (everything,), identity=True)
    function, support = _FILTERS[interpolation]
    scale = inputs / outputs
    stretch = max(scale, 1.0)
    centres = (np.arange(first, first + count) + 0.5) * scale
    starts = np.maximum((centres - support * stretch + 0.5).astype(np.int64), 0)
    stops = np.minimum((centres + support * stretch + 0.5).astype(np.int64), inputs)
    positions = starts[:, None] + np.arange(int((stops - starts).max()))
    values = function((positions - centres[:, None] + 0.5) * (1.0 / stretch))
    values[positions >= stops[:, None]] = 0.0
    # A running sum adds in Pillow's order; numpy's own sum would round otherwise.
    totals = np.cumsum(values, axis=1)[:, -1:]
    values = np.divide(values, totals, out=values, where=totals != 0)
    values = np.trunc(values * (1 << 22) + np.copysign(0.5, values)) / (1 << 22)
    start, stop = int(starts[0]), int(stops.max())
    lows = np.arange(0, count, _BLOCK)
    highs = np.minimum(lows + _BLOCK, count)
    span = int((np.maximum.reduceat(stops, lows) - starts[lows]).max())
    # All blocks read the same number of inputs; one that would read past the last starts earlier instead.
    lefts = np.minimum(starts[lows], stop - span)
    matrices = np.zeros((count, span))
    rows, taps = np.nonzero(positions < stops[:, None])
    matrices[rows, positions[rows, taps] - lefts[rows // _BLOCK]] = values[rows, taps]
    blocks = tuple(
        _Block(
            slice(low, high),
            slice(left - start, left - start + span),
            np.ascontiguousarray(matrices[low:high].T),
        )
        for low, high, left in zip(lows.tolist(), highs.tolist(), lefts.tolist(), strict=True)
    )
    return _Weights(start, stop, blocks, identity=False)


def _box(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where((x > -0.5) & (x <= 0.5), 1.0, 0.0)


def _bilinear(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(1.0 - np.abs(x), 0.0)


def _hamming(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.abs(x) < 1.0, _sinc(x) * (0.54 + 0.46 * np.cos(math.pi * np.abs(x))), 0.0)


def _bicubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys 1981, eq. 8, with a = -0.5 (OpenCV has -0.75, ONNX Runtime either)."""
    a = -0.5
    x = np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _lanczos(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where((x >= -3.0) & (x < 3.0), _sinc(x) * _sinc(x / 3), 0.0)


def _sinc(x: NDArray[np.float64]) -> NDArray[np.float64]:
    x = x * math.pi
    return np.divide(np.sin(x), x, out=np.ones_like(x), where=x != 0)


_FILTERS: dict[str, tuple[Callable[[NDArray[np.float64]], NDArray[np.float64]], float]] = {
    "box": (_box, 0.5),
    "bilinear": (_bilinear, 1.0),
    "hamming": (_hamming, 1.0),
    "bicubic": (_bicubic, 2.0),
    "lanczos": (_lanczos, 3.0),
}

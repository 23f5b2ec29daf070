"""Activation ranges for static quantization: histograms of values, and what a scale should span."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Range = tuple[float, float]
"""The least and the largest value that a scale spans; 0 lies between them."""

Method = Literal["minmax", "percentile", "mse", "entropy", "mixed"]
METHODS: tuple[Method, ...] = get_args(Method)

# Bins of a histogram, half of them below zero. A tensor of one sign that has just outgrown a power of two fills a
# quarter of them: 8 for each of the 256 levels.
_BINS = 8192

# A tensor whose shorter side is at most this share of the longer is one-sided, as what comes out of a GELU is.
_ONE_SIDED = 1 / 8

# What share of the values the percentile method keeps, half of the rest cut at either side.
_PERCENTILE = 0.9999

# The shares of the full range that are tried, each 5 % less than the one before.
_SHARES = tuple(0.95**power for power in range(80))

# In place of an empty bin's zero, where the logarithm has none (as ONNX Runtime's calibrator does).
_EMPTY = 1e-4


@dataclass(frozen=True, slots=True)
class Grid:
    """The 256 values that 8 bits can hold: (level - zero) · scale, for the levels lowest..lowest + 255.

    Attributes:
        scale: The distance of two values.
        zero: The level of the value 0.
        lowest: The first level: 0 in uint8, -127 in symmetric int8, whose -128 stays unused.
        highest: The last level.
    """

    scale: float
    zero: int
    lowest: int
    highest: int

    @classmethod
    def over(cls, span: Range, *, symmetric: bool) -> "Grid":
        """Lay the grid over a range: int8 around 0 with zero point 0 where *symmetric*, else all of uint8.

        >>> Grid.over((-1.0, 1.54), symmetric=True)
        Grid(scale=0.012125984251968504, zero=0, lowest=-127, highest=127)
        >>> Grid.over((-0.51, 2.04), symmetric=False).zero
        51
        """
        # A range of nothing, such as a tensor of zeros has, still needs a scale.
        low, high = min(span[0], 0.0), max(span[1], 0.0, span[0] + _TINY)
        if symmetric:
            return cls(max(-low, high) / 127, 0, -127, 127)
        scale = (high - low) / 255
        return cls(scale, round(-low / scale), 0, 255)

    def levels(self, values: NDArray[np.float64]) -> NDArray[np.int64]:
        """Give the level that each value is stored as."""
        levels: NDArray[np.int64] = np.clip(
            np.rint(values / self.scale) + self.zero, self.lowest, self.highest
        ).astype(np.int64)
        return levels

    def values(self, levels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Give the value that each level stands for."""
        return np.asarray((levels - self.zero) * self.scale, np.float64)


# A tensor of zeros needs a scale too; its inverse must still be a float32.
_TINY = 1e-30


@dataclass(frozen=True, slots=True)
class Histogram:
    """How the values of one tensor are spread.

    Attributes:
        counts: (bins,) int64, bins of equal width; zero is the edge in the middle.
        width: The width of a bin.
        low, high: The least and the largest value.
    """

    counts: NDArray[np.int64]
    width: float
    low: float
    high: float

    @property
    def filled(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """The middles of the bins that hold anything, and their counts."""
        places = np.flatnonzero(self.counts)
        middles = np.asarray((places - len(self.counts) // 2 + 0.5) * self.width, np.float64)
        return middles, self.counts[places]

    def range(self, method: Method, *, symmetric: bool = False) -> Range:
        """Give the range that a scale should span; equal at both sides where *symmetric*."""
        low, high = min(self.low, 0.0), max(self.high, 0.0)
        if symmetric:
            low, high = min(low, -high), max(high, -low)
        chosen: Callable[[Histogram, Range, bool], Range] = _CHOOSE[method]
        return chosen(self, (low, high), symmetric)


@dataclass(frozen=True, slots=True)
class Histograms:
    """The histograms of several tensors, by name."""

    tensors: Mapping[str, Histogram]

    def ranges(self, method: Method, *, symmetric: bool = False) -> Mapping[str, Range]:
        """Give each tensor's range.

        Args:
            method: ``minmax``: all values; ``percentile``: all but one in ten thousand; ``mse``: the range of the
                least mean squared error of 8 bits; ``entropy``: the range whose 8 bits lose the least information
                (the Kullback-Leibler divergence of TensorRT's calibrator; Migacz 2017, "8-bit inference with
                TensorRT"); ``mixed``: ``mse`` for tensors of one sign or nearly so, such as a GELU's, and ``minmax``
                for all others, in which large values tend to be few channels that the network relies on.
            symmetric: Whether the range, and the 8 bits, lie even around zero.
        """
        return MappingProxyType(
            {name: tensor.range(method, symmetric=symmetric) for name, tensor in self.tensors.items()}
        )


class GrowingHistogram:
    """Counts values as they come: a value that does not fit doubles the reach, two bins becoming one."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS, np.int64)
        self._width = 0.0
        self._low, self._high = np.inf, -np.inf

    def add(self, array: NDArray[np.float32]) -> None:
        """Count the values of an array of any shape."""
        low, high = float(array.min()), float(array.max())
        self._low, self._high = min(self._low, low), max(self._high, high)
        reach = max(-low, high, _TINY)
        if not self._width:
            self._width = 2.0 ** np.ceil(np.log2(reach)) / (_BINS // 2)
        # A value of exactly the reach would lie one bin too far.
        while reach >= self._width * (_BINS // 2):
            pairs = self._counts.reshape(-1, 2).sum(axis=1)
            self._counts = np.pad(pairs, _BINS // 4)
            self._width *= 2
        # Half the bins is a whole number, so that truncation rounds down on either side of zero.
        places = (array.ravel() * np.float32(1 / self._width) + np.float32(_BINS // 2)).astype(np.int32)
        self._counts += np.bincount(np.minimum(places, _BINS - 1), minlength=_BINS)

    def histogram(self) -> Histogram:
        """Give what has been counted so far."""
        return Histogram(self._counts, float(self._width), self._low, self._high)


def _everything(histogram: Histogram, full: Range, symmetric: bool) -> Range:
    return full


def _percentile(histogram: Histogram, full: Range, symmetric: bool) -> Range:
    middles, counts = histogram.filled
    half = histogram.width / 2
    if symmetric:
        order = np.argsort(np.abs(middles))
        share = np.cumsum(counts[order]) / counts.sum()
        edge = float(np.abs(middles[order][np.searchsorted(share, _PERCENTILE)]) + half)
        return max(full[0], -edge), min(full[1], edge)
    share = np.cumsum(counts) / counts.sum()
    cut = (1 - _PERCENTILE) / 2
    low = float(middles[np.searchsorted(share, cut, side="right")] - half)
    high = float(middles[np.searchsorted(share, 1 - cut)] + half)
    return max(full[0], min(low, 0.0)), min(full[1], max(high, 0.0))


def _least_error(histogram: Histogram, full: Range, symmetric: bool) -> Range:
    middles, counts = histogram.filled

    def error(span: Range) -> float:
        grid = Grid.over(span, symmetric=symmetric)
        return float(counts @ (grid.values(grid.levels(middles)) - middles) ** 2)

    low, high = min(((full[0] * share, full[1] * share) for share in _SHARES), key=error)
    if symmetric:
        return low, high
    # Then each end by itself: a long tail at one side says nothing of the other.
    for _ in range(2):
        high = min((full[1] * share for share in _SHARES), key=lambda end: error((low, end)))
        low = min((full[0] * share for share in _SHARES), key=lambda end: error((end, high)))
    return low, high


def _least_divergence(histogram: Histogram, full: Range, symmetric: bool) -> Range:
    middles, counts = histogram.filled
    reach = max(-full[0], full[1])

    def spans() -> Iterable[Range]:
        for share in _SHARES:
            span = max(full[0], -reach * share), min(full[1], reach * share)
            # With no more bins than levels every range would seem to lose nothing but what it cuts off.
            if share == 1 or (span[1] - span[0]) / histogram.width >= 256:
                yield span

    def divergence(span: Range) -> float:
        inside = (middles >= span[0]) & (middles <= span[1])
        kept = counts[inside].astype(np.float64)
        if not len(kept):
            return np.inf
        # What is cut off is stored as the ends of the range.
        wanted = kept.copy()
        wanted[0] += counts[middles < span[0]].sum()
        wanted[-1] += counts[middles > span[1]].sum()
        grid = Grid.over(span, symmetric=symmetric)
        levels = grid.levels(middles[inside]) - grid.lowest
        # Each level's values are taken to be spread evenly over those of its bins that hold any.
        stored = (np.bincount(levels, kept) / np.maximum(np.bincount(levels), 1))[levels]
        wanted, stored = wanted / wanted.sum(), np.maximum(stored / kept.sum(), _EMPTY / len(kept))
        return float(wanted @ np.log(wanted / stored))

    return min(spans(), key=divergence)


def _by_shape(histogram: Histogram, full: Range, symmetric: bool) -> Range:
    shorter, longer = sorted((max(-histogram.low, 0.0), max(histogram.high, 0.0)))
    choose = _least_error if shorter <= _ONE_SIDED * longer else _everything
    return choose(histogram, full, symmetric)


_CHOOSE: Mapping[Method, Callable[[Histogram, Range, bool], Range]] = {
    "minmax": _everything,
    "percentile": _percentile,
    "mse": _least_error,
    "entropy": _least_divergence,
    "mixed": _by_shape,
}

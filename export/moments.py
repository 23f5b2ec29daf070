"""Moments of what linear layers are given: what an error in each weight costs, measured on images."""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from .graph import linears
from .watch import watch

MEMORY = 1 << 30
"""Bytes of moments that are held at a time unless told otherwise: all of a ViT-Base in two groups."""


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """The mean and the second moment of the channels of a linear layer's input.

    Attributes:
        rows: How many rows they were taken from: images times tokens.
        mean: (channels,) float64.
        covariance: (channels, channels) float64, divided by *rows*.
    """

    rows: int
    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]

    @property
    def second(self) -> NDArray[np.float64]:
        """E[x xᵀ], (channels, channels) float64: an error D of the weights costs trace(Dᵀ E[x xᵀ] D) at the output."""
        second: NDArray[np.float64] = self.covariance + np.outer(self.mean, self.mean)
        return second


def moments(
    model: onnx.ModelProto,
    pixels: Callable[[], Iterable[NDArray[np.generic]]],
    *,
    leave: Collection[str] = (),
    memory: int = MEMORY,
) -> Iterator[dict[str, Moments]]:
    """Run a graph on images and take the moments of its linear layers' inputs, a group of inputs at a time.

    Args:
        model: A float graph.
        pixels: Gives the inputs of the graph, batch by batch; called once for each group. Batches of several images
            take less time, and the memory of their activations.
        leave: Names of the linear nodes that are left out.
        memory: Bytes that a group's moments may take; a single input takes what it takes.

    Yields:
        For each input's name its moments; the groups are in graph order.
    """
    widths = {
        linear.input: next(
            tensor.dims[0] for tensor in model.graph.initializer if tensor.name == linear.weight
        )
        for linear in linears(model)
        if linear.node not in leave
    }
    for names in _groups(widths, memory):
        yield _measured(model, names, pixels())


def _groups(widths: dict[str, int], memory: int) -> Iterator[list[str]]:
    group: list[str] = []
    taken = 0
    for name, width in widths.items():
        needed = width * width * np.dtype(np.float64).itemsize
        if group and taken + needed > memory:
            yield group
            group, taken = [], 0
        group.append(name)
        taken += needed
    if group:
        yield group


def _measured(
    model: onnx.ModelProto, names: list[str], batches: Iterable[NDArray[np.generic]]
) -> dict[str, Moments]:
    sums: dict[str, _Sums] = {}
    for tensors in watch(model, names, batches):
        for name in names:
            rows = tensors[name].reshape(-1, tensors[name].shape[-1])
            if name not in sums:
                sums[name] = _Sums(rows)
            sums[name].add(rows)
    return {name: part.moments() for name, part in sums.items()}


class _Sums:
    """Adds up rows, each less one fixed row: a large mean would leave float32 products nothing of the spread."""

    def __init__(self, rows: NDArray[np.float32]) -> None:
        self._shift = rows.mean(axis=0)
        self._count = 0
        self._first = np.zeros(rows.shape[1])
        self._second = np.zeros((rows.shape[1], rows.shape[1]))

    def add(self, rows: NDArray[np.float32]) -> None:
        shifted = rows - self._shift
        self._count += len(rows)
        self._first += shifted.sum(axis=0, dtype=np.float64)
        self._second += shifted.T @ shifted

    def moments(self) -> Moments:
        mean = self._first / self._count
        # In place: at 3072 channels a copy is 75 MB.
        self._second /= self._count
        self._second -= np.outer(mean, mean)
        return Moments(self._count, self._shift + mean, self._second)

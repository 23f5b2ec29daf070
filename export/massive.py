"""Finds massive channels: inputs of linear layers of which one channel dwarfs all others.

One scale per tensor must then span that channel, and nothing is left of the others (Dettmers et al. 2022,
"LLM.int8()"; Sun et al. 2024, "Massive Activations in Large Language Models").
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from .graph import Linear, linears
from .watch import watch

# A scale that spans r times the median channel leaves the median channel 255 / r of its 255 levels; from here on
# those are fewer than 51, less than 6 bits.
MASSIVE = 5.0

# More than this share of the channels are no outliers but a wide spread, which taking a few out does not mend.
_MOST = 1 / 64


@dataclass(frozen=True, slots=True)
class Channels:
    """How the channels of a linear layer's input spread.

    Attributes:
        linear: The layer.
        maxima: (channels,) float32, the largest absolute value of each channel over all images and tokens.
        lowest, highest: The least and the largest value of all.
    """

    linear: Linear
    maxima: NDArray[np.float32]
    lowest: float
    highest: float

    @property
    def ratio(self) -> float:
        """The largest channel's maximum over the median channel's."""
        return float(self.maxima.max() / self._median)

    @property
    def massive(self) -> tuple[int, ...]:
        """The channels that dwarf all others; of too many, those that dwarf the rest of them as well."""
        most = max(1, int(len(self.maxima) * _MOST))
        found = np.flatnonzero(self.maxima >= MASSIVE * self._median)
        if len(found) > most:
            others = np.sort(self.maxima)[-most - 1]
            found = np.flatnonzero(self.maxima >= MASSIVE * others)
        return tuple(int(channel) for channel in found)

    @property
    def _median(self) -> float:
        return max(float(np.median(self.maxima)), float(np.finfo(np.float32).tiny))


def channels(model: onnx.ModelProto, batches: Iterable[NDArray[Any]]) -> tuple[Channels, ...]:
    """Run a model on images and collect the channel maxima of every linear layer's input.

    Args:
        model: A float graph.
        batches: Inputs of the graph.
    """
    found = list(linears(model))
    ranges: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
    for tensors in watch(model, [linear.input for linear in found], batches):
        for name in {linear.input for linear in found}:
            rows = tensors[name].reshape(-1, tensors[name].shape[-1])
            low, high = rows.min(axis=0), rows.max(axis=0)
            if name in ranges:
                low, high = np.minimum(ranges[name][0], low), np.maximum(ranges[name][1], high)
            ranges[name] = low, high
    return tuple(
        Channels(linear, np.maximum(-low, high), float(low.min()), float(high.max()))
        for linear in found
        for low, high in [ranges[linear.input]]
    )

"""Finds massive channels: inputs of linear layers of which one channel dwarfs all others.

One scale per tensor must then span that channel, and nothing is left of the others (Dettmers et al. 2022,
"LLM.int8()"; Sun et al. 2024, "Massive Activations in Large Language Models").
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from ..runtime.session import open_session
from .graph import Linear, copy, linears

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


def channels(model: onnx.ModelProto, batches: Iterable[NDArray[np.float32]]) -> tuple[Channels, ...]:
    """Run a model on images and collect the channel maxima of every linear layer's input.

    Args:
        model: A float graph.
        batches: Inputs of the graph.
    """
    found = list(linears(model))
    names = list(dict.fromkeys(linear.input for linear in found))
    watched = copy(model)
    present = {output.name for output in watched.graph.output}
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in present)
    session = open_session(watched.SerializeToString(), name="the traced model")
    input_name = session.get_inputs()[0].name
    ranges: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
    for batch in batches:
        for name, values in zip(names, session.run(names, {input_name: batch}), strict=True):
            rows = values.reshape(-1, values.shape[-1])
            low, high = rows.min(axis=0), rows.max(axis=0)
            if name in ranges:
                low, high = np.minimum(ranges[name][0], low), np.maximum(ranges[name][1], high)
            ranges[name] = low, high
    return tuple(
        Channels(linear, np.maximum(-low, high), float(low.min()), float(high.max()))
        for linear in found
        for low, high in [ranges[linear.input]]
    )

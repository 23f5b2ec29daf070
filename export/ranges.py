"""Histograms of a graph's tensors over calibration images, from which static quantization takes its ranges."""

from collections.abc import Iterable, Sequence
from types import MappingProxyType

import numpy as np
import onnx
from numpy.typing import NDArray

from ..errors import ExportError
from ..quantizers import GrowingHistogram, Histograms
from .watch import watch


def collect(
    model: onnx.ModelProto, names: Sequence[str], batches: Iterable[NDArray[np.float32]]
) -> Histograms:
    """Run a graph on images, and count how the values of some of its tensors are spread.

    One pass: a histogram that a value does not fit into doubles its reach, two bins becoming one.

    Args:
        model: A float graph.
        names: Tensors of the graph; the graph's input may be among them.
        batches: Inputs of the graph.

    Raises:
        ExportError: There was no batch, or a tensor held values that are no numbers.
    """
    found = {name: GrowingHistogram() for name in names}
    seen = False
    for tensors in watch(model, names, batches):
        seen = True
        for name, growing in found.items():
            array = tensors[name]
            if not np.isfinite(array).all():
                raise ExportError(
                    f"expected numbers in the tensor {name} on the calibration images, got infinity or NaN; "
                    "export in float32"
                )
            growing.add(array)
    if not seen:
        raise ExportError("expected at least one calibration image to take ranges from, got none")
    return Histograms(MappingProxyType({name: growing.histogram() for name, growing in found.items()}))

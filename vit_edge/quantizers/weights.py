"""The grid of 8-bit weights: symmetric, one scale for each output, chosen as ONNX Runtime's quantizers choose it.

All that rounds weights rounds them here, so that what one pass puts on the grid the next leaves where it is.
"""

import numpy as np
from numpy.typing import NDArray


def largest_integer(bits: int) -> int:
    """Give the largest integer of weights: 127 of 8 bits, but 64 of 7, which is ONNX Runtime's reduced range.

    Seven bits are for processors that add two products of a byte and a weight in 16 bits; 2 · 255 · 64 = 32640 fits
    in there, 2 · 255 · 127 does not.
    """
    return 64 if bits == 7 else 2 ** (bits - 1) - 1


def column_scales(weight: NDArray[np.float32], *, bits: int = 8, axis: int = -1) -> NDArray[np.float32]:
    """Give the scale of each output's grid: its largest weight becomes the largest integer.

    Args:
        weight: (inputs, outputs), or with the outputs on another axis.
        bits: Of the weights.
        axis: Where the outputs lie.

    Returns:
        (outputs,), 1 for an output without weights.
    """
    largest = np.abs(np.moveaxis(weight, axis, -1)).reshape(-1, weight.shape[axis]).max(axis=0)
    # In float64 and rounded once, as ONNX Runtime does: another last bit could move an integer.
    scales = (largest.astype(np.float64) / largest_integer(bits)).astype(np.float32)
    return np.where(scales < np.finfo(np.float32).tiny, np.float32(1), scales)


def quantized_weights(
    weight: NDArray[np.float32], *, bits: int = 8, axis: int = -1
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round weights to the nearest integers of their grids.

    Args:
        weight: (inputs, outputs), or with the outputs on another axis.
        bits: Of the weights.
        axis: Where the outputs lie.

    Returns:
        Integers of the same shape, and the scales (outputs,).
    """
    scales = column_scales(weight, bits=bits, axis=axis)
    sides = [1] * weight.ndim
    sides[axis] = -1
    return np.rint(weight / scales.reshape(sides)).astype(np.int8), scales

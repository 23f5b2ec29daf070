"""The grid of 8-bit weights is the one that ONNX Runtime's quantizers choose."""

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import TensorProto
from onnxruntime.quantization.quant_utils import quantize_data

from vit_edge.quantizers import column_scales, largest_integer, quantized_weights


def matrix(inputs: int = 40, outputs: int = 300) -> NDArray[np.float32]:
    """Give (inputs, outputs) of very different sizes, the first output without weights."""
    noise = np.random.default_rng(0)
    weights = noise.normal(size=(inputs, outputs)) * np.exp(noise.normal(scale=3, size=outputs))
    weights[:, 0] = 0
    return weights.astype(np.float32)


@pytest.mark.parametrize("bits", [8, 7])
def test_each_output_is_rounded_as_onnx_runtime_rounds_it(bits: int) -> None:
    """Weights that one puts on its grid must lie on the other's, to the last bit of the scale."""
    weights = matrix()
    integers, scales = quantized_weights(weights, bits=bits)
    assert integers.dtype == np.int8
    assert scales.dtype == np.float32
    for column, stored, scale in zip(weights.T, integers.T, scales, strict=True):
        _, theirs, expected = quantize_data(column, TensorProto.INT8, True, reduce_range=bits == 7)
        assert scale == theirs
        np.testing.assert_array_equal(stored, expected)


@pytest.mark.parametrize("bits", [8, 7])
def test_rounding_a_second_time_moves_nothing(bits: int) -> None:
    """Learned rounding depends on it: the quantizer sees only integers times scales."""
    integers, scales = quantized_weights(matrix(), bits=bits)
    again, _ = quantized_weights(integers * scales, bits=bits)
    np.testing.assert_array_equal(again, integers)
    np.testing.assert_array_equal(np.abs(integers).max(axis=0)[1:], largest_integer(bits))


def test_outputs_may_lie_on_any_axis() -> None:
    """A convolution's weights have them first."""
    kernel = np.random.default_rng(1).normal(size=(6, 3, 4, 5)).astype(np.float32)
    integers, scales = quantized_weights(kernel, axis=0)
    flat, expected = quantized_weights(kernel.reshape(6, -1).T)
    np.testing.assert_array_equal(scales, expected)
    np.testing.assert_array_equal(integers.reshape(6, -1).T, flat)
    np.testing.assert_array_equal(column_scales(kernel, axis=0), expected)


def test_seven_bits_are_as_many_as_two_products_leave_room_for() -> None:
    """Processors without VNNI add two products of a byte and a weight in 16 bits, and saturate."""
    assert 2 * 255 * largest_integer(7) < 2**15 < 2 * 255 * (largest_integer(7) + 1)
    assert largest_integer(8) == 127

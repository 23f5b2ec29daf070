"""Which library multiplies matrices on a processor while a network learns."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ..runtime.processor import processor


def fast_products(device: torch.device) -> AbstractContextManager[object]:
    """Compute linear layers in float32 as fast as the device can.

    torch leaves products of float32 matrices to MKL, which takes AVX2 on other makers' processors, and convolutions to
    oneDNN, which takes AVX-512 wherever it is: on AMD's Zen 4 and later the same sums come in half the time as
    convolutions of one pixel.
    """
    return _AsConvolutions() if device.type == "cpu" and _mkl_lags() else nullcontext()


def by_convolution(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute what `torch.nn.functional.linear` does: (..., inputs) to (..., outputs)."""
    # One tall image whose pixels are the rows, in oneDNN's favourite layout as it lies.
    rows = values.reshape(1, -1, 1, values.shape[-1]).permute(0, 3, 1, 2)  # (1, inputs, rows, 1)
    sums = functional.conv2d(rows, weight[:, :, None, None], bias)  # (1, outputs, rows, 1)
    return sums.permute(0, 2, 3, 1).reshape(*values.shape[:-1], weight.shape[0])


class _AsConvolutions(TorchFunctionMode):
    """Takes `torch.nn.functional.linear` for `by_convolution`, whichever module calls it."""

    def __torch_function__(
        self,
        function: Any,
        types: Sequence[type],
        arguments: Sequence[Any] = (),
        named: Mapping[str, Any] | None = None,
    ) -> Any:
        called = by_convolution if function is functional.linear else function
        return called(*arguments, **(named or {}))


@cache
def _mkl_lags() -> bool:
    return (
        torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and "AMD" in processor()["name"]
    )

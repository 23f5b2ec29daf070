"""What to do where memory is short: find out how many images would fit."""

import torch
from torch import nn

# What processors' allocators say; those of GPUs have an exception of their own.
_SAYINGS = ("out of memory", "can't allocate memory", "not enough memory", "DefaultCPUAllocator")


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory ran out."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        saying in str(error) for saying in _SAYINGS
    )


def batch_that_fits(model: nn.Module, count: int, device: torch.device) -> int:
    """Give the largest half, quarter and so on of a batch that a network can be trained on; 0 where not even one fits.

    Args:
        model: The network, in training mode.
        count: How many images did not fit.
        device: Where it is.
    """
    size = model.config.image_size  # type: ignore[union-attr]
    while count > 1:
        count //= 2
        try:
            for parameter in model.parameters():
                parameter.grad = None
            if device.type == "cuda":
                torch.cuda.empty_cache()
            images = torch.zeros(count, 3, *size, device=device)  # type: ignore[misc]
            model.eval()(images).sum().backward()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            return count
    return 0

"""What to do where memory is short: find out how many images would fit."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..errors import TrainingError
from ..models.vit import StochasticDepth
from .processes import computing
from .recipe import Recipe

# What processors' allocators say; those of GPUs have an exception of their own.
_SAYINGS = ("out of memory", "can't allocate memory", "not enough memory", "DefaultCPUAllocator")


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory ran out."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        saying in str(error) for saying in _SAYINGS
    )


@contextmanager
def enough_memory(doing: str, *, advice: str) -> Iterator[None]:
    """Say in a sentence that memory ran out.

    Args:
        doing: What is being done, as in "computing features".
        advice: What to do about it.

    Raises:
        TrainingError: Memory ran out.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        # Not chained: the error holds on to all that had been computed.
        raise TrainingError(f"memory ran out while {doing}; {advice}") from None


def batch_that_fits(
    model: nn.Module,
    count: int,
    device: torch.device,
    *,
    recipe: Recipe,
    beside: Callable[[Tensor], object] = lambda images: None,
) -> int:
    """Give the largest half, quarter and so on of a batch that a network can be trained on; 0 where not even one fits.

    A try takes what a step does: in the recipe's precision, with gradients and room for AdamW's two moments. The
    average of the weights is there already.

    Args:
        model: The network; it is left in training mode.
        count: How many images did not fit.
        device: Where it is.
        recipe: How it is trained.
        beside: What else looks at the images, such as a teacher.
    """
    while count > 1:
        count //= 2
        for parameter in model.parameters():
            parameter.grad = None
        if device.type == "cuda":
            torch.cuda.empty_cache()
        try:
            _try(model, count, device, recipe, beside)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            return count
    return 0


def _try(
    model: nn.Module, count: int, device: torch.device, recipe: Recipe, beside: Callable[[Tensor], object]
) -> None:
    # By itself, so that nothing of a try that failed is left for the next.
    moments = [
        torch.empty_like(parameter)
        for parameter in model.parameters()
        if parameter.requires_grad
        for _ in range(2)
    ]
    for branch in model.modules():
        if isinstance(branch, StochasticDepth) and branch.factors is not None:
            # Those of the batch that did not fit are for as many images as it had.
            branch.factors = torch.ones(count, 1, 1, device=device)
    height, width = model.config.image_size  # type: ignore[union-attr,misc]
    images = torch.zeros(count, 3, height, width, device=device)
    with computing(recipe, device):
        beside(images)
        answers = model.train()(images)
    answers.float().sum().backward()
    del moments

"""One process or many: the same loop on a processor, a GPU, or several devices and machines.

Several are started by ``accelerate launch`` or ``torchrun``; Hugging Face Accelerate then shares out the gradients
(DDP, or FSDP as its configuration says).
"""

import os
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import TrainingError
from .recipe import Recipe


class Processes:
    """The processes of a run, this one among them.

    Attributes:
        rank, world: Which of how many this is.
        device: Where this one computes.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        """Join the processes that the environment tells of.

        Args:
            device: Where to compute; the first GPU where there is one unless given. Several processes choose their own.

        Raises:
            TrainingError: There are several, and Accelerate is not installed.
        """
        self._accelerator: Any = None
        self.rank, self.world = 0, 1
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            try:
                from accelerate import Accelerator
            except ModuleNotFoundError as error:
                raise TrainingError(
                    "several processes are trained together by accelerate, which is not installed; "
                    "`pip install 'vit-edge[train]'`"
                ) from error
            self._accelerator = Accelerator(cpu=not torch.cuda.is_available())
            self.rank, self.world = self._accelerator.process_index, self._accelerator.num_processes
            self.device = self._accelerator.device
        else:
            self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and tells."""
        return self.rank == 0

    @property
    def sharded(self) -> bool:
        """Whether the weights are shared out among the processes (FSDP)."""
        return self._accelerator is not None and "FSDP" in str(self._accelerator.distributed_type)

    def prepare(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        """Give the network and optimizer as they are to be called."""
        if self._accelerator is None:
            return model, optimizer
        prepared: tuple[nn.Module, Any] = self._accelerator.prepare(model, optimizer)
        return prepared

    def backward(self, loss: Tensor) -> None:
        """Compute gradients, the mean over all processes."""
        if self._accelerator is None:
            loss.backward()  # type: ignore[no-untyped-call]
        else:
            self._accelerator.backward(loss)

    def clip(self, model: nn.Module, norm: float) -> Tensor:
        """Clip the gradient to a norm, and give what it was."""
        if self._accelerator is None:
            return torch.nn.utils.clip_grad_norm_(model.parameters(), norm)
        clipped: Tensor = self._accelerator.clip_grad_norm_(model.parameters(), norm)
        return clipped

    def sum(self, *numbers: float) -> list[float]:
        """Add numbers up over all processes."""
        if self._accelerator is None:
            return list(numbers)
        # In float64 on the processor's side of things; few devices lack it.
        local = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        total: list[float] = self._accelerator.reduce(local, reduction="sum").tolist()
        return total

    def wait(self) -> None:
        """Wait for all processes to come here."""
        if self._accelerator is not None:
            self._accelerator.wait_for_everyone()

    def weights(self, model: nn.Module) -> dict[str, Tensor]:
        """Give all weights of a prepared network; every process has to ask."""
        if self._accelerator is None:
            return model.state_dict()
        weights: dict[str, Tensor] = self._accelerator.get_state_dict(model)
        return {name.removeprefix("module."): value for name, value in weights.items()}


def require_precision(recipe: Recipe, device: torch.device) -> None:
    """Check that a device computes in the recipe's precision.

    Raises:
        TrainingError: It does not, so that it would be slower and no better.
    """
    if recipe.precision != "bf16":
        return
    able = (
        torch.cuda.is_bf16_supported()
        if device.type == "cuda"
        else device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
    if not able:
        raise TrainingError(f"the device {device} does not compute in bf16; train with --precision float32")

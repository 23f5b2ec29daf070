"""Where a run computes: a processor, a GPU, or several devices and machines.

Several are started by ``accelerate launch`` or ``torchrun``. Hugging Face Accelerate brings them together and averages
the gradients (DDP); where its configuration says FSDP, each process holds a share of the weights, gradients and
optimizer only, by torch's own `fully_shard`, which unlike Accelerate's plugin runs on processors too.
"""

import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import TrainingError
from ..models import ViT
from .products import fast_products
from .recipe import Recipe

_FSDP = "ACCELERATE_USE_FSDP"

# What an Accelerate configuration may ask for and is not done here.
_OTHERS = {"ACCELERATE_USE_DEEPSPEED": "DeepSpeed", "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM"}


class Processes:
    """The processes of a run, this one among them.

    Attributes:
        rank, world: Which of how many this is.
        device: Where this one computes.
        sharded: Whether the weights are shared out among the processes (FSDP, Zhao et al. 2023).
    """

    def __init__(self, device: torch.device | None = None) -> None:
        """Join the processes that the environment tells of.

        Args:
            device: Where to compute; the first GPU where there is one unless given. Several processes choose their own.

        Raises:
            TrainingError: There are several, and Accelerate is not installed, or set to what is not done here.
        """
        self._accelerator: Any = None
        self.rank, self.world, self.sharded = 0, 1, False
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            try:
                from accelerate import Accelerator
                from accelerate.utils import GradientAccumulationPlugin
            except ModuleNotFoundError as error:
                raise TrainingError(
                    "several processes are trained together by accelerate, which is not installed; "
                    "`pip install 'vit-edge[train]'`"
                ) from error
            if other := next((name for key, name in _OTHERS.items() if _asked(key)), None):
                raise TrainingError(
                    f"accelerate is set to {other}, and vit-edge trains with DDP or FSDP; change it with "
                    "`accelerate config`"
                )
            self.sharded = _asked(_FSDP)
            with _without(_FSDP):
                # Precision and batch are the recipe's, whatever a configuration on this machine says.
                self._accelerator = Accelerator(
                    cpu=not torch.cuda.is_available(),
                    mixed_precision="no",
                    gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
                )
            self.rank, self.world = self._accelerator.process_index, self._accelerator.num_processes
            self.device = self._accelerator.device
        else:
            self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and tells."""
        return self.rank == 0

    def place(self, model: ViT) -> ViT:
        """Bring a network to the device, in place, and share its weights out where that is asked for."""
        model.to(self.device)
        if self.sharded:
            from torch.distributed.device_mesh import init_device_mesh
            from torch.distributed.fsdp import fully_shard

            mesh = init_device_mesh(self.device.type, (self.world,))
            for block in model.blocks:
                fully_shard(block, mesh=mesh)
            fully_shard(model, mesh=mesh)
        return model

    def prepare(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        """Give a placed network and its optimizer as they are to be called."""
        if self._accelerator is None or self.sharded:
            return model, optimizer
        prepared: tuple[nn.Module, Any] = self._accelerator.prepare(model, optimizer)
        return prepared

    def backward(self, loss: Tensor) -> None:
        """Compute gradients, the mean over all processes."""
        if self._accelerator is None or self.sharded:
            loss.backward()  # type: ignore[no-untyped-call]
        else:
            self._accelerator.backward(loss)

    def clip(self, model: nn.Module, norm: float) -> Tensor:
        """Clip the gradient to a norm, and give what it was."""
        if self._accelerator is None or self.sharded:
            clipped = torch.nn.utils.clip_grad_norm_(model.parameters(), norm)
            return _full(clipped)
        averaged: Tensor = self._accelerator.clip_grad_norm_(model.parameters(), norm)
        return averaged

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

    def whole(self, state: Any) -> Any:
        """Give a state with every tensor of it whole, as one process would have it; every process has to ask."""
        if not self.sharded:
            return state
        if isinstance(state, Mapping):
            return {key: self.whole(value) for key, value in state.items()}
        if isinstance(state, list):
            return [self.whole(value) for value in state]
        return _full(state).cpu() if isinstance(state, Tensor) else state

    def take_weights(self, model: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Take whole weights into a placed network, in place."""
        own = model.state_dict()
        model.load_state_dict({name: _like(value, own[name]) for name, value in state.items()})

    def take_optimizer(self, optimizer: Any, state: Mapping[str, Any]) -> None:
        """Take the whole state of an optimizer into one of a placed network, in place."""
        parameters = [one for group in optimizer.param_groups for one in group["params"]]
        shared = {
            place: {
                name: _like(value, parameters[place]) if name != "step" else value
                for name, value in values.items()
            }
            for place, values in state["state"].items()
        }
        optimizer.load_state_dict({"state": shared, "param_groups": state["param_groups"]})


def require_precision(recipe: Recipe, device: torch.device) -> None:
    """Check that a device computes in the recipe's precision.

    Raises:
        TrainingError: It does not, so that it would be slower and no better.
    """
    if recipe.precision == "bf16" and not has_bf16(device):
        raise TrainingError(f"the device {device} does not compute in bf16; train with --precision float32")


def has_bf16(device: torch.device) -> bool:
    """Whether a device computes in bf16 by instructions of its own, and so faster than in float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu" or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    # On x86 torch takes AVX-512 for enough, and emulates where the instructions for bf16 are missing.
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return bool(not x86 or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def computing(recipe: Recipe, device: torch.device) -> AbstractContextManager[object]:
    """Compute in the recipe's precision: products in bf16 where it says so, from weights in float32."""
    if recipe.precision == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    # A compiler chooses by itself.
    return nullcontext() if recipe.compile else fast_products(device)


def _full(value: Tensor) -> Tensor:
    """Gather a tensor that is shared out."""
    whole: Tensor = value.full_tensor() if hasattr(value, "full_tensor") else value
    return whole


def _like(value: Tensor, own: Tensor) -> Tensor:
    """Share a whole tensor out as another one is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(own, DTensor):
        return value
    return distribute_tensor(value.to(own.device), own.device_mesh, own.placements)


def _asked(key: str) -> bool:
    return os.environ.get(key, "").lower() in ("1", "true", "yes")


@contextmanager
def _without(key: str) -> Iterator[None]:
    before = os.environ.pop(key, None)
    try:
        yield
    finally:
        if before is not None:
            os.environ[key] = before

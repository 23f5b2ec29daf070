"""The moving average of a network's weights, which mostly answers better than the weights themselves."""

import copy

import torch
from torch import Tensor

from ..models import ViT


class Average:
    """An exponential moving average of weights (Polyak and Juditsky 1992; as EMA in Tan and Le 2019).

    Attributes:
        model: A network of the averaged weights, in evaluation mode.
    """

    def __init__(self, model: ViT, *, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, model: ViT, *, step: int) -> None:
        """Take a step's weights in, in place.

        Args:
            model: The network after the step.
            step: Its number, from 0. The first steps weigh more, (1 + step) / (10 + step) of the average being kept,
                since random weights would stay in it for long (as TensorFlow's ExponentialMovingAverage).
        """
        kept = min(self._decay, (1 + step) / (10 + step))
        pairs = zip(self.model.parameters(), model.parameters(), strict=True)
        # What is frozen is the same in both.
        mine, theirs = zip(*((one, two) for one, two in pairs if two.requires_grad), strict=True)
        torch._foreach_lerp_(mine, theirs, 1 - kept)

    def state_dict(self) -> dict[str, Tensor]:
        """Give the averaged weights."""
        return self.model.state_dict()

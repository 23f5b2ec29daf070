"""What a model answers for an image: the likeliest classes and their probabilities."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Score:
    """A class and the probability that the model gives it."""

    label: str
    probability: float
    index: int
    id: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, ready for JSON; a class without an id has none there either."""
        values: dict[str, Any] = {"label": self.label, "probability": self.probability}
        return values if self.id is None else values | {"id": self.id}


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one image.

    Attributes:
        top: The likeliest classes, best first.
        latency_ms: The time from the image as given to the answer: decoding, preprocessing and inference. For an
            image that was computed with others as one tensor, inference is their time divided by their number.
    """

    top: tuple[Score, ...]
    latency_ms: float

    @property
    def label(self) -> str:
        """The name of the likeliest class."""
        return self.top[0].label

    @property
    def probability(self) -> float:
        """The probability of the likeliest class, 0..1."""
        return self.top[0].probability

    @property
    def index(self) -> int:
        """The place of the likeliest class among the model's outputs."""
        return self.top[0].index

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, ready for JSON."""
        return {
            "label": self.label,
            "probability": self.probability,
            "latency_ms": self.latency_ms,
            "top": [score.to_dict() for score in self.top],
        }


def softmax(logits: NDArray[np.float32], temperature: float = 1.0) -> NDArray[np.float32]:
    """Turn logits into probabilities: (batch, classes) float32, each row's sum is 1.

    Args:
        logits: (batch, classes) float32.
        temperature: What they are divided by first (Guo et al. 2017); it changes no order.
    """
    exponents = np.exp((logits - logits.max(axis=-1, keepdims=True)) / np.float32(temperature))
    probabilities: NDArray[np.float32] = exponents / exponents.sum(axis=-1, keepdims=True)
    return probabilities

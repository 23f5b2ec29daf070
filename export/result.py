"""What an export gives back, and what it is told of its origin."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..evaluation import Comparison
from ..scores import Scores
from .capsule import Packed
from .pareto import Row
from .recorder import Step
from .sensitivity import Sensitivity


@dataclass(frozen=True, slots=True)
class Export:
    """A finished export.

    Attributes:
        path: The file.
        bytes: Its size.
        target: What it is for.
        precision: What was shipped: ``float32``, ``float16`` or ``int8``.
        reason: Why that is not INT8, where ``auto`` chose.
        comparison: The shipped graph against the reference, on the images of `checked_on`.
        checked_on: The folder that had the last word.
        batched_agreement: The share of images whose answer in a batch of 5 is the one that they get alone; None for
            a graph of a fixed batch size.
        latency_ms, float32_ms: The time of an answer of the shipped graph and of the float graph, taken in turns on
            this machine; None where INT8 was not shipped, or its provider is not at hand.
        candidates: The INT8 graphs that were found, as measured.
        chosen: The place of the shipped one among them.
        sensitivities: The linear layers, the one whose quantization harms most first.
        complete: Whether the time was enough for the whole search.
        scores: The temperature and the threshold, or why there is no temperature.
        steps: All steps, in order.
        capsule: The pictures in the file that `vit-edge verify` replays: where they come from, how many they are, and
            the bytes that they take; None without a capsule.
    """

    path: Path
    bytes: int
    target: str
    precision: str
    reason: str | None
    comparison: Comparison
    checked_on: str
    batched_agreement: float | None
    latency_ms: float | None
    float32_ms: float | None
    candidates: tuple[Row, ...]
    chosen: int | None
    sensitivities: tuple[Sensitivity, ...]
    complete: bool
    scores: Scores
    steps: tuple[Step, ...]
    capsule: Packed | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, ready for JSON."""
        return {
            "path": str(self.path),
            "bytes": self.bytes,
            "target": self.target,
            "precision": self.precision,
            "reason": self.reason,
            "checked_on": self.checked_on,
            **self.comparison.to_dict(),
            "batched_agreement": self.batched_agreement,
            "latency_ms": self.latency_ms,
            "float32_ms": self.float32_ms,
            "candidates": [row.to_dict() for row in self.candidates],
            "chosen": self.chosen,
            "sensitivities": [layer.to_dict() for layer in self.sensitivities],
            "complete": self.complete,
            "scores": self.scores.to_dict(),
            "steps": [step.to_dict() for step in self.steps],
            "capsule": None if self.capsule is None else self.capsule.to_dict(),
        }


@dataclass(frozen=True, slots=True)
class Source:
    """Where the network came from: a name for people, the weights' SHA-256, and the sizes of a known network."""

    name: str
    sha256: str
    network: dict[str, Any]

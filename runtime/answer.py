"""What the loop says of one frame."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .prediction import Score

UNKNOWN = "unknown"
"""The label of an answer that is less sure than the threshold."""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What the loop says of one frame.

    Attributes:
        time: When the frame was taken, seconds since 1970.
        source: The name of the frame: a file's, a camera's, or an address without what is secret in it.
        frame: The frame's place in its source, from 0; frames that were passed over count.
        label: The steadied answer; ``unknown`` below the threshold.
        probability: What the steadied probabilities give the label; the likeliest class's for ``unknown``.
        top: The likeliest classes by the steadied probabilities, best first.
        age_ms: From the taking of the frame to the handing out of this answer.
        dropped: How many frames were passed over so far.
        latency_ms: Preprocessing and inference alone; 0 for a repeated answer.
        image: The frame, (height, width, 3) uint8, RGB, 0..255.
        known: Whether the label is one of the model's, and not ``unknown``.
        repeated: Whether the scene stood still, so that the model was not asked again.
        fps: Answers a second of late.
    """

    time: float
    source: str
    frame: int
    label: str
    probability: float
    top: tuple[Score, ...]
    age_ms: float
    dropped: int
    latency_ms: float
    image: NDArray[np.uint8] = field(repr=False)
    known: bool = True
    repeated: bool = False
    fps: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, ready for JSON; the picture is left out."""
        return {
            "time": self.time,
            "source": self.source,
            "frame": self.frame,
            "label": self.label,
            "probability": self.probability,
            "top": [
                {"label": score.label, "probability": score.probability}
                | ({"id": score.id} if score.id is not None else {})
                for score in self.top
            ],
            "age_ms": self.age_ms,
            "dropped": self.dropped,
            "latency_ms": self.latency_ms,
            "known": self.known,
            "repeated": self.repeated,
        }

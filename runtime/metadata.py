"""What a model file says of itself: the versioned schema in the ``metadata_props`` of the ONNX file.

The keys and their meaning are documented in docs/file-format.md.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import ModelError
from .labels import Label, Labels
from .preprocess import Preprocessing

SCHEMA = 1
"""The schema that this version writes, and the newest that it reads."""

PREFIX = "vit_edge."

# The numbers among the scores that answers depend on, and what they may be.
_SCORES = {"temperature": (0.001, 1000), "threshold": (0, 1)}


@dataclass(frozen=True)
class Metadata:
    """All that a device needs beside the graph, and how the file came to be.

    Attributes:
        labels: The classes in the order of the outputs.
        preprocessing: From a decoded image to the graph's input; one that takes raw pixels normalises by itself.
        source: The checkpoint that the file was made from: its name, SHA-256 and network.
        recipe: How the file was made: precision, passes, target, processor, batch, oldest ONNX Runtime.
        proof: The measured agreement with torch, per set of images.
        scores: The temperature that makes probabilities honest (absent where the scores are not calibrated), the
            probability below which an answer is unknown, and what was measured of both.
    """

    labels: Labels
    preprocessing: Preprocessing
    source: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    proof: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, (low, high) in _SCORES.items():
            value = self.scores.get(key)
            usable = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
            if value is not None and not usable:
                raise ModelError(
                    f"expected {key} of scores to be a number from {low} to {high}, got {value!r}"
                )

    def to_properties(self) -> dict[str, str]:
        """Give the entries of ``metadata_props``, all of them JSON."""
        properties: dict[str, Any] = {
            "schema": SCHEMA,
            "classes": len(self.labels),
            "labels": [label.name for label in self.labels.items],
            "preprocess": self.preprocessing.to_dict(),
            "source": self.source,
            "recipe": self.recipe,
            "proof": self.proof,
        }
        if any(label.id for label in self.labels.items):
            properties["label_ids"] = [label.id for label in self.labels.items]
        if self.scores:
            properties["scores"] = self.scores
        return {PREFIX + key: json.dumps(value, ensure_ascii=False) for key, value in properties.items()}

    @classmethod
    def from_properties(cls, properties: Mapping[str, str], name: str) -> "Metadata":
        """Read the entries of ``metadata_props``.

        Args:
            properties: The file's ``metadata_props``.
            name: The file's name, for the error.

        Raises:
            ModelError: An entry is missing, malformed, or of a newer schema.
        """
        again = "make it with `vit-edge export`"
        schema = _entry(properties, "schema", name)
        if schema is None:
            parts = {"labels": "labels", "preprocess": "preprocessing"}
            what = " and ".join(part for key, part in parts.items() if PREFIX + key not in properties)
            raise ModelError(f"{name} carries no {what or 'vit-edge schema'}; {again}")
        if type(schema) is not int or schema < 1:
            raise ModelError(f"{name} says that its schema is {schema!r}, which is no schema; {again} anew")
        if schema > SCHEMA:
            raise ModelError(
                f"{name} was made with schema {schema}, and this vit-edge reads up to {SCHEMA}; "
                "update it with `pip install --upgrade vit-edge`"
            )
        names = _entry(properties, "labels", name)
        if not names:
            raise ModelError(f"{name} carries no labels; {again}")
        preprocess = _entry(properties, "preprocess", name)
        if preprocess is None:
            raise ModelError(f"{name} carries no preprocessing; {again}")
        try:
            return cls(
                labels=_labels(names, _entry(properties, "label_ids", name)),
                preprocessing=Preprocessing.from_dict(_object(preprocess, "preprocess")),
                **{
                    key: _object(_entry(properties, key, name) or {}, key)
                    for key in ("source", "recipe", "proof", "scores")
                },
            )
        except (ModelError, TypeError, ValueError) as error:
            raise ModelError(f"the metadata of {name} is malformed ({error}); {again} anew") from error


def _labels(names: Any, ids: Any) -> Labels:
    if not isinstance(names, list) or not all(isinstance(label, str) for label in names):
        raise TypeError("expected labels to be a list of names")
    if ids is None:
        ids = [None] * len(names)
    if not isinstance(ids, list) or not all(isinstance(label_id, str | None) for label_id in ids):
        raise TypeError("expected label_ids to be a list of ids")
    if len(names) != len(ids):
        raise ValueError(f"expected an id or null for each of {len(names)} labels, got {len(ids)}")
    return Labels(tuple(Label(*pair) for pair in zip(names, ids, strict=True)))


def _object(value: Any, key: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"expected {key} to be a JSON object, got {type(value).__name__}")
    return value


def _entry(properties: Mapping[str, str], key: str, name: str) -> Any:
    text = properties.get(PREFIX + key)
    if text is None:
        return None
    try:
        return json.loads(text)
    # Brackets nested too deep exhaust the parser's stack.
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"the entry {PREFIX}{key} of {name} is no JSON ({error}); make the file anew with `vit-edge export`"
        ) from error

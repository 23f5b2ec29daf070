"""Runs a model file and its torch reference over the same image files, each from the raw file."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from .checkpoint import Checkpoint
from .data import Sample
from .errors import CheckpointError
from .evaluation import Comparison, compare
from .reference import torch_logits
from .runtime.classifier import Classifier
from .runtime.image import read_image
from .runtime.labels import Labels
from .runtime.preprocess import Preprocessing, preprocess
from .scores import Honesty, honesty


@dataclass(frozen=True, slots=True)
class Flip:
    """An image on which model and reference differ: the file and both answers' places among the labels."""

    path: Path
    reference: int
    model: int


@dataclass(frozen=True, slots=True)
class Report:
    """What a check found.

    Attributes:
        comparison: The numbers.
        flips: The images with different answers.
        reference_images_per_s: From the file to torch's answer, one image at a time.
        model_images_per_s: From the file to the model's answer, one image at a time.
        honesty: How far the model's probabilities are from its share of right answers; None without labels.
    """

    comparison: Comparison
    flips: tuple[Flip, ...]
    reference_images_per_s: float
    model_images_per_s: float
    honesty: Honesty | None = None

    def to_dict(self, labels: Labels) -> dict[str, Any]:
        """Give plain values, ready for JSON."""
        accuracy = self.comparison.accuracy
        return self.comparison.to_dict() | {
            "flipped": [
                {
                    "image": str(flip.path),
                    "reference": labels[flip.reference].name,
                    "model": labels[flip.model].name,
                }
                for flip in self.flips
            ],
            "lost": []
            if accuracy is None
            else [{"label": labels[index].name, "images": count} for index, count in accuracy.lost],
            "reference_images_per_s": self.reference_images_per_s,
            "model_images_per_s": self.model_images_per_s,
            **_score_values(self.honesty),
        }


def _score_values(found: Honesty | None) -> dict[str, Any]:
    """Give the numbers of the scores; no temperature in the file is null."""
    if found is None:
        return {}
    return {key: getattr(found, key) for key in ("ece_before", "ece_after", "answered", "right")}


def check_model(
    classifier: Classifier, module: nn.Module, preprocessing: Preprocessing, samples: Sequence[Sample]
) -> Iterator[int | Report]:
    """Compare a model file with a torch module; yields the number of images done, and last the report.

    Args:
        classifier: The model file.
        module: The reference.
        preprocessing: What an image goes through before the reference sees it.
        samples: Images with their classes.
    """
    reference, model = [], []
    reference_s = model_s = 0.0
    for done, sample in enumerate(samples, start=1):
        start = time.perf_counter()
        reference.append(torch_logits(module, preprocess(read_image(sample.path), preprocessing)[None]))
        between = time.perf_counter()
        model.append(classifier.logits(classifier.pixels(sample.path)[None]))
        reference_s += between - start
        model_s += time.perf_counter() - between
        yield done
    reference_logits, model_logits = np.concatenate(reference), np.concatenate(model)
    targets = [sample.target for sample in samples if sample.target is not None]
    labelled = len(targets) == len(samples)
    comparison = compare(reference_logits, model_logits, targets if labelled else None)
    yield Report(
        comparison=comparison,
        flips=tuple(
            Flip(
                samples[index].path, int(reference_logits[index].argmax()), int(model_logits[index].argmax())
            )
            for index in comparison.flips
        ),
        reference_images_per_s=len(samples) / reference_s,
        model_images_per_s=len(samples) / model_s,
        honesty=_honesty(classifier, model_logits, targets) if labelled else None,
    )


def _honesty(classifier: Classifier, logits: NDArray[np.float32], targets: Sequence[int]) -> Honesty:
    return honesty(
        "data",
        logits,
        targets,
        temperature=classifier.temperature if classifier.calibrated else None,
        threshold=classifier.threshold or 0.0,
    )


def require_same(checkpoint: Checkpoint, classifier: Classifier) -> Preprocessing:
    """Check that a checkpoint and a model file mean the same classes and the same preprocessing.

    Args:
        checkpoint: The reference. What it does not tell is the model file's own.
        classifier: The model file.

    Returns:
        The preprocessing of the reference.

    Raises:
        CheckpointError: They differ; the text names the difference.
    """
    names = f"{checkpoint.source} and {classifier.name}"
    if checkpoint.config.classes != len(classifier.labels):
        raise CheckpointError(
            f"{names} do not belong together: the one has {checkpoint.config.classes} classes, the other "
            f"{len(classifier.labels)}; give the checkpoint that the model was exported from"
        )
    if checkpoint.labels is not None:
        for index, (own, other) in enumerate(
            zip(checkpoint.labels.items, classifier.labels.items, strict=True)
        ):
            if own.name != other.name:
                raise CheckpointError(
                    f"{names} differ in label {index}: {own.name!r} and {other.name!r}; export the model again"
                )
    if checkpoint.preprocessing is None:
        if checkpoint.config.image_size != classifier.preprocessing.crop:
            raise CheckpointError(
                f"{names} differ in the size of their images: {checkpoint.config.image_size} and "
                f"{classifier.preprocessing.crop}; give the checkpoint that the model was exported from"
            )
        return classifier.preprocessing
    own_steps, other_steps = checkpoint.preprocessing, classifier.preprocessing
    for name in (field.name for field in fields(own_steps)):
        if getattr(own_steps, name) != getattr(other_steps, name):
            raise CheckpointError(
                f"{names} differ in their preprocessing: {name} {getattr(own_steps, name)} and "
                f"{getattr(other_steps, name)}; export the model again"
            )
    return own_steps

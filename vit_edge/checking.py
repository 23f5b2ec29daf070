"""Runs a model file and its reference over the same image files: torch itself, or its answers kept in a file.

torch is imported only where torch is run, so that a device needs none.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .data import Sample
from .errors import CheckpointError, DataError
from .evaluation import Comparison, compare
from .kept import KeptAnswers, image_digest
from .runtime.classifier import Classifier
from .runtime.image import read_image
from .runtime.labels import Labels
from .runtime.preprocess import Preprocessing, preprocess
from .scores import Honesty, honesty

if TYPE_CHECKING:
    from torch import nn

    from .checkpoint import Checkpoint


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
        reference_images_per_s: From the file to torch's answer, one image at a time; None where they were kept.
        model_images_per_s: From the file to the model's answer, one image at a time.
        honesty: How far the model's probabilities are from its share of right answers; None without labels.
        missing: Images that kept answers do not know, and that were left out.
        reference: (images, classes) float32, the reference's logits.
    """

    comparison: Comparison
    flips: tuple[Flip, ...]
    reference_images_per_s: float | None
    model_images_per_s: float
    honesty: Honesty | None = None
    missing: int = 0
    reference: NDArray[np.float32] | None = field(default=None, repr=False, compare=False)

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
            "missing": self.missing,
            **_score_values(self.honesty),
        }


def _score_values(found: Honesty | None) -> dict[str, Any]:
    """Give the numbers of the scores; no temperature in the file is null."""
    if found is None:
        return {}
    return {key: getattr(found, key) for key in ("ece_before", "ece_after", "answered", "right")}


def check_model(
    classifier: Classifier, module: "nn.Module", preprocessing: Preprocessing, samples: Sequence[Sample]
) -> Iterator[int | Report]:
    """Compare a model file with a torch module; yields the number of images done, and last the report.

    Args:
        classifier: The model file.
        module: The reference.
        preprocessing: What an image goes through before the reference sees it.
        samples: Images with their classes.
    """
    from .reference import torch_logits

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
    yield _report(
        classifier,
        samples,
        np.concatenate(reference),
        np.concatenate(model),
        reference_images_per_s=len(samples) / reference_s,
        model_images_per_s=len(samples) / model_s,
    )


def check_kept(
    classifier: Classifier, kept: KeptAnswers, samples: Sequence[Sample]
) -> Iterator[int | Report]:
    """Compare a model file with kept answers; yields the number of images done, and last the report.

    Args:
        classifier: The model file.
        kept: The reference's answers; images that they do not know are left out, and counted.
        samples: Images, with their classes where these are known.

    Raises:
        DataError: They know none of the images.
    """
    known: list[Sample] = []
    reference, model = [], []
    model_s = 0.0
    for done, sample in enumerate(samples, start=1):
        digest = image_digest(sample.path)
        if digest in kept.logits:
            start = time.perf_counter()
            model.append(classifier.logits(classifier.pixels(sample.path)[None]))
            model_s += time.perf_counter() - start
            reference.append(kept.logits[digest][None])
            known.append(sample)
        yield done
    if not known:
        raise none_known(kept, len(samples))
    yield _report(
        classifier,
        known,
        np.concatenate(reference),
        np.concatenate(model),
        reference_images_per_s=None,
        model_images_per_s=len(known) / model_s,
        missing=len(samples) - len(known),
    )


def none_known(kept: KeptAnswers, images: int) -> DataError:
    """Say that there is nothing to compare."""
    return DataError(
        f"none of the {images} images is among the {len(kept.logits)} whose answers of {kept.reference} were kept; "
        "they are known by their files' bytes: give the same files"
    )


def _report(
    classifier: Classifier,
    samples: Sequence[Sample],
    reference: NDArray[np.float32],
    model: NDArray[np.float32],
    **rest: Any,
) -> Report:
    targets = [sample.target for sample in samples if sample.target is not None]
    labelled = len(targets) == len(samples)
    comparison = compare(reference, model, targets if labelled else None)
    return Report(
        comparison=comparison,
        flips=tuple(
            Flip(samples[index].path, int(reference[index].argmax()), int(model[index].argmax()))
            for index in comparison.flips
        ),
        honesty=_honesty(classifier, model, targets) if labelled else None,
        reference=reference,
        **rest,
    )


def _honesty(classifier: Classifier, logits: NDArray[np.float32], targets: Sequence[int]) -> Honesty:
    return honesty(
        "data",
        logits,
        targets,
        temperature=classifier.temperature if classifier.calibrated else None,
        threshold=classifier.threshold or 0.0,
    )


def require_same(checkpoint: "Checkpoint", classifier: Classifier) -> Preprocessing:
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
        _require_labels(names, [label.name for label in checkpoint.labels.items], classifier)
    if checkpoint.preprocessing is None:
        if checkpoint.config.image_size != classifier.preprocessing.crop:
            raise CheckpointError(
                f"{names} differ in the size of their images: {checkpoint.config.image_size} and "
                f"{classifier.preprocessing.crop}; give the checkpoint that the model was exported from"
            )
        return classifier.preprocessing
    _require_steps(names, checkpoint.preprocessing, classifier)
    return checkpoint.preprocessing


def require_kept(kept: KeptAnswers, classifier: Classifier) -> None:
    """Check that kept answers and a model file are of the same checkpoint, classes and preprocessing.

    Raises:
        CheckpointError: They are not; the text names the difference.
    """
    names = f"the answers of {kept.reference} and {classifier.name}"
    if len(kept.labels) != len(classifier.labels):
        raise CheckpointError(
            f"{names} do not belong together: the one has {len(kept.labels)} classes, the other "
            f"{len(classifier.labels)}; keep the answers of the checkpoint that the model was exported from"
        )
    _require_labels(names, kept.labels, classifier)
    _require_steps(names, kept.preprocessing, classifier)
    source = classifier.metadata.source.get("sha256")
    if source not in kept.sources:
        raise CheckpointError(
            f"{names} are of different checkpoints: SHA-256 {kept.sources[0][:16]}… and {str(source)[:16]}…; keep the "
            "answers of the one that the model was exported from"
        )


def _require_labels(names: str, own: Sequence[str], classifier: Classifier) -> None:
    for index, (one, other) in enumerate(zip(own, classifier.labels.items, strict=True)):
        if one != other.name:
            raise CheckpointError(
                f"{names} differ in label {index}: {one!r} and {other.name!r}; export the model again"
            )


def _require_steps(names: str, own: Preprocessing, classifier: Classifier) -> None:
    for name in (one.name for one in fields(own)):
        mine, other = getattr(own, name), getattr(classifier.preprocessing, name)
        if mine != other:
            raise CheckpointError(
                f"{names} differ in their preprocessing: {name} {mine} and {other}; export the model again"
            )

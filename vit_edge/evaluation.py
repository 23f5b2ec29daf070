"""Compares a model with its reference: agreement, flips, drift, and where there are labels, the drop."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import OptionError
from .runtime.drift import relative_drift

# The two-sided 95 % quantile of the normal distribution.
_Z95 = 1.959964


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How often the right class is the first, or among the first five, of both models; shares 0..1.

    Attributes:
        drop: Top-1 of the reference less that of the model, in points (hundredths); negative where the model gained.
        drop_interval: The 95 % interval of the drop, in points (see `drop_interval`).
        lost: Per class that lost or gained images: its index, and the images lost (negative: gained), most lost first.
    """

    reference_top1: float
    model_top1: float
    reference_top5: float
    model_top5: float
    drop: float
    drop_interval: tuple[float, float]
    lost: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What two models make of the same images.

    Attributes:
        images: How many images were compared.
        flips: The places of the images on which the two give different top-1 answers.
        max_abs_drift: The largest distance between two logits of the same image and class.
        drift: The mean over the images of |model - reference| / |reference - its mean|, Euclidean norms over the
            classes: the logits' movement as a share of their spread, whatever the scale of the model.
        accuracy: Where the right answers are known.
    """

    images: int
    flips: tuple[int, ...]
    max_abs_drift: float
    drift: float
    accuracy: Accuracy | None = None

    @property
    def agreement(self) -> float:
        """The share of images with the same top-1 answer, 0..1."""
        # One rounded division: 93 of 100 is the 0.93 that a user gives as a bound, 1 - 7 / 100 is less.
        return (self.images - len(self.flips)) / self.images

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, ready for JSON; shares as fractions 0..1, the drop in points, None for no number."""
        values: dict[str, Any] = {
            "images": self.images,
            "agreement": round(self.agreement, 6),
            "flips": len(self.flips),
            "max_abs_drift": _number(self.max_abs_drift),
            "drift": _number(self.drift),
        }
        if self.accuracy is not None:
            values |= {
                "reference_top1": self.accuracy.reference_top1,
                "model_top1": self.accuracy.model_top1,
                "reference_top5": self.accuracy.reference_top5,
                "model_top5": self.accuracy.model_top5,
                "drop": self.accuracy.drop,
                "drop_interval": list(self.accuracy.drop_interval),
            }
        return values


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far a model's answers may be from torch's.

    Attributes:
        min_agreement: The least share of images with torch's top-1 answer, 0..1.
        max_drift: The largest mean relative distance between the logits (see `Comparison`).
        max_drop: The largest loss of top-1 accuracy, in points, where labels are known.
        min_batched_agreement: The least share of images whose answer is the same in a batch and alone, 0..1.
    """

    min_agreement: float
    max_drift: float
    max_drop: float
    min_batched_agreement: float

    def __post_init__(self) -> None:
        for name in ("min_agreement", "min_batched_agreement"):
            if not 0 <= getattr(self, name) <= 1:
                raise OptionError(
                    f"expected --{name.replace('_', '-')} as a share from 0 to 1, got {getattr(self, name)}; "
                    "write 0.98 for 98 %"
                )
        if not self.max_drift >= 0:
            raise OptionError(f"expected --max-drift of at least 0, got {self.max_drift}")
        if math.isnan(self.max_drop):
            raise OptionError("expected --max-drop in points, such as 1 or 0.5, got nan")

    def broken_by(self, comparison: Comparison) -> str | None:
        """Say which bound a comparison breaks, with the number; None where it keeps all."""
        if comparison.agreement < self.min_agreement:
            return (
                f"agreement {100 * comparison.agreement:.2f} % on {comparison.images} images, "
                f"at least {100 * self.min_agreement:g} % wanted"
            )
        # Written so that a drift of NaN is broken too.
        if not comparison.drift <= self.max_drift:
            return f"logit drift {comparison.drift:.3g}, at most {self.max_drift:g} wanted"
        if comparison.accuracy is not None and comparison.accuracy.drop > self.max_drop:
            return (
                f"top-1 drop {comparison.accuracy.drop:.2f} points on {comparison.images} images, "
                f"at most {self.max_drop:g} wanted"
            )
        return None


def require_classes(max_drop: float | None, targets: Sequence[int | None]) -> None:
    """Check that a bound on the loss of accuracy can be kept or broken at all.

    Args:
        max_drop: The bound; None where none is given.
        targets: The right class of each image, None where it is not known.

    Raises:
        OptionError: There is a bound, and the classes are not known.
    """
    if max_drop is not None and (not targets or None in targets):
        raise OptionError(
            "--max-drop bounds a loss of accuracy, and these images' classes are not known; give --data with a folder "
            "per class, or bound the answers by --min-agreement or --max-drift"
        )


def compare(
    reference: NDArray[np.float32], model: NDArray[np.float32], targets: Sequence[int] | None = None
) -> Comparison:
    """Compare the logits of two models on the same images.

    Args:
        reference: (images, classes) float32 logits of the reference.
        model: (images, classes) float32 logits of the model.
        targets: The right class of each image, where known.

    Raises:
        ValueError: The shapes differ, or there is no image.
    """
    if reference.shape != model.shape or not len(reference):
        raise ValueError(f"expected logits of one shape, got {reference.shape} and {model.shape}")
    # A model that answers NaN agrees with nothing: argmax alone would call the first NaN the top class.
    broken = ~np.isfinite(model).all(axis=1)
    flipped = (reference.argmax(axis=1) != model.argmax(axis=1)) | broken
    return Comparison(
        images=len(reference),
        flips=tuple(int(index) for index in np.flatnonzero(flipped)),
        max_abs_drift=float(np.abs(model.astype(np.float64) - reference).max()),
        drift=float(relative_drift(reference, model).mean()),
        accuracy=None if targets is None else _accuracy(reference, model, np.asarray(targets)),
    )


def drop_interval(only_reference: int, only_model: int, images: int) -> tuple[float, float]:
    """Give the 95 % interval of a difference of two paired proportions, in points.

    The adjusted Wald interval of Bonett and Price (2012), "Adjusted Wald confidence interval for a difference of
    binomial proportions based on paired data": one is added to both discordant counts, which keeps its coverage on
    few images and on no discordant ones.

    Args:
        only_reference: Images that only the reference gets right.
        only_model: Images that only the model gets right.
        images: All images.
    """
    lost, won = (only_reference + 1) / (images + 2), (only_model + 1) / (images + 2)
    half = _Z95 * math.sqrt(max(0.0, lost + won - (lost - won) ** 2) / (images + 2))
    return 100 * max(-1.0, lost - won - half), 100 * min(1.0, lost - won + half)


def _number(value: float) -> float | None:
    """JSON has neither NaN nor infinity."""
    return value if math.isfinite(value) else None


def _accuracy(
    reference: NDArray[np.float32], model: NDArray[np.float32], targets: NDArray[np.integer[Any]]
) -> Accuracy:
    reference_right, model_right = (_hits(logits, targets, first=1) for logits in (reference, model))
    only_reference = reference_right & ~model_right
    only_model = model_right & ~reference_right
    lost = {
        int(index): int(only_reference[targets == index].sum() - only_model[targets == index].sum())
        for index in np.unique(targets[only_reference | only_model])
    }
    return Accuracy(
        reference_top1=float(reference_right.mean()),
        model_top1=float(model_right.mean()),
        reference_top5=float(_hits(reference, targets, first=5).mean()),
        model_top5=float(_hits(model, targets, first=5).mean()),
        # One rounded division again: a loss of one image in a hundred breaks no bound of 1 point.
        drop=100 * int(only_reference.sum() - only_model.sum()) / len(targets),
        drop_interval=drop_interval(int(only_reference.sum()), int(only_model.sum()), len(targets)),
        lost=tuple(
            sorted(((index, count) for index, count in lost.items() if count), key=lambda row: -row[1])
        ),
    )


def _hits(logits: NDArray[np.float32], targets: NDArray[np.integer[Any]], *, first: int) -> NDArray[np.bool_]:
    best = np.argsort(-logits, axis=1, kind="stable")[:, :first]
    hits: NDArray[np.bool_] = (best == targets[:, None]).any(axis=1)
    return hits & np.isfinite(logits).all(axis=1)

"""Makes a classifier's probabilities honest: the temperature, the calibration error, and when to say "unknown"."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 15
"""The most bins of the calibration error, as in Guo et al. 2017."""

# Each bin holds at least so many images: in smaller ones the share of right answers is chance.
_BIN_IMAGES = 10

# Fewer labelled images give no temperature.
_FEWEST = 50

# What is outside of these is no temperature of a network, but a sign of wrong labels.
_LOWEST, _HIGHEST = 0.05, 20.0

# Of the calibration images' own confidences, where no labels tell how often the network errs.
_UNSURE_SHARE = 0.05

# The two-sided 95 % quantile of the normal distribution.
_Z95 = 1.959964


@dataclass(frozen=True, slots=True)
class Temperature:
    """What logits are divided by before the softmax (Guo et al. 2017), and its 95 % interval."""

    value: float
    interval: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Honesty:
    """How far probabilities are from the share of right answers, on one set of labelled images.

    Attributes:
        set: The folder.
        images: How many images.
        ece_before: The expected calibration error of the plain softmax (see `calibration_error`).
        ece_after: The same at the temperature; None where there is none.
        answered: The share of images whose answer reaches the threshold, 0..1.
        right: The share of right answers among those; None where there are none.
    """

    set: str
    images: int
    ece_before: float
    ece_after: float | None
    answered: float
    right: float | None

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, ready for JSON."""
        return {
            "set": self.set,
            "images": self.images,
            "ece_before": round(self.ece_before, 6),
            **({} if self.ece_after is None else {"ece_after": round(self.ece_after, 6)}),
            "answered": round(self.answered, 6),
            "right": None if self.right is None else round(self.right, 6),
        }


@dataclass(frozen=True, slots=True)
class Scores:
    """What a file says of its probabilities.

    Attributes:
        threshold: Below this probability an answer is better called unknown.
        temperature: What makes them honest; None where they are not calibrated.
        reason: Why they are not.
        fitted: On the labelled images that fitted the temperature.
        checked: On the labelled images that fitted nothing, where there are any.
        doubt: A sentence where those speak against the temperature.
    """

    threshold: float
    temperature: Temperature | None
    reason: str | None
    fitted: Honesty | None
    checked: Honesty | None
    doubt: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give the file's entry ``vit_edge.scores``."""
        values: dict[str, Any] = {"threshold": self.threshold}
        if self.temperature is not None:
            values |= {
                "temperature": self.temperature.value,
                "temperature_interval": list(self.temperature.interval),
            }
        if self.reason is not None:
            values["not_calibrated"] = self.reason
        if self.fitted is not None:
            values |= self.fitted.to_dict()
        if self.checked is not None:
            values["check"] = self.checked.to_dict()
        if self.doubt is not None:
            values["doubt"] = self.doubt
        return values


def fit_scores(
    fitted: tuple[str, NDArray[np.float32], Sequence[int]] | None,
    checked: tuple[str, NDArray[np.float32], Sequence[int]] | None,
    *,
    unlabelled: NDArray[np.float32],
    reason: str | None = None,
    threshold: float | None = None,
) -> Scores:
    """Find the temperature and the threshold of a finished graph.

    Args:
        fitted: A folder's name, its logits (images, classes) and its right classes: they fit the temperature.
        checked: The same of images that fit nothing; they are only measured.
        unlabelled: (images, classes) float32, logits of images of the user's own.
        reason: Why there are no images to fit on.
        threshold: The user's own, in the place of the default.
    """
    temperature: Temperature | None = None
    doubt = None
    if fitted is not None:
        temperature, reason = _try_to_fit(fitted[1], fitted[2])
        if temperature and checked and _worse(checked[1], checked[2], temperature.value):
            doubt = (
                f"the images of {checked[0]} are likelier without the temperature; were those of {fitted[0]} trained "
                "on, or are they of another kind?"
            )
    if threshold is None:
        classes = unlabelled.shape[1]
        threshold = default_threshold(classes, None if temperature else confidences(unlabelled))
    # What the file holds is what was measured.
    threshold = round(threshold, 4)
    value = temperature.value if temperature else None
    return Scores(
        threshold=threshold,
        temperature=temperature,
        reason=None if temperature else reason,
        fitted=None if fitted is None else honesty(*fitted, temperature=value, threshold=threshold),
        checked=None if checked is None else honesty(*checked, temperature=value, threshold=threshold),
        doubt=doubt,
    )


def honesty(
    name: str,
    logits: NDArray[np.float32],
    targets: Sequence[int],
    *,
    temperature: float | None,
    threshold: float,
) -> Honesty:
    """Measure a graph's probabilities on labelled images.

    Args:
        name: The folder's name.
        logits: (images, classes) float32.
        targets: The right class of each image.
        temperature: The graph's own; None where its scores are not calibrated.
        threshold: Below this probability an answer is unknown.
    """
    # A row with NaN is no answer: it is not sure of anything, and not right.
    right = (logits.argmax(axis=1) == np.asarray(targets)) & np.isfinite(logits).all(axis=1)
    plain = confidences(logits)
    shown = plain if temperature is None else confidences(logits, temperature)
    answered = shown >= threshold
    return Honesty(
        set=name,
        images=len(logits),
        ece_before=calibration_error(plain, right),
        ece_after=None if temperature is None else calibration_error(shown, right),
        answered=float(answered.mean()),
        right=float(right[answered].mean()) if answered.any() else None,
    )


def fit_temperature(logits: NDArray[np.float32], targets: Sequence[int]) -> Temperature:
    """Minimise the negative log-likelihood of the right classes over the temperature (Guo et al. 2017, section 4.2).

    In the inverse temperature it is convex, since log-sum-exp is: its slope rises, and its root is found by Newton's
    steps within a bracket that halves where a step leaves it. The interval is White's (1982, "Maximum likelihood
    estimation of misspecified models"), on the scale of the logarithm.

    Args:
        logits: (images, classes) float32.
        targets: The right class of each image.

    Raises:
        ValueError: No temperature from 0.05 to 20 is the best, as where every answer is right; the text says why.
    """
    # Shifting a row's logits changes no probability.
    rows = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    own = rows[np.arange(len(rows)), np.asarray(targets)]

    def slopes(inverse: float) -> tuple[NDArray[np.float64], float]:
        """Give each image's slope and the mean curvature."""
        weights = np.exp(inverse * rows)
        weights /= weights.sum(axis=1, keepdims=True)
        mean = (weights * rows).sum(axis=1)
        spread = (weights * (rows - mean[:, None]) ** 2).sum(axis=1)
        return mean - own, float(spread.mean())

    low, high = 1 / _HIGHEST, 1 / _LOWEST
    if slopes(low)[0].mean() >= 0:
        raise ValueError(
            "the right classes are no likelier than others; are the folders named as the labels?"
        )
    if slopes(high)[0].mean() <= 0:
        raise ValueError(
            f"as good as all of the {len(rows)} images are answered right, which tells nothing of how often the "
            "network errs; give images that it was not trained on"
        )
    inverse = 1.0
    for _ in range(100):
        single, curvature = slopes(inverse)
        slope = float(single.mean())
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        step = inverse - slope / curvature if curvature > 0 else low
        following = step if low < step < high else (low + high) / 2
        if abs(following - inverse) <= 1e-10 * inverse:
            break
        inverse = following
    single, curvature = slopes(inverse)
    error = math.sqrt(float((single**2).mean()) / len(single)) / (curvature * inverse)
    factor = math.exp(min(_Z95 * error, 50.0))
    value = 1 / inverse
    return Temperature(_significant(value), (_significant(value / factor), _significant(value * factor)))


def calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """Give the expected calibration error: the mean gap between confidence and share of right answers (0..1).

    The images are sorted by the confidence of their first answer and cut into 15 bins of as many images each
    (adaptive bins: Nixon et al. 2019, "Measuring calibration in deep learning"; they are less biased than bins of
    equal width, Roelofs et al. 2022), fewer where a bin would hold less than 10.

    Args:
        confidence: (images,) the probability of each image's first answer.
        right: (images,) whether it is right.

    >>> round(calibration_error(np.full(20, 0.9), np.arange(20) < 10), 6)
    0.4
    """
    bins = max(1, min(BINS, len(confidence) // _BIN_IMAGES))
    # Equal confidences share a bin: which of them comes first means nothing.
    ranks = np.searchsorted(np.sort(confidence), confidence, side="left")
    gaps = np.bincount(ranks * bins // len(confidence), weights=right - confidence)
    return float(np.abs(gaps).sum()) / len(confidence)


def confidences(logits: NDArray[np.float32], temperature: float = 1.0) -> NDArray[np.float64]:
    """Give the probability of each row's first answer: (images,) float64; 0 where a row is no answer."""
    usable = np.asarray(np.isfinite(logits).all(axis=1))
    rows = np.where(usable[:, None], logits, 0).astype(np.float64)
    exponents = np.exp((rows - rows.max(axis=1, keepdims=True)) / temperature)
    return np.where(usable, 1 / exponents.sum(axis=1), 0.0)


def default_threshold(classes: int, confidence: NDArray[np.float64] | None = None) -> float:
    """Give the probability below which an answer is called unknown.

    It lies half way from a blind guess to certainty: with honest probabilities that is Chow's rule (1970, "On optimum
    recognition error and reject tradeoff") where "unknown" costs half of what a blind guess costs.

    Args:
        classes: How many classes there are.
        confidence: Where the scores are not calibrated: the probability of the first answer on images of the user's
            own. The threshold then is no higher than what 95 % of these reach, since nothing tells how often the
            network errs.

    >>> default_threshold(2), default_threshold(10)
    (0.75, 0.55)
    """
    half_way = (1 + 1 / classes) / 2
    if confidence is None:
        return half_way
    return min(half_way, float(np.quantile(confidence, _UNSURE_SHARE)))


def _try_to_fit(logits: NDArray[np.float32], targets: Sequence[int]) -> tuple[Temperature | None, str | None]:
    if len(logits) < _FEWEST:
        return None, f"expected at least {_FEWEST} labelled images to fit a temperature on, got {len(logits)}"
    try:
        return fit_temperature(logits, targets), None
    except ValueError as error:
        return None, str(error)


def _worse(logits: NDArray[np.float32], targets: Sequence[int], temperature: float) -> bool:
    """Whether a temperature makes the right classes less likely than none does, beyond chance (paired, one-sided)."""
    plain, cooled = (_losses(logits, targets, value) for value in (1.0, temperature))
    difference = cooled - plain
    return bool(difference.mean() > _Z95 * difference.std() / math.sqrt(len(difference)))


def _losses(logits: NDArray[np.float32], targets: Sequence[int], temperature: float) -> NDArray[np.float64]:
    """Give each image's negative log-likelihood."""
    rows = (logits.astype(np.float64) - logits.max(axis=1, keepdims=True)) / temperature
    own = rows[np.arange(len(rows)), np.asarray(targets)]
    return np.asarray(np.log(np.exp(rows).sum(axis=1)) - own)


def _significant(value: float) -> float:
    return float(f"{value:.6g}")

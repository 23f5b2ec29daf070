"""Replays a model file's capsule: decode, resize and inference, each compared apart with what the workshop had."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .capsule import Capsule, Difference, Picture, resize_chart
from .classifier import Classifier
from .drift import relative_drift
from .errors import ImageError, ModelError
from .graph_input import Pixels
from .image import read_image
from .preprocess import crop_pixels, normalise
from .session import PROVIDERS

# Decoders of JPEG may round differently: with a floating-point transform in the place of the usual one, libjpeg-turbo's
# pixels move by up to 3 levels and by 0.03 to 0.08 in the mean. Its fast transform moves them by 1 in the mean, and
# upsampling of colours without smoothing by 0.2 and up to 56 (benchmarks/decoders.py).
_DECODE_LEVELS, _DECODE_MEAN = 4, 0.25

# So much drift such a decoder may add from the file to the answer: 0.025 were measured on a float32 ViT-Tiny.
_DECODE_DRIFT = 0.05

# The resize is exact by design; a processor that rounds a weight otherwise may move a value here and there by one.
_RESIZE_LEVELS, _RESIZE_SHARE = 1, 0.01

_MARGIN = 1.5
"""How many times the drift that the file's own answers had when it was made is still as it should be."""

# What another build of ONNX Runtime, another processor or TensorFloat-32 may add to a drift of nothing.
_FLOOR = 0.005


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of the way from a file to an answer.

    Attributes:
        name: ``decode``, ``resize``, ``inference`` or ``whole``, from the file to the answer.
        passed: Whether it does what it did in the workshop, within its tolerance.
        finding: What was found, as a sentence without its subject.
        values: The numbers, ready for JSON.
    """

    name: str
    passed: bool
    finding: str
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Replay:
    """What a replay found.

    Attributes:
        stages: In the order of the way of an image; the whole comes last, where a picture could be decoded at all.
        fault: The stage at fault, the first one where there are several; None where the answers are the reference's.
    """

    stages: tuple[Stage, ...]
    fault: str | None

    @property
    def passed(self) -> bool:
        """Whether this device gives the reference's answers."""
        return self.fault is None

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, ready for JSON."""
        return {
            "passed": self.passed,
            "fault": self.fault,
            "stages": {
                stage.name: {"passed": stage.passed, "finding": stage.finding, **stage.values}
                for stage in self.stages
            },
        }


def replay(
    classifier: Classifier, capsule: Capsule, *, max_drift: float | None = None
) -> Iterator[int | Replay]:
    """Take a capsule's pictures through an open model; yields the number of pictures done, and last what was found.

    Args:
        classifier: The model, on the execution provider in question.
        capsule: Out of the same file.
        max_drift: The largest drift of the logits that passes; unless given, 1.5 times that which the file's answers
            had when it was made, at least 0.005, and on another provider at least the bound that the export kept.

    Raises:
        ModelError: The capsule is of another model, or ONNX Runtime failed.
    """
    _require_fit(classifier, capsule)
    decoded: list[NDArray[np.uint8] | ImageError] = []
    stored: list[NDArray[np.float32]] = []
    own: list[NDArray[np.float32]] = []
    for done, picture in enumerate(capsule.pictures, start=1):
        pixels = _decode(picture)
        decoded.append(pixels)
        given = _given(classifier, picture.crop)
        stored.append(classifier.logits(given[None]))
        if not isinstance(pixels, ImageError):
            there = classifier.pixels(picture.jpeg)
            # Where the pixels are those of the stored crop, so is the answer.
            same = np.array_equal(there, given)
            own.append(stored[-1] if same else classifier.logits(there[None]))
        yield done
    decode = _judge_decode(capsule.pictures, decoded)
    resize = _judge_resize(classifier, capsule, decoded)
    limit = _limit(classifier, capsule) if max_drift is None else max_drift
    stages = [decode, resize, _judge_logits("inference", capsule, stored, limit)]
    if len(own) == len(capsule.pictures):
        # A limit that is given is for the whole way.
        if max_drift is None and not decode.values["exact"]:
            limit += _DECODE_DRIFT
        stages.append(_judge_logits("whole", capsule, own, limit))
    fault = next((stage.name for stage in stages if not stage.passed), None)
    # No stage is far off, and the answers are all the same: the one that is not exact has moved them.
    if fault == "whole":
        fault = next((one.name for one in (decode, resize) if not one.values["exact"]), "inference")
    yield Replay(tuple(stages), fault)


def _require_fit(classifier: Classifier, capsule: Capsule) -> None:
    for picture in capsule.pictures:
        expected = (*classifier.preprocessing.crop, 3), (len(classifier.labels),)
        if (picture.crop.shape, picture.logits.shape) != expected:
            raise ModelError(
                f"the capsule does not belong to {classifier.name}: expected crops of shape {expected[0]} and "
                f"{expected[1][0]} logits, got {picture.crop.shape} and {picture.logits.size}; export the file anew"
            )


def _given(classifier: Classifier, crop: NDArray[np.uint8]) -> Pixels:
    """Make what the graph takes of a crop."""
    return crop if classifier.input == "uint8" else normalise(crop, classifier.preprocessing)


def _decode(picture: Picture) -> NDArray[np.uint8] | ImageError:
    try:
        return read_image(picture.jpeg)
    except ImageError as error:
        return error


def _judge_decode(pictures: Sequence[Picture], decoded: Sequence[NDArray[np.uint8] | ImageError]) -> Stage:
    found = []
    for picture, pixels in zip(pictures, decoded, strict=True):
        if isinstance(pixels, ImageError):
            return Stage("decode", False, f"cannot decode {picture.name}: {pixels}", {"exact": False})
        difference = picture.pixels.difference(pixels)
        if difference is None:
            height, width = picture.pixels.size
            return Stage(
                "decode",
                False,
                f"makes {pixels.shape[0]}x{pixels.shape[1]} pixels of {picture.name}, which has {height}x{width}",
                {"exact": False},
            )
        found.append(difference)
    total = _total(found)
    within = total.largest <= _DECODE_LEVELS and total.mean <= _DECODE_MEAN
    if total.exact:
        finding = "gives the workshop's pixels"
    else:
        finding = f"gives other pixels than the workshop's decoder: {_levels(total)}"
        finding += (
            ", as another build of libjpeg may"
            if within
            else f", more than the {_DECODE_LEVELS} at most and {_DECODE_MEAN} in the mean of another build of libjpeg"
        )
    return Stage("decode", total.exact or within, finding, total.to_dict())


def _judge_resize(
    classifier: Classifier, capsule: Capsule, decoded: Sequence[NDArray[np.uint8] | ImageError]
) -> Stage:
    """Compare what the resize makes of the test chart, and of the pictures whose decoded pixels are the workshop's."""
    preprocessing = classifier.preprocessing
    chart = capsule.chart.difference(crop_pixels(resize_chart(), preprocessing))
    if chart is None:
        raise ModelError(
            f"the capsule does not belong to {classifier.name}: its test chart was cropped to another size; "
            "export the file anew"
        )
    found = [chart]
    for picture, pixels in zip(capsule.pictures, decoded, strict=True):
        if not isinstance(pixels, ImageError):
            before = picture.pixels.difference(pixels)
            if before is not None and before.exact:
                found.append(Difference.of(picture.crop, crop_pixels(pixels, preprocessing)))
    total = _total(found)
    within = total.largest <= _RESIZE_LEVELS and total.share <= _RESIZE_SHARE
    on = "the test chart" if len(found) == 1 else f"the test chart and {len(found) - 1} pictures"
    finding = (
        f"gives the workshop's crops of {on}"
        if total.exact
        else f"gives other crops than the workshop's of {on}: {_levels(total)}"
    )
    return Stage("resize", total.exact or within, finding, total.to_dict() | {"pictures": len(found) - 1})


def _total(found: Sequence[Difference]) -> Difference:
    return Difference(
        exact=all(one.exact for one in found),
        share=float(np.mean([one.share for one in found])),
        largest=max(one.largest for one in found),
        mean=float(np.mean([one.mean for one in found])),
    )


def _levels(difference: Difference) -> str:
    return (
        f"{100 * difference.share:.2g} % of the values, by {difference.largest} of 255 levels at most and "
        f"{difference.mean:.2g} in the mean"
    )


def _limit(classifier: Classifier, capsule: Capsule) -> float:
    """Give the largest drift of logits that passes."""
    limit = max(_FLOOR, _MARGIN * capsule.drift)
    if PROVIDERS[classifier.provider] != capsule.provider:
        limit = max(limit, float(classifier.metadata.proof.get("bounds", {}).get("max_drift", 0.0)))
    return limit


def _judge_logits(name: str, capsule: Capsule, rows: Sequence[NDArray[np.float32]], limit: float) -> Stage:
    """Compare logits with the reference's: drift within a limit, and the same first answers where these are clear."""
    reference = np.stack([picture.logits for picture in capsule.pictures])
    if capsule.drift > 0:
        # As the drift may grow, so may the largest distance of two logits.
        movements = np.full(len(reference), capsule.max_abs_drift * limit / capsule.drift)
    else:
        # An exact graph has none; three standard deviations of a drift that is spread over all classes.
        movements = 3 * limit * reference.std(axis=1, dtype=np.float64)
    logits = np.concatenate(rows)
    drift = float(relative_drift(reference, logits).mean())
    broken = np.logical_not(np.isfinite(logits).all(axis=1))
    flips = np.flatnonzero((logits.argmax(axis=1) != reference.argmax(axis=1)) | broken)
    wrong = [place for place in flips if broken[place] or capsule.pictures[place].margin > movements[place]]
    answers = len(logits) - len(flips)
    finding = f"{answers} of {len(logits)} first answers are the reference's, drift {drift:.3g}"
    finding += f" ({capsule.drift:.3g} when it was made, at most {limit:.3g} passes)"
    if wrong:
        names = ", ".join(capsule.pictures[place].name for place in wrong)
        finding += f"; {names}: another answer by a clear margin"
    elif len(flips):
        finding += f"; {len(flips)} by so narrow a margin that the drift explains it"
    # Written so that a drift of NaN does not pass.
    return Stage(
        name,
        drift <= limit and not wrong,
        finding,
        {
            "images": len(logits),
            "agreement": answers / len(logits),
            "flips": len(flips),
            "clear_flips": len(wrong),
            "drift": _finite(drift),
            "recorded_drift": capsule.drift,
            "max_drift": limit,
            "max_abs_drift": _finite(np.abs(logits.astype(np.float64) - reference).max()),
        },
    )


def _finite(value: float) -> float | None:
    """JSON has neither NaN nor infinity."""
    return float(value) if np.isfinite(value) else None

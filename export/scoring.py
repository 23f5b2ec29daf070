"""Fits the temperature of a graph that ships, on images whose labels are known, and finds when to say "unknown"."""

from collections.abc import Generator
from pathlib import Path

import onnx

from ..data import labelled_images
from ..errors import DataError
from ..runtime.labels import Labels
from ..runtime.preprocess import Preprocessing
from ..scores import Scores, fit_scores
from .elsewhere import Elsewhere
from .images import Images, Tick, labelled, spread
from .options import Options
from .verdict import Verdict, answers

# A temperature takes more images than a search, and each costs no more than one answer of the finished graph.
_SCORED = 4


def labelled_for_scores(
    calibrate: Path | None, labels: Labels, preprocessing: Preprocessing, options: Options
) -> Images | str:
    """Give the images that fit the temperature, or why there are none.

    Args:
        calibrate: The folder; the labels of its images are known where it holds a folder per class.
        labels: The classes.
        preprocessing: From an image to the network's input.
        options: Four times its `samples` are used.
    """
    if calibrate is None:
        return "no --calibrate was given, and the images of --check fit nothing"
    try:
        samples = labelled_images(calibrate, labels)
    except DataError as error:
        return f"the images of --calibrate have no labels: {error}"
    return labelled(calibrate, spread(samples, _SCORED * options.samples), preprocessing)


def score(
    model: onnx.ModelProto,
    verdict: Verdict,
    *,
    fitting: Images,
    checking: Images | None,
    labelled: Images | str,
    elsewhere: Elsewhere | None,
    threshold: float | None,
) -> Generator[Tick, None, Scores]:
    """Fit the temperature of a graph as it ships, on the provider that it ships for where that is at hand.

    Args:
        model: The graph.
        verdict: What was found when it was checked.
        fitting: The calibration images, whose labels are not used.
        checking: The images that only veto: their calibration error is measured.
        labelled: The images that fit, or why there are none.
        elsewhere: Where the target's provider is at hand; None where the CPU provider stands in.
        threshold: The user's own, in the place of the default.
    """
    own = verdict.fitted_logits
    if own is None:
        own = yield from answers(model, fitting, elsewhere, stage="scores")
    checked = None
    if checking is not None and checking.targets is not None and verdict.checked_logits is not None:
        checked = checking.name, verdict.checked_logits, checking.targets
    if isinstance(labelled, str):
        return fit_scores(None, checked, unlabelled=own, reason=labelled, threshold=threshold)
    assert labelled.targets is not None
    logits = yield from answers(model, labelled, elsewhere, stage="scores")
    fitted = labelled.name, logits, labelled.targets
    return fit_scores(fitted, checked, unlabelled=own, threshold=threshold)

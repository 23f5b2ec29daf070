"""Probabilities are made honest by one number, and where that cannot be told, nothing is made up."""

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from vit_edge.scores import (
    Temperature,
    calibration_error,
    confidences,
    default_threshold,
    fit_scores,
    fit_temperature,
    honesty,
)

Logits = NDArray[np.float32]


def honest(images: int, classes: int = 10, seed: int = 0) -> tuple[Logits, list[int]]:
    """Draw logits, and right classes that come just as often as their softmax says."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (images, classes)).astype(np.float32)
    # The largest of logits with Gumbel noise is a draw from their softmax.
    targets = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
    return logits, targets.tolist()


def loss(logits: Logits, targets: list[int], temperature: float) -> float:
    rows = logits.astype(np.float64) / temperature
    own = rows[np.arange(len(rows)), targets]
    return float((np.log(np.exp(rows).sum(axis=1)) - own).mean())


def test_the_temperature_is_the_likeliest_one() -> None:
    """Guo et al. minimise the negative log-likelihood; a step either way must cost some."""
    for seed, scale in ((1, 1.0), (2, 3.0), (3, 0.2)):
        logits, targets = honest(300, seed=seed)
        scaled = (scale * logits).astype(np.float32)
        found = fit_temperature(scaled, targets).value
        best = loss(scaled, targets, found)
        assert best < loss(scaled, targets, 1.001 * found)
        assert best < loss(scaled, targets, found / 1.001)


@pytest.mark.parametrize("scale", [0.25, 1.0, 3.0, 8.0])
def test_a_network_that_exaggerates_is_found_out(scale: float) -> None:
    """Logits three times too large are what overfitting makes of them: the temperature is then three."""
    logits, targets = honest(20_000)
    found = fit_temperature((scale * logits).astype(np.float32), targets)
    assert found.value == pytest.approx(scale, rel=0.03)
    assert found.interval[0] < found.value < found.interval[1]


def test_only_the_ratio_of_logits_counts() -> None:
    """What is added to an image's logits changes no probability, and huge ones must not overflow."""
    logits, targets = honest(200)
    shifted = logits + np.linspace(-500, 5000, 200, dtype=np.float32)[:, None]
    assert fit_temperature(shifted, targets).value == pytest.approx(
        fit_temperature(logits, targets).value, rel=1e-3
    )
    assert fit_temperature(10 * logits, targets).value == pytest.approx(
        10 * fit_temperature(logits, targets).value, rel=1e-5
    )


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """An interval that is too narrow sells chance as a finding: with few images it has to be wide."""
    hits, widths = 0, {}
    for seed in range(300):
        low, high = fit_temperature(*honest(100, seed=seed)).interval
        hits += low <= 1 <= high
        widths[100] = high - low
    assert 0.92 <= hits / 300 <= 0.98
    low, high = fit_temperature(*honest(10_000)).interval
    assert high - low < widths[100] / 5


def test_images_that_are_all_answered_right_tell_no_temperature() -> None:
    """The likelihood then grows without end as the temperature falls, and everything would be called certain."""
    logits, _ = honest(200)
    targets = logits.argmax(axis=1).tolist()
    with pytest.raises(ValueError, match="as good as all of the 200 images are answered right"):
        fit_temperature(logits, targets)
    scores = fit_scores(("train", logits, targets), None, unlabelled=logits)
    assert scores.temperature is None
    assert scores.reason is not None
    assert "give images that it was not trained on" in scores.reason


def test_labels_that_do_not_fit_the_answers_are_told() -> None:
    """Folders named by another list of classes would make a temperature of a thousand."""
    logits, _ = honest(200)
    wrong = (-logits).argmax(axis=1).tolist()
    with pytest.raises(ValueError, match="no likelier than others; are the folders named as the labels"):
        fit_temperature(logits, wrong)


def test_few_images_fit_nothing() -> None:
    """A temperature of a dozen images is noise with four digits."""
    logits, targets = honest(49)
    scores = fit_scores(("few", logits, targets), None, unlabelled=logits)
    assert scores.temperature is None
    assert scores.reason == "expected at least 50 labelled images to fit a temperature on, got 49"
    logits, targets = honest(50)
    assert fit_scores(("few", logits, targets), None, unlabelled=logits).temperature is not None


def test_the_calibration_error_is_the_mean_gap_of_bins_of_as_many_images() -> None:
    """By hand: 20 images in two bins, of which the lower says 0.4 and is right 0.5, the upper says 0.9 and 0.6."""
    confidence = np.array([0.9, 0.4] * 10)
    right = np.zeros(20, bool)
    right[[0, 2, 4, 6, 8, 10]] = True
    right[[1, 3, 5, 7, 9]] = True
    assert calibration_error(confidence, right) == pytest.approx((0.3 + 0.1) / 2)


def test_fewer_images_make_fewer_bins_and_many_make_fifteen() -> None:
    """A bin of one image is off by its whole confidence, however honest that is."""
    right = np.arange(9) % 2 == 0
    # One bin: the mean confidence is 0.5, and 5 of 9 are right.
    assert calibration_error(np.linspace(0, 1, 9), right) == pytest.approx(5 / 9 - 0.5)
    # Confidence and hits that agree on the whole, and in each of 15 bins are apart by 0.1.
    confidence = np.repeat(np.linspace(0.2, 0.8, 15), 100)
    hits = np.concatenate(
        [np.arange(100) < round(100 * (0.2 + 0.6 * bin_ / 14)) + (10, -10)[bin_ % 2] for bin_ in range(15)]
    )
    assert calibration_error(confidence, hits) == pytest.approx(0.1, abs=0.005)


def test_an_exaggerating_network_is_made_honest() -> None:
    """The error falls by a large part on images that fitted nothing, and the answers stay."""
    logits, targets = honest(4000)
    loud = 3 * logits
    scores = fit_scores(
        ("a", loud[:2000], targets[:2000]), ("b", loud[2000:], targets[2000:]), unlabelled=loud[:100]
    )
    assert scores.temperature is not None
    for found in (scores.fitted, scores.checked):
        assert found is not None
        assert found.ece_after is not None
        assert found.ece_before > 0.15
        assert found.ece_after < 0.05
    assert scores.doubt is None
    assert scores.reason is None


def test_images_that_contradict_the_temperature_raise_a_doubt() -> None:
    """Nearly all answers are right on images that were trained on; others show that the network errs."""
    logits, targets = honest(1000)
    learnt = np.where(np.arange(1000) < 980, logits.argmax(axis=1), targets).tolist()
    scores = fit_scores(("train", logits, learnt), ("test", logits, targets), unlabelled=logits)
    assert scores.temperature is not None
    assert scores.temperature.value < 0.7
    assert scores.doubt is not None
    assert "the images of test are likelier without the temperature; were those of train trained on" in (
        scores.doubt
    )
    assert scores.to_dict()["doubt"] == scores.doubt
    again = fit_scores(("a", logits, targets), ("b", logits, targets), unlabelled=logits)
    assert again.doubt is None


def test_the_threshold_lies_half_way_from_a_blind_guess_to_certainty() -> None:
    """Of two classes one half is a blind guess, of a thousand it is not."""
    logits, targets = honest(500)
    assert default_threshold(2) == 0.75
    assert default_threshold(1000) == pytest.approx(0.5005)
    assert fit_scores(("a", logits, targets), None, unlabelled=logits).threshold == 0.55
    assert fit_scores(("a", logits, targets), None, unlabelled=logits, threshold=0.3).threshold == 0.3


def test_without_labels_no_more_than_a_twentieth_becomes_unknown() -> None:
    """Nothing tells how often the network errs, and one that is shy by habit must not be silenced."""
    shy = (0.1 * honest(400)[0]).astype(np.float32)
    scores = fit_scores(None, None, unlabelled=shy, reason="no labels")
    assert scores.reason == "no labels"
    assert scores.threshold < 0.3
    assert (confidences(shy) < scores.threshold).mean() == pytest.approx(0.05, abs=0.005)
    sure = 100 * shy
    assert fit_scores(None, None, unlabelled=sure, reason="no labels").threshold == pytest.approx(0.55)


def test_what_is_answered_and_right_is_counted_at_the_threshold() -> None:
    """It is what a user decides by: how many answers come, and how many of these are right."""
    logits = np.log(np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.3, 0.7]], np.float32))
    found = honesty("a", logits, [0, 1, 0, 1], temperature=None, threshold=0.65)
    assert found.answered == 0.75
    assert found.right == pytest.approx(2 / 3)
    found = honesty("a", logits, [0, 1, 0, 1], temperature=None, threshold=0.95)
    assert (found.answered, found.right) == (0.0, None)


def test_a_row_without_numbers_is_neither_sure_nor_right() -> None:
    """A float16 graph that overflows must show in the figures, and JSON has no NaN."""
    logits = np.array([[np.nan, 1], [np.inf, 1], [3, 1]] * 10, np.float32)
    assert confidences(logits[:3]).tolist() == [0, 0, pytest.approx(1 / (1 + np.exp(-2)))]
    found = honesty("a", logits, [0] * 30, temperature=2.0, threshold=0.5)
    assert found.answered == pytest.approx(1 / 3)
    assert found.right == 1.0
    json.dumps(found.to_dict(), allow_nan=False)


def test_the_entry_of_the_file_is_plain() -> None:
    """It goes into JSON as it is; what is not there is left out."""
    logits, targets = honest(500)
    scores = fit_scores(("a", logits, targets), ("b", logits, targets), unlabelled=logits)
    values = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert values.keys() == {
        *("threshold", "temperature", "temperature_interval"),
        *("set", "images", "ece_before", "ece_after", "answered", "right", "check"),
    }
    assert isinstance(scores.temperature, Temperature)
    assert values["temperature"] == scores.temperature.value
    assert values["check"].keys() == {"set", "images", "ece_before", "ece_after", "answered", "right"}
    bare = fit_scores(None, None, unlabelled=logits, reason="no labels").to_dict()
    assert bare.keys() == {"threshold", "not_calibrated"}

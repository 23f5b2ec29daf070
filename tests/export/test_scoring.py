"""The temperature is fitted on the graph that ships, on labelled images that calibrate, and on no others."""

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from vit_edge.checkpoint import load_checkpoint
from vit_edge.data import labelled_images
from vit_edge.errors import OptionError
from vit_edge.export import Export, Options, export_module
from vit_edge.runtime import Classifier
from vit_edge.runtime.prediction import softmax
from vit_edge.scores import fit_temperature

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def blur(images: Path, folder: Path, *, seed: int) -> Path:
    """Make images that are hard to read, a folder per class: a network that knows clean ones then errs."""
    random = np.random.default_rng(seed)
    for path in sorted(images.glob("*/*.png")):
        picture = np.asarray(cv2.imread(str(path)), np.float32)
        noisy = 0.5 * picture + random.normal(0, 45, picture.shape)
        (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / path.parent.name / path.name), noisy.clip(0, 255).astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def hard(digits_images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Give hard images to calibrate with, and others to check with."""
    folder = tmp_path_factory.mktemp("hard")
    return (
        blur(digits_images / "calibrate", folder / "calibrate", seed=1),
        blur(digits_images / "test", folder / "test", seed=2),
    )


def export(
    checkpoint: Path, output: Path, calibrate: Path | None, check: Path | None, **options: Any
) -> Export:
    loaded = load_checkpoint(checkpoint)
    assert loaded.labels is not None
    assert loaded.preprocessing is not None
    chosen: dict[str, Any] = {"precision": "float32", "simplify": False, "samples": 32} | options
    return export_module(
        loaded.model,
        output,
        labels=loaded.labels,
        preprocessing=loaded.preprocessing,
        calibrate=calibrate,
        check=check,
        options=Options(**chosen),
    )


@pytest.fixture(scope="module")
def calibrated(
    digits_checkpoint: Path, hard: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Export:
    """Give a file whose temperature was fitted on hard images, in INT8, where the fit is after the rounding."""
    options: dict[str, Any] = {"precision": "int8", "min_speedup": 0.0, "budget_s": 0.0, "min_agreement": 0.5}
    folder = tmp_path_factory.mktemp("calibrated")
    return export(digits_checkpoint, folder / "model.onnx", *hard, **options)


def test_the_temperature_is_that_of_the_shipped_graphs_own_logits(
    calibrated: Export, hard: tuple[Path, Path]
) -> None:
    """Quantization moves the logits: what was fitted on torch's would be another network's."""
    with Classifier(calibrated.path) as classifier:
        samples = labelled_images(hard[0], classifier.labels)
        logits = np.concatenate([classifier.logits(classifier.pixels(s.path)[None]) for s in samples])
        again = fit_temperature(logits, [s.target or 0 for s in samples])
        assert calibrated.precision == "int8"
        assert classifier.calibrated
        # All of the folder's images, though the search used but 32: the order in which they come rounds otherwise.
        assert classifier.metadata.scores["images"] == len(samples) == 80
        assert classifier.temperature == pytest.approx(again.value, rel=1e-4)
    assert calibrated.scores.temperature is not None
    assert calibrated.scores.to_dict() == classifier.metadata.scores


def test_the_runtime_applies_it_and_no_answer_changes(calibrated: Export, hard: tuple[Path, Path]) -> None:
    """A temperature moves probabilities; top-1 and agreement are as they were."""
    with Classifier(calibrated.path) as classifier:
        temperature = classifier.temperature
        assert abs(temperature - 1) > 0.05
        for sample in labelled_images(hard[1], classifier.labels)[::7]:
            logits = classifier.logits(classifier.pixels(sample.path)[None])
            prediction = classifier(sample.path, top=10)
            expected = softmax(logits / np.float32(temperature))[0]
            np.testing.assert_allclose(
                [score.probability for score in prediction.top], np.sort(expected)[::-1], rtol=1e-5
            )
            assert prediction.index == logits.argmax()


def test_the_error_is_smaller_after_on_images_that_fitted_nothing(calibrated: Export) -> None:
    """Or the whole effort is for nothing: noise as this makes a network that learnt clean images boast."""
    scores = calibrated.scores
    assert scores.fitted is not None
    assert scores.checked is not None
    assert (scores.fitted.set, scores.checked.set) == ("calibrate", "test")
    assert (scores.fitted.images, scores.checked.images) == (80, 120)
    assert scores.fitted.ece_after is not None
    assert scores.checked.ece_after is not None
    assert scores.fitted.ece_after < scores.fitted.ece_before
    assert scores.checked.ece_after < scores.checked.ece_before


def test_images_of_the_check_fit_nothing(
    digits_checkpoint: Path, hard: tuple[Path, Path], tmp_path: Path
) -> None:
    """They have the last word, which they lose as soon as something was fitted on them."""
    result = export(digits_checkpoint, tmp_path / "model.onnx", None, hard[1])
    assert result.scores.temperature is None
    assert result.scores.reason == "no --calibrate was given, and the images of --check fit nothing"
    assert result.scores.checked is not None
    assert result.scores.checked.ece_after is None
    with Classifier(result.path) as classifier:
        assert not classifier.calibrated
        assert classifier.temperature == 1.0
        assert classifier.metadata.scores["check"]["ece_before"] > 0
        assert classifier.threshold is not None


def test_images_without_labels_are_said_to_have_none(
    digits_checkpoint: Path, hard: tuple[Path, Path], tmp_path: Path
) -> None:
    """A folder that is misspelt by one letter must not cost the calibration without a word."""
    calibrate = tmp_path / "photos"
    shutil.copytree(hard[0], calibrate)
    (calibrate / "zero").rename(calibrate / "zreo")
    result = export(digits_checkpoint, tmp_path / "model.onnx", calibrate, None)
    assert result.scores.temperature is None
    assert result.scores.reason is not None
    assert result.scores.reason.startswith("the images of --calibrate have no labels: ")
    assert "'zreo'" in result.scores.reason
    assert result.scores.fitted is None
    assert 0 < result.scores.threshold <= 0.55


def test_more_images_fit_the_temperature_than_the_search_takes_but_not_all_of_many(
    digits_checkpoint: Path, hard: tuple[Path, Path], tmp_path: Path
) -> None:
    """A search looks at each image many times, a temperature once; a million of them would still take a day."""
    result = export(digits_checkpoint, tmp_path / "model.onnx", hard[0], None, samples=15, threshold=0.25)
    assert result.scores.fitted is not None
    assert result.scores.fitted.images == 60
    assert result.comparison.images == 15
    with Classifier(result.path) as classifier:
        assert classifier.threshold == 0.25


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
def test_a_threshold_that_is_no_probability_is_refused(threshold: float) -> None:
    """50 for 50 % would make everything unknown on the device."""
    with pytest.raises(OptionError, match="expected --threshold from 0 to 1"):
        Options(threshold=threshold)

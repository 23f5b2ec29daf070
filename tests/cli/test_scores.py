"""The scores on the command line: how far they can be trusted, and below which an answer is unknown."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from vit_edge.runtime import Classifier

from ..export.test_scoring import blur
from ..runtime.onnx_writer import METADATA, colour_model, flat_colour, save_picture
from .command import Entry

SCORES = {
    "threshold": 0.9,
    "temperature": 2.0,
    "temperature_interval": [1.5, 2.7],
    **{
        "set": "labelled",
        "images": 512,
        "ece_before": 0.0712,
        "ece_after": 0.0231,
        "answered": 0.9,
        "right": 0.95,
    },
    "check": {
        "set": "others",
        "images": 99,
        "ece_before": 0.05,
        "ece_after": 0.06,
        "answered": 0.8,
        "right": 0.9,
    },
    "doubt": "the images of others are likelier without the temperature",
}


@pytest.fixture
def classify(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Entry:
    return Entry("classify", monkeypatch, capfd)


@pytest.fixture
def info(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Entry:
    return Entry("info", monkeypatch, capfd)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder with a calibrated file, one that is not, and pictures that are clear and unclear."""
    (tmp_path / "calibrated.onnx").write_bytes(colour_model(replace(METADATA, scores=SCORES)))
    (tmp_path / "plain.onnx").write_bytes(colour_model())
    save_picture(tmp_path / "clear.png", flat_colour("red"))
    save_picture(tmp_path / "unclear.png", flat_colour("red", shade=80))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("desk")
def test_an_answer_below_the_threshold_is_unknown_rather_than_a_guess(classify: Entry) -> None:
    """In JSON the label is what a program acts on; the guesses stay in `top` for whoever wants them."""
    images = ("clear.png", "unclear.png", "--json")
    status, out, err = classify("calibrated.onnx", *images, "--threshold", "auto")
    clear, unclear = (json.loads(line) for line in out.splitlines())
    assert (status, err) == (0, "")
    assert (clear["label"], unclear["label"]) == ("red", "unknown")
    assert clear["probability"] > 0.9 > unclear["probability"]
    assert unclear["top"] == [{"label": "red", "probability": unclear["probability"], "id": "n00000001"}]
    # Not asked for, nothing is withheld.
    labels = [json.loads(line)["label"] for line in classify("calibrated.onnx", *images)[1].splitlines()]
    assert labels == ["red", "red"]
    _, out, _ = classify("calibrated.onnx", *images, "--threshold", "1")
    assert [json.loads(line)["label"] for line in out.splitlines()] == ["unknown", "unknown"]


@pytest.mark.usefixtures("desk")
def test_the_table_says_unknown_and_what_would_be_likeliest(classify: Entry) -> None:
    """A person may still want the hint."""
    _, out, _ = classify("calibrated.onnx", "clear.png", "unclear.png", "--threshold", "auto", "--top", 2)
    rows = [line.split("  ")[-1] for line in out.splitlines()[1:]]
    assert rows[0] == "red"
    assert rows[2] == "unknown (likeliest: red)"
    assert not rows[3].startswith("unknown")


@pytest.mark.usefixtures("desk")
def test_a_threshold_on_scores_that_are_not_calibrated_is_noted(classify: Entry) -> None:
    """The number then has no measured meaning, and who sets it should know."""
    status, out, err = classify("plain.onnx", "clear.png", "--threshold", "0.5")
    assert status == 0
    assert "red" in out
    assert err == "note: the scores of plain.onnx are not calibrated: 0.5 is the network's own opinion\n"
    status, out, err = classify("plain.onnx", "clear.png", "--threshold", "auto")
    assert (status, out.count("red")) == (2, 0)
    assert "plain.onnx says nothing of a threshold; give --threshold a number" in err


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize("text", ["50", "-1", "nan", "half"])
def test_a_threshold_that_is_no_probability_is_refused(text: str, classify: Entry) -> None:
    """50 meant as a percentage would make everything unknown."""
    status, out, err = classify("calibrated.onnx", "clear.png", "--threshold", text, "--json")
    assert (status, out) == (2, "")
    assert err == f"error: expected --threshold from 0 to 1, or auto, got {text!r}\n"


@pytest.mark.usefixtures("desk")
def test_info_shows_the_scores_and_how_far_they_are_to_be_trusted(info: Entry) -> None:
    """Whoever builds on a probability of 0.9 looks here first."""
    _, out, _ = info("calibrated.onnx")
    assert out.endswith(
        """scores              calibrated: temperature 2.000 (1.50 to 2.70)
calibration error   7.12 % -> 2.31 % on 512 images of labelled
calibration error   5.00 % -> 6.00 % on 99 images of others
unknown below       0.90
but                 the images of others are likelier without the temperature
"""
    )
    assert json.loads(info("calibrated.onnx", "--json")[1])["scores"] == SCORES


@pytest.mark.slow
@pytest.mark.usefixtures("one_torch_thread")
def test_export_fits_and_check_measures(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    digits_checkpoint: Path,
    digits_images: Path,
    tmp_path: Path,
) -> None:
    """The way that the documentation shows, as it is typed."""
    hard = [
        blur(digits_images / part, tmp_path / part, seed=seed)
        for seed, part in enumerate(("calibrate", "test"))
    ]
    model = tmp_path / "model.onnx"
    export, check = (Entry(name, monkeypatch, capfd) for name in ("export", "check"))
    options = ("--precision", "float32", "--no-simplify", "-o", model, "-q")
    status, out, _ = export(digits_checkpoint, "--calibrate", hard[0], "--check", hard[1], *options)
    assert status == 0
    lines = out.splitlines()
    with Classifier(model) as classifier:
        temperature = classifier.temperature
        assert any(
            line.startswith(f"  scores                         temperature {temperature:.3f} (95 % interval ")
            and line.endswith(" from 80 labelled images")
            for line in lines
        )
        checked = classifier.metadata.scores["check"]
    errors = [line.split(maxsplit=3)[3] for line in lines if "expected calibration error" in line]
    before, after = 100 * checked["ece_before"], 100 * checked["ece_after"]
    assert errors[1] == f"{before:.2f} % -> {after:.2f} % on 120 images of test"
    assert any(line.startswith("  unknown below                  0.55: ") for line in lines)

    arguments = (model, "--against", digits_checkpoint, "--data", hard[1], "-q")
    status, out, _ = check(*arguments)
    assert status == 0
    assert (
        f"expected calibration error {before:.2f} % before, {after:.2f} % after the file's temperature" in out
    )
    assert "answered, not unknown " in out
    values = json.loads(check(*arguments, "--json")[1])
    assert values["ece_before"] == pytest.approx(checked["ece_before"], abs=1e-6)
    assert values["ece_after"] == pytest.approx(checked["ece_after"], abs=1e-6)
    assert values["answered"] == pytest.approx(checked["answered"], abs=1e-6)

    status, out, _ = export(digits_checkpoint, "--check", hard[1], *options, "--force", "--threshold", "0.8")
    assert "  scores                         not calibrated: no --calibrate was given" in out
    assert "  unknown below                  0.80: " in out
    values = json.loads(check(*arguments, "--json")[1])
    assert values["ece_after"] is None
    assert "the file's scores are not calibrated" in check(*arguments)[1]

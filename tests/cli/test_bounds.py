"""A bound that nothing can break is refused by ``check`` and ``choose``: a script would take it for kept."""

from dataclasses import replace
from pathlib import Path

import pytest

from vit_edge.kept import KeptAnswers, image_digest
from vit_edge.runtime import Classifier

from ..runtime.onnx_writer import METADATA, colour_model, flat_colour, save_picture
from .command import Entry

SOURCE = "ab" * 32

NAMES = ("red", "green", "blue")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "colours.onnx"
    path.write_bytes(colour_model(replace(METADATA, source={"name": "colours", "sha256": SOURCE})))
    return path


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Give a folder per class."""
    for name in NAMES:
        (tmp_path / "labelled" / name).mkdir(parents=True)
        save_picture(tmp_path / "labelled" / name / "one.png", flat_colour(name))
    return tmp_path / "labelled"


@pytest.fixture
def unlabelled(tmp_path: Path) -> Path:
    """Give the same pictures without their classes."""
    (tmp_path / "unlabelled").mkdir()
    for name in NAMES:
        save_picture(tmp_path / "unlabelled" / f"{name}.png", flat_colour(name))
    return tmp_path / "unlabelled"


@pytest.fixture
def reference(model: Path, unlabelled: Path, tmp_path: Path) -> Path:
    """Give the model's own answers, as if they were torch's."""
    with Classifier(model) as classifier:
        kept = KeptAnswers(
            reference="colours.safetensors",
            sources=(SOURCE,),
            labels=NAMES,
            preprocessing=classifier.preprocessing,
            logits={
                image_digest(path): classifier.logits(classifier.pixels(path)[None])[0]
                for path in unlabelled.iterdir()
            },
        )
    kept.save(tmp_path / "ref.npz")
    return tmp_path / "ref.npz"


@pytest.mark.parametrize("command", ["check", "choose"])
def test_a_drop_of_images_without_classes_is_refused(
    command: str,
    model: Path,
    reference: Path,
    labelled: Path,
    unlabelled: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """With classes it binds, without a bound no class is needed."""
    call = Entry(command, monkeypatch, capfd)
    arguments = (model, "--against", reference, "-q")
    status, out, err = call(*arguments, "--data", unlabelled, "--max-drop", "1")
    assert (status, out) == (2, "")
    assert err == (
        "error: --max-drop bounds a loss of accuracy, and these images' classes are not known; give --data with a "
        "folder per class, or bound the answers by --min-agreement or --max-drift\n"
    )
    assert call(*arguments, "--data", unlabelled)[0] == 0
    assert call(*arguments, "--data", labelled, "--max-drop", "1")[0] == 0
    assert call(*arguments, "--data", labelled, "--max-drop", "-1")[0] == 1


def test_the_pictures_in_a_file_have_no_classes(
    model: Path, reference: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A device without images: the drift is what they can tell."""
    choose = Entry("choose", monkeypatch, capfd)
    status, out, err = choose(model, "--against", reference, "--max-drop", "1")
    assert (status, out) == (2, "")
    assert err.startswith(
        "error: --max-drop bounds a loss of accuracy, and these images' classes are not known;"
    )

"""A model file beside its reference, and what must agree before the two are compared."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from vit_edge.checking import Flip, Report, check_model, require_same
from vit_edge.checkpoint import Checkpoint, load_checkpoint
from vit_edge.data import Sample, labelled_images
from vit_edge.errors import CheckpointError
from vit_edge.models import ViT
from vit_edge.runtime import Classifier
from vit_edge.runtime.labels import Label, Labels

from .cli.command import environment

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture
def checkpoint(digits_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(digits_checkpoint)


@pytest.fixture(scope="module")
def classifier(digits_model: Path) -> Classifier:
    return Classifier(digits_model)


def test_nothing_of_torch_is_imported_where_its_answers_were_kept() -> None:
    """It takes hundreds of megabytes and seconds, and on most devices there is none."""
    script = "import sys; import vit_edge.checking, vit_edge.choosing; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment()
    )
    assert done.stdout == "False\n"


def checked(classifier: Classifier, checkpoint: Checkpoint, samples: tuple[Sample, ...]) -> Report:
    preprocessing = require_same(checkpoint, classifier)
    *counts, report = check_model(classifier, checkpoint.model, preprocessing, samples)
    assert counts == list(range(1, len(samples) + 1))
    assert isinstance(report, Report)
    return report


def test_a_report_holds_what_both_made_of_the_images(
    classifier: Classifier, checkpoint: Checkpoint, digits_images: Path
) -> None:
    """Both start from the file, so that a difference in preprocessing shows as well."""
    samples = labelled_images(digits_images / "test", classifier.labels)
    report = checked(classifier, checkpoint, samples)
    assert report.comparison.images == 120
    assert report.comparison.agreement >= 0.95
    assert report.comparison.accuracy is not None
    right = sum(classifier(sample.path).index == sample.target for sample in samples)
    assert report.comparison.accuracy.model_top1 == right / 120
    assert (report.reference_images_per_s or 0) > 0
    assert report.model_images_per_s > 0


def test_flips_name_the_file_and_both_answers(
    classifier: Classifier, checkpoint: Checkpoint, digits_images: Path
) -> None:
    """Two outputs of the reference are swapped, so that exactly the zeros and ones flip."""
    samples = labelled_images(digits_images / "test", classifier.labels)
    head = checkpoint.model.head
    order = [1, 0, *range(2, 10)]
    head.weight.data, head.bias.data = head.weight.data[order], head.bias.data[order]
    report = checked(classifier, checkpoint, samples)
    answers = {sample.path: classifier(sample.path).index for sample in samples}
    swapped = {path for path, answer in answers.items() if answer in (0, 1)}
    assert len(swapped) >= 16
    assert {flip.path for flip in report.flips} >= swapped
    zero = next(path for path, answer in answers.items() if answer == 0)
    assert Flip(zero, reference=1, model=0) in report.flips
    values = report.to_dict(classifier.labels)
    assert {"image": str(zero), "reference": "one", "model": "zero"} in values["flipped"]
    assert values["flips"] == len(report.flips) == len(values["flipped"])
    # The model is right where the reference is not: it gained, and most among these two.
    assert values["drop"] < 0
    gained = {row["label"]: -row["images"] for row in values["lost"]}
    assert min(gained["zero"], gained["one"]) >= 6


def test_images_without_labels_have_no_accuracy(
    classifier: Classifier, checkpoint: Checkpoint, digits_images: Path
) -> None:
    """Agreement needs none, and a made-up top-1 would be believed."""
    samples = tuple(
        replace(sample, target=None) for sample in labelled_images(digits_images / "test", classifier.labels)
    )
    report = checked(classifier, checkpoint, samples[:5])
    assert report.comparison.accuracy is None
    assert report.to_dict(classifier.labels)["lost"] == []


def test_another_name_of_a_class_is_an_error_that_names_it(
    classifier: Classifier, checkpoint: Checkpoint
) -> None:
    """Labels in another order make every number wrong but agreement, and nobody looks twice."""
    assert checkpoint.labels is not None
    swapped = Labels(
        (checkpoint.labels[0], checkpoint.labels[2], checkpoint.labels[1], *checkpoint.labels.items[3:])
    )
    with pytest.raises(CheckpointError, match="differ in label 1: 'two' and 'one'; export the model again"):
        require_same(replace(checkpoint, labels=swapped), classifier)


def test_an_id_that_only_one_side_knows_is_no_difference(
    classifier: Classifier, checkpoint: Checkpoint
) -> None:
    """A label file with synset ids may have been given at the export."""
    assert checkpoint.labels is not None
    known = Labels(
        tuple(Label(label.name, f"n0000000{place}") for place, label in enumerate(checkpoint.labels.items))
    )
    assert require_same(replace(checkpoint, labels=known), classifier) == classifier.preprocessing


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"mean": (0.4, 0.5, 0.5)}, r"preprocessing: mean \(0\.4, 0\.5, 0\.5\) and \(0\.5, 0\.5, 0\.5\)"),
        ({"interpolation": "bilinear"}, "preprocessing: interpolation bilinear and bicubic"),
        ({"resize": 36}, "preprocessing: resize 36 and 32"),
    ],
)
def test_another_preprocessing_is_an_error_that_names_it(
    classifier: Classifier, checkpoint: Checkpoint, change: dict[str, object], sentence: str
) -> None:
    """It costs points of accuracy that would be laid at the quantizer's door."""
    assert checkpoint.preprocessing is not None
    other = replace(checkpoint.preprocessing, **change)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=sentence):
        require_same(replace(checkpoint, preprocessing=other), classifier)


def test_another_number_of_classes_is_an_error_with_both(
    classifier: Classifier, checkpoint: Checkpoint
) -> None:
    """The usual case: the backbone's checkpoint in the place of the fine-tuned one."""
    other = ViT(replace(checkpoint.config, classes=1000)).eval()
    with pytest.raises(CheckpointError, match="the one has 1000 classes, the other 10; give the checkpoint"):
        require_same(replace(checkpoint, model=other, labels=None, preprocessing=None), classifier)


def test_what_a_bare_state_dict_cannot_tell_is_the_files_own(
    classifier: Classifier, checkpoint: Checkpoint
) -> None:
    """It has been given at the export once, and is not asked for again."""
    bare = replace(checkpoint, labels=None, preprocessing=None)
    assert require_same(bare, classifier) == classifier.preprocessing


def test_another_image_size_is_an_error_where_nothing_else_tells(
    classifier: Classifier, checkpoint: Checkpoint
) -> None:
    """Torch's own message would come from the middle of the network."""
    other = ViT(replace(checkpoint.config, image_size=(40, 40))).eval()
    with pytest.raises(CheckpointError, match=r"size of their images: \(40, 40\) and \(32, 32\)"):
        require_same(replace(checkpoint, model=other, labels=None, preprocessing=None), classifier)

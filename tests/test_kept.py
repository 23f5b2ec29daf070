"""Torch's answers in a file: what is kept comes back, and what does not belong to a model is refused."""

import hashlib
import io
import json
import os
import stat
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vit_edge.checking import Report, check_kept, require_kept
from vit_edge.data import Sample, images_with_classes
from vit_edge.errors import CheckpointError, DataError, OptionError
from vit_edge.evaluation import compare
from vit_edge.kept import KeptAnswers, image_digest, is_kept
from vit_edge.runtime import Classifier
from vit_edge.runtime.preprocess import Preprocessing

from .conftest import listing
from .runtime.onnx_writer import LABELS, METADATA, colour_model, flat_colour, save_picture

SOURCE = "ab" * 32


@pytest.fixture
def classifier() -> Classifier:
    return Classifier(colour_model(replace(METADATA, source={"name": "colours", "sha256": SOURCE})))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Give a folder per class, three pictures in each."""
    for name in (label.name for label in LABELS.items):
        (tmp_path / "images" / name).mkdir(parents=True)
        for shade in (0, 20, 40):
            save_picture(tmp_path / "images" / name / f"{shade}.png", flat_colour(name, shade=shade))
    return tmp_path / "images"


def answers(classifier: Classifier, samples: tuple[Sample, ...], *, moved: float = 0.0) -> KeptAnswers:
    """Keep the model's own answers, with the first class moved."""
    return KeptAnswers(
        reference="colours.safetensors",
        sources=(SOURCE,),
        labels=tuple(label.name for label in classifier.labels.items),
        preprocessing=classifier.preprocessing,
        logits={
            image_digest(sample.path): classifier.logits(classifier.pixels(sample.path)[None])[0]
            + np.array([moved, 0, 0], np.float32)
            for sample in samples
        },
    )


def report_of(classifier: Classifier, kept: KeptAnswers, samples: tuple[Sample, ...]) -> Report:
    *counts, report = check_kept(classifier, kept, samples)
    assert counts == list(range(1, len(samples) + 1))
    assert isinstance(report, Report)
    return report


def test_answers_come_back_as_they_were_kept(classifier: Classifier, images: Path, tmp_path: Path) -> None:
    """They are found again by the bytes of the image, whatever its name is there."""
    samples = images_with_classes(images, classifier.labels)
    kept = answers(classifier, samples)
    size = kept.save(tmp_path / "ref.npz")
    assert size == (tmp_path / "ref.npz").stat().st_size
    assert is_kept(tmp_path / "ref.npz")
    again = KeptAnswers.load(tmp_path / "ref.npz")
    for name in ("reference", "sources", "labels", "preprocessing"):
        assert getattr(again, name) == getattr(kept, name)
    assert again.logits.keys() == kept.logits.keys()
    for key, row in kept.logits.items():
        np.testing.assert_array_equal(again.logits[key], row)
    first = samples[0].path
    assert (
        image_digest(first)
        == image_digest(first.read_bytes())
        == hashlib.sha256(first.read_bytes()).hexdigest()
    )


def test_the_file_is_plain_arrays_without_a_pickle(
    classifier: Classifier, images: Path, tmp_path: Path
) -> None:
    """A pickle runs what its maker wants, on every device that reads it."""
    answers(classifier, images_with_classes(images, classifier.labels)).save(tmp_path / "ref.npz")
    with np.load(tmp_path / "ref.npz", allow_pickle=False) as parts:
        assert set(parts) == {"vit_edge_about", "sha256", "logits"}
        assert parts["logits"].dtype == np.float32
    poisoned = io.BytesIO()
    np.save(poisoned, np.array([{"a": 1}], object), allow_pickle=True)
    with zipfile.ZipFile(tmp_path / "bad.npz", "w") as archive:
        for name in ("vit_edge_about", "sha256", "logits"):
            archive.writestr(f"{name}.npy", poisoned.getvalue())
    assert is_kept(tmp_path / "bad.npz")
    with pytest.raises(DataError, match=r"does not hold torch's answers .*--save-reference"):
        KeptAnswers.load(tmp_path / "bad.npz")


def test_what_holds_no_answers_is_refused(classifier: Classifier, images: Path, tmp_path: Path) -> None:
    """Weights come as .npz too, and a file may be cut short, of a newer version, or absent."""
    np.savez(tmp_path / "weights.npz", kernel=np.zeros(3, np.float32))
    assert not is_kept(tmp_path / "weights.npz")
    assert not is_kept(tmp_path / "absent.npz")
    with pytest.raises(DataError, match="does not hold torch's answers"):
        KeptAnswers.load(tmp_path / "weights.npz")
    with pytest.raises(DataError, match=r"absent\.npz cannot be read \(No such file"):
        KeptAnswers.load(tmp_path / "absent.npz")
    path = tmp_path / "ref.npz"
    answers(classifier, images_with_classes(images, classifier.labels)).save(path)
    (tmp_path / "cut.npz").write_bytes(path.read_bytes()[:200])
    (tmp_path / "text.npz").write_text("no archive")
    for name in ("cut.npz", "text.npz"):
        with pytest.raises(DataError, match="does not hold torch's answers"):
            KeptAnswers.load(tmp_path / name)
    with np.load(path) as parts:
        values = dict(parts)
    about = json.loads(values["vit_edge_about"].tobytes())
    for change, reason in (
        ({"version": 2}, "of version 2, and this vit-edge reads up to 1"),
        ({"labels": ["red"]}, "9 digests, logits"),
        ({"preprocess": {}}, "the preprocessing lacks"),
    ):
        values["vit_edge_about"] = np.frombuffer(json.dumps(about | change).encode(), np.uint8)
        np.savez(tmp_path / "changed.npz", **values)
        with pytest.raises(DataError, match=reason):
            KeptAnswers.load(tmp_path / "changed.npz")


def test_a_file_is_written_whole_or_not_at_all(classifier: Classifier, images: Path, tmp_path: Path) -> None:
    """An existing one may be another model's, and a torn one would be believed."""
    kept = answers(classifier, images_with_classes(images, classifier.labels))
    kept.save(tmp_path / "ref.npz")
    before = (tmp_path / "ref.npz").read_bytes()
    with pytest.raises(OptionError, match=r"ref\.npz exists; remove it"):
        kept.save(tmp_path / "ref.npz")
    assert (tmp_path / "ref.npz").read_bytes() == before
    with pytest.raises(OptionError, match="there is no folder"):
        kept.save(tmp_path / "nowhere" / "ref.npz")
    assert listing(tmp_path) == ["images", "ref.npz"]


@pytest.mark.skipif(os.name != "posix", reason="permissions as POSIX has them")
def test_a_file_has_an_ordinary_new_files_permissions(
    classifier: Classifier, images: Path, tmp_path: Path
) -> None:
    """Who keeps new files to themselves (umask) does not want this one read by others."""
    before = os.umask(0o077)
    try:
        answers(classifier, images_with_classes(images, classifier.labels)).save(tmp_path / "ref.npz")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "ref.npz").stat().st_mode) == 0o600


def test_a_report_is_the_one_of_the_same_logits(classifier: Classifier, images: Path) -> None:
    """Agreement, flips, drift and accuracy, as torch itself beside it would give."""
    samples = images_with_classes(images, classifier.labels)
    # So much on red that the darker greens become red for the reference.
    kept = answers(classifier, samples, moved=5.0)
    report = report_of(classifier, kept, samples)
    model = np.concatenate([classifier.logits(classifier.pixels(sample.path)[None]) for sample in samples])
    reference = np.stack([kept.logits[image_digest(sample.path)] for sample in samples])
    assert report.comparison == compare(reference, model, [sample.target or 0 for sample in samples])
    assert 0 < len(report.flips) < len(samples)
    assert all(flip.reference == 0 and flip.model != 0 for flip in report.flips)
    assert report.comparison.accuracy is not None
    assert report.comparison.accuracy.model_top1 == 1.0
    assert (report.reference_images_per_s, report.missing) == (None, 0)
    assert report.to_dict(classifier.labels)["reference_images_per_s"] is None


def test_images_that_the_answers_do_not_know_are_left_out_and_counted(
    classifier: Classifier, images: Path
) -> None:
    """Whoever measures on half of the images has to see that."""
    samples = images_with_classes(images, classifier.labels)
    kept = answers(classifier, samples[:4])
    report = report_of(classifier, kept, samples)
    assert (report.comparison.images, report.missing) == (4, 5)
    assert report.to_dict(classifier.labels)["missing"] == 5
    # The bytes count, and a picture that was saved anew is another.
    with pytest.raises(
        DataError, match=r"none of the 5 images is among the 4 whose answers of colours\.safetensors"
    ):
        list(check_kept(classifier, kept, samples[4:]))


def test_images_without_classes_give_no_accuracy(classifier: Classifier, images: Path) -> None:
    """On a device one has pictures, and seldom labels."""
    flat = images / "red"
    samples = images_with_classes(flat, classifier.labels)
    assert [sample.target for sample in samples] == [None] * 3
    assert report_of(classifier, answers(classifier, samples), samples).comparison.accuracy is None
    (images / "violet").mkdir()
    with pytest.raises(DataError, match="the folder 'violet'"):
        images_with_classes(images, classifier.labels)


def test_answers_of_another_checkpoint_are_refused(classifier: Classifier, images: Path) -> None:
    """Two fine-tunings of one network have the same labels, and other answers."""
    kept = answers(classifier, images_with_classes(images, classifier.labels))
    require_kept(kept, classifier)
    require_kept(replace(kept, sources=("cd" * 32, SOURCE)), classifier)
    steps = Preprocessing.parse("resize=9,crop=8,interpolation=bilinear,mean=0.5,std=0.5")
    for change, reason in (
        (
            {"sources": ("cd" * 32,)},
            "are of different checkpoints: SHA-256 cdcdcdcdcdcdcdcd… and abababababababab…",
        ),
        ({"labels": ("red", "blue", "green")}, "differ in label 1: 'blue' and 'green'"),
        ({"labels": ("red", "blue")}, "the one has 2 classes, the other 3"),
        ({"preprocessing": steps}, "differ in their preprocessing: resize 9 and 8"),
    ):
        with pytest.raises(CheckpointError, match=reason):
            require_kept(replace(kept, **change), classifier)

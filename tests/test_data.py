"""Finding images in folders: names, order and classes."""

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from vit_edge.data import class_folders, labelled_images, list_images
from vit_edge.errors import DataError
from vit_edge.runtime.labels import Label, Labels

from .shared import SHARED, needs_shared


def touch(folder: Path, names: Iterable[str]) -> Path:
    """Make empty files; finding images never opens them."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def found(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in list_images(folder)]


def test_images_come_sorted_from_nested_folders(tmp_path: Path) -> None:
    """The order decides what a seed picks, so it must not be the file system's."""
    touch(tmp_path, ["b/2.png", "b/10.jpg", "a.JPEG", "c.bmp", "b/a/1.WebP"])
    assert found(tmp_path) == ["a.JPEG", "b/10.jpg", "b/2.png", "b/a/1.WebP", "c.bmp"]


def test_hidden_files_and_other_kinds_are_left_out(tmp_path: Path) -> None:
    """Finder and notebooks leave files that look like images and are none."""
    touch(tmp_path, ["a.jpg", "._a.jpg", ".cache/b.jpg", "__MACOSX/a.jpg", "notes.txt", "Thumbs.db", "jpg"])
    assert found(tmp_path) == ["a.jpg"]


def test_links_to_files_and_folders_are_followed(tmp_path: Path) -> None:
    """Data sets too large to copy are put together from links."""
    touch(tmp_path / "store", ["x.jpg", "deep/y.jpg"])
    data = tmp_path / "data"
    data.mkdir()
    (data / "file.jpg").symlink_to(tmp_path / "store" / "x.jpg")
    (data / "folder").symlink_to(tmp_path / "store" / "deep")
    assert found(data) == ["file.jpg", "folder/y.jpg"]


def test_a_link_to_a_folder_above_ends(tmp_path: Path) -> None:
    """Following it would give every image for ever."""
    touch(tmp_path, ["in/a.jpg"])
    (tmp_path / "in" / "up").symlink_to(tmp_path)
    assert found(tmp_path) == ["in/a.jpg"]


def test_a_dangling_link_is_found(tmp_path: Path) -> None:
    """It is reported by name when it is read; leaving it out here would lose it unseen."""
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert found(tmp_path) == ["gone.jpg"]


def test_a_folder_that_is_absent_a_file_or_without_images_is_refused(tmp_path: Path) -> None:
    """Each of the three is another mistake, so each has its own sentence."""
    touch(tmp_path, ["a.jpg", "empty/notes.txt"])
    with pytest.raises(DataError, match=r"there is no folder .*absent"):
        list_images(tmp_path / "absent")
    with pytest.raises(DataError, match=r"got the file .*a\.jpg; give the folder"):
        list_images(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"expected images .*empty, got none"):
        list_images(tmp_path / "empty")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the superuser may read every folder")
def test_an_unreadable_folder_is_named(tmp_path: Path) -> None:
    """Leaving it out unseen would train on half of the data."""
    touch(tmp_path, ["a/1.jpg", "b/1.jpg"])
    (tmp_path / "b").chmod(0)
    try:
        with pytest.raises(DataError, match=r"cannot read the folder .*b"):
            list_images(tmp_path)
    finally:
        (tmp_path / "b").chmod(0o700)


LABELS = Labels(
    (Label("tench, Tinca tinca", "n01440764"), Label("goldfish", "n01443537"), Label("sea snake"))
)


def test_folders_are_matched_by_name_or_synset_never_by_place(tmp_path: Path) -> None:
    """A data set with fewer classes than the model, or in another order, must not shift the answers."""
    touch(tmp_path, ["n01443537/a.jpg", "Sea_Snake/deep/b.jpg", "tinca tinca/c.jpg"])
    samples = labelled_images(tmp_path, LABELS)
    assert {sample.path.name: sample.target for sample in samples} == {"a.jpg": 1, "b.jpg": 2, "c.jpg": 0}


def test_two_folders_may_mean_one_class(tmp_path: Path) -> None:
    """A synset's folder and one with its name are both right."""
    touch(tmp_path, ["n01443537/a.jpg", "goldfish/b.jpg"])
    assert [sample.target for sample in labelled_images(tmp_path, LABELS)] == [1, 1]


def test_folders_that_match_no_label_are_named(tmp_path: Path) -> None:
    """The user has to see which folder, and what would have matched."""
    touch(tmp_path, ["goldfish/a.jpg", "gold fish/a.jpg", "shark/a.jpg"])
    expected = (
        "the folders 'gold fish', 'shark' in .* are no class of the model; name each folder by a label's "
        "name or synset id, such as 'tench, Tinca tinca' or 'n01440764'"
    )
    with pytest.raises(DataError, match=expected):
        labelled_images(tmp_path, LABELS)
    touch(tmp_path / "more", [f"{name}/a.jpg" for name in "abcdefg"])
    with pytest.raises(DataError, match="the folders 'a', 'b', 'c' and 4 more in"):
        labelled_images(tmp_path / "more", LABELS)


def test_labels_without_synsets_are_shown_by_name(tmp_path: Path) -> None:
    """An example that cannot work would be worse than none."""
    touch(tmp_path, ["3/a.jpg"])
    with pytest.raises(DataError, match=r"'3' in .* is no class of the model; .* such as 'zero' or 'one'"):
        labelled_images(tmp_path, Labels.of(["zero", "one", "two"]))


def test_an_empty_class_folder_is_refused(tmp_path: Path) -> None:
    """It is nearly always a copy that went wrong."""
    touch(tmp_path, ["goldfish/a.jpg", "sea snake/notes.txt"])
    with pytest.raises(DataError, match=r"the class folder .*sea snake holds no image"):
        labelled_images(tmp_path, LABELS)
    with pytest.raises(DataError, match=r"the class folder .*sea snake holds no image"):
        class_folders(tmp_path)


def test_loose_images_beside_class_folders_are_refused(tmp_path: Path) -> None:
    """Their class is not known, and ignoring them would change an accuracy unseen."""
    touch(tmp_path, ["goldfish/a.jpg", "b.jpg"])
    with pytest.raises(DataError, match=r"got the image 'b\.jpg' beside them; move every image"):
        labelled_images(tmp_path, LABELS)


def test_a_folder_without_class_folders_is_refused(tmp_path: Path) -> None:
    """There is nothing to tell the classes by."""
    with pytest.raises(DataError, match=r"expected one folder per class in .*, got none"):
        labelled_images(tmp_path, LABELS)


def test_class_folders_give_sorted_labels_that_find_their_own_folders(tmp_path: Path) -> None:
    """Labels made here and folders read back must agree, also for names that look like label lines."""
    names = ["n01440764 tench", "b, c", "a_b", "n01443537", "Zebra"]
    touch(tmp_path, [f"{name}/1.png" for name in names])
    labels = class_folders(tmp_path)
    assert [label.name for label in labels.items] == sorted(names)
    assert [sample.target for sample in labelled_images(tmp_path, labels)] == [0, 1, 2, 3, 4]


def test_names_that_mean_one_class_are_refused_for_training(tmp_path: Path) -> None:
    """Matching ignores case and underscores, so the second of them could never be found again."""
    touch(tmp_path, ["sea_snake/1.png", "Sea Snake/1.png"])
    with pytest.raises(DataError, match=r"the folder 'sea_snake' .* means the same class as 'Sea Snake'"):
        class_folders(tmp_path)


def test_one_class_folder_is_refused_for_training(tmp_path: Path) -> None:
    """A network with one class has nothing to learn."""
    touch(tmp_path, ["cat/1.png"])
    with pytest.raises(DataError, match=r"at least two class folders in .*, got only 'cat'"):
        class_folders(tmp_path)


def test_the_parts_of_a_data_set_are_no_classes(tmp_path: Path) -> None:
    """A folder above the right one would train a network to tell train from test."""
    touch(tmp_path, ["train/cat/1.png", "Test/cat/1.png"])
    with pytest.raises(
        DataError, match=r"'Test', 'train', the parts of a data set; give one part, such as .*train"
    ):
        class_folders(tmp_path)


@needs_shared
def test_the_real_validation_folders_all_find_their_class() -> None:
    """Its 557 folders are synset ids that lie anywhere among the 1000 labels."""
    labels = Labels.read(SHARED / "data" / "imagenet1k_classes.txt")
    samples = labelled_images(SHARED / "data" / "imagenet_val800", labels)
    assert len(samples) == 800
    assert all(labels[sample.target or 0].id == sample.path.parent.name for sample in samples)
    assert len({sample.target for sample in samples}) == 557


@needs_shared
def test_the_real_calibration_images_are_found() -> None:
    """They lie in one folder, without classes."""
    assert len(list_images(SHARED / "data" / "calibration250")) == 250

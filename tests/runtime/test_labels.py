"""Labels are read, matched to folders, and never guessed."""

from pathlib import Path

import pytest

from vit_edge.runtime import Label, Labels, ModelError

BIRDS = Labels.of(
    ["n01440764 tench, Tinca tinca", "n02012849 crane", "n03126707 crane", "sea_snake", "Bat, owl"]
)


def refused(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        Labels.read(path)
    return str(caught.value)


def write(folder: Path, data: bytes) -> Path:
    path = folder / "labels.txt"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("line", "label"),
    [
        ("n01440764 tench, Tinca tinca", Label("tench, Tinca tinca", "n01440764")),
        ("  n01440764\ttench ", Label("tench", "n01440764")),
        ("seven", Label("seven")),
        ("n01440764", Label("n01440764")),
        ("n0144076 short", Label("n0144076 short")),
        ("x01440764 no part of speech", Label("x01440764 no part of speech")),
        ("7", Label("7")),
    ],
)
def test_a_leading_synset_id_becomes_the_id(line: str, label: Label) -> None:
    """Folders of ImageNet carry the id, people want the name."""
    assert Label.parse(line) == label


def test_a_label_becomes_the_line_that_it_was_read_from() -> None:
    """What `vit-edge info` shows can be used as a label file again."""
    for line in ("n01440764 tench, Tinca tinca", "seven"):
        assert str(Label.parse(line)) == line


@pytest.mark.parametrize(
    "data",
    [
        b"red\ngr\xc3\xbcn\nn02012849 crane\n",
        b"red\r\ngr\xc3\xbcn\r\nn02012849 crane\r\n\r\n\r\n",
        b"\xef\xbb\xbfred\ngr\xc3\xbcn\nn02012849 crane",
    ],
    ids=["plain", "Windows", "byte order mark"],
)
def test_a_label_file_is_read_whatever_editor_wrote_it(data: bytes, tmp_path: Path) -> None:
    """A byte order mark would otherwise become part of the first label."""
    labels = Labels.read(write(tmp_path, data))
    assert labels.items == (Label("red"), Label("grün"), Label("crane", "n02012849"))
    assert len(labels) == 3
    assert labels[2].id == "n02012849"


def test_a_label_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """An empty line in the middle would shift all names after it."""
    absent = tmp_path / "absent.txt"
    assert (
        refused(absent) == f"cannot read the label file {absent} (No such file or directory); check the path"
    )
    assert refused(tmp_path) == f"cannot read the label file {tmp_path} (Is a directory); check the path"
    path = write(tmp_path, b"red\n \nblue\n")
    assert refused(path) == f"line 2 of the label file {path} is empty; give every class a name, one a line"
    assert refused(write(tmp_path, b"\n \n")) == f"the label file {path} is empty; write one label a line"
    assert refused(write(tmp_path, b"\xff\xfer\0e\0d\0")).startswith(
        f"the label file {path} is no text in UTF-8 ("
    )
    assert "cannot read the label file" in refused(Path("a\0b"))


def test_labels_without_names_are_refused() -> None:
    """A class without a name cannot be answered."""
    with pytest.raises(ModelError, match="at least one label, got none"):
        Labels(())
    with pytest.raises(ModelError, match="label 1 is empty"):
        Labels.of(["red", ""])


def test_labels_are_made_of_names_labels_or_labels() -> None:
    """Callers have any of these."""
    labels = Labels.of(["red", Label("n02012849 as a name")])
    assert labels.items == (Label("red"), Label("n02012849 as a name"))
    assert Labels.of(labels) is labels


@pytest.mark.parametrize(
    ("folder", "place"),
    [
        ("n01440764", 0),
        ("N01440764", 0),
        ("n01440764 tench, Tinca tinca", 0),
        ("tench, Tinca tinca", 0),
        ("tinca_tinca", 0),
        ("Tench", 0),
        ("n02012849", 1),
        ("n03126707", 2),
        ("sea snake", 3),
        ("SEA_SNAKE", 3),
        ("owl", 4),
        ("bat, owl", 4),
    ],
)
def test_a_folder_is_found_by_id_name_or_synonym(folder: str, place: int) -> None:
    """People name folders by hand; an id is exact."""
    assert BIRDS.find(folder) == place


@pytest.mark.parametrize("folder", ["trout", "tenc", "", "_", "  ", ",", "0"])
def test_a_folder_that_is_no_class_is_not_found(folder: str) -> None:
    """An image counted for a wrong class spoils the accuracy without a word."""
    assert BIRDS.find(folder) is None


def test_a_name_of_two_classes_means_neither() -> None:
    """ImageNet has a crane that flies and one that lifts; taking the first would count half as wrong."""
    assert BIRDS.find("crane") is None
    assert Labels.of(["crane", "crane"]).find("crane") is None
    assert Labels.of(["a bat, bat", "club, bat"]).find("bat") is None


def test_a_whole_name_goes_before_another_classes_synonym() -> None:
    """`bat` is a class here, and no synonym can take it away."""
    assert Labels.of(["club, bat", "bat"]).find("bat") == 1

"""Whatever form data comes in, it is found, and parted the same way each time."""

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vit_edge.errors import DataError
from vit_edge.runtime.image import read_image
from vit_edge.training.data import Data, open_data

from ..pictures import paint
from .conftest import pack, pack_folder, write_cifar


def names(data: Data) -> list[str]:
    return [label.name for label in data.labels.items]


def test_a_folder_is_parted_by_class(folder: Path) -> None:
    """A share of each class, the same one for the same seed."""
    data = open_data(folder, share=0.25, seed=3)
    assert names(data) == ["blue", "green", "red"]
    for part, each in ((data.training, 9), (data.validation, 3)):
        assert np.bincount(part.targets).tolist() == [each] * 3
        for place, target in enumerate(part.targets):
            assert Path(part.title(place)).parent.name == names(data)[target]
            np.testing.assert_array_equal(part.read(place), read_image(part.title(place)))
    again, other = open_data(folder, share=0.25, seed=3), open_data(folder, share=0.25, seed=4)
    titles = [[each.validation.title(place) for place in range(9)] for each in (data, again, other)]
    assert titles[0] == titles[1] != titles[2]
    assert data.told == "validated on 25 % of each class, set aside"


def test_a_second_folder_validates(folder: Path, tmp_path: Path) -> None:
    """Classes are those of the training images, whatever the order of the other's."""
    other = paint(tmp_path / "other", each=2, seed=1, names=("red", "blue"))
    data = open_data(folder, val=other)
    assert (len(data.training), len(data.validation)) == (36, 4)
    assert data.validation.targets.tolist() == [0, 0, 2, 2]
    with pytest.raises(DataError, match="validation images are training images too"):
        open_data(folder, val=folder)


def test_csv_and_json_lines_list_images(folder: Path) -> None:
    """Labels often live in a table beside one folder of images."""
    images = sorted(folder.glob("*/*.png"))
    rows = [(image.relative_to(folder.parent), image.parent.name) for image in images]
    lists = {
        "plain.csv": "path,label\n" + "\n".join(f"{path},{label}" for path, label in rows),
        "named.csv": "id,Class,FileName\n" + "\n".join(f'7,{label},"{path}"' for path, label in rows),
        "tabs.tsv": "image\ttarget\n" + "\n".join(f"{path}\t{label}" for path, label in rows),
        "lines.jsonl": "\n".join(json.dumps({"path": str(path), "label": label}) for path, label in rows)
        + "\n\n",
        "absolute.jsonl": "\n".join(
            json.dumps({"file_name": str(image), "class": image.parent.name}) for image in images
        ),
    }
    for name, text in lists.items():
        (folder.parent / name).write_text(text)
        data = open_data(folder.parent / name, share=0.5)
        assert names(data) == ["blue", "green", "red"], name
        assert (len(data.training), len(data.validation)) == (18, 18)
        read = Path(data.training.title(0)).resolve()
        assert read in images
        assert names(data)[data.training.targets[0]] == read.parent.name
        data.training.read(0)


def test_numbers_in_a_list_are_names(folder: Path) -> None:
    """A class called 7 is called so, and is not the eighth."""
    lines = [
        {"path": str(image), "label": 7 if image.parent.name == "red" else 12}
        for image in folder.glob("*/*.png")
    ]
    (folder.parent / "numbers.jsonl").write_text("\n".join(map(json.dumps, lines)))
    data = open_data(folder.parent / "numbers.jsonl")
    assert names(data) == ["12", "7"]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.csv", "", "the first line of {} names no column 'path' "),
        ("a.csv", "photo.jpg,cat\n", "begin the list with a line such as path,label"),
        ("a.csv", "path,label\n", "the list {} names no image; write one a line"),
        (
            "a.csv",
            "path,label\nx.jpg,cat\ny.jpg\n",
            "line 3 of {} names no class; give it under 'label' (or class",
        ),
        ("a.csv", "path,label\nx.jpg,cat\n", "expected at least two classes in {}, got only 'cat'"),
        ("a.jsonl", '{"path": "x.jpg", "label": "cat"}\n{"path"', "line 2 of {} is no JSON"),
        ("a.jsonl", "[1]", "expected line 1 of {} to be a JSON object, got list"),
        ("a.jsonl", '{"label": "cat"}', "line 1 of {} names no path; give it under 'path'"),
        ("a.txt", "x.jpg cat", "{} is no data that can be trained on; expected a folder of class folders"),
        ("a.tar", "no archive", "the shard {} cannot be read"),
    ],
)
def test_a_list_that_says_too_little_is_one_sentence(
    tmp_path: Path, name: str, text: str, expected: str
) -> None:
    """With the line at fault."""
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        open_data(path)
    assert expected.format(path) in str(caught.value)


def test_a_list_with_other_classes_does_not_validate(folder: Path) -> None:
    """A class that was never trained is always wrong."""
    path = folder.parent / "val.csv"
    path.write_text("path,label\nfolder/red/0.png,purple\n")
    with pytest.raises(DataError, match="names 1 classes that are none of the 3 to train, such as 'purple'"):
        open_data(folder, val=path)


def test_another_cifar_validates_with_its_test_images(tmp_path: Path) -> None:
    """Its training images are what the network may have learnt from."""
    write_cifar(tmp_path / "one")
    write_cifar(tmp_path / "two", each=30)
    data = open_data(tmp_path / "one", val=tmp_path / "two")
    assert (len(data.training), len(data.validation)) == (100, 30)
    assert data.validation.title(0) == "CIFAR-10 test#0"


@pytest.mark.parametrize("classes", [10, 100])
def test_cifar_is_read_as_its_makers_wrote_it(tmp_path: Path, classes: int) -> None:
    """Bytes of the class, then planes of red, green and blue."""
    folder = tmp_path / "cifar"
    first = write_cifar(folder, classes=classes)
    data = open_data(folder)
    assert names(data) == [f"name{number}" for number in range(classes)]
    each = max(20, classes)
    assert (len(data.training), len(data.validation)) == (each if classes == 100 else 5 * each, each)
    np.testing.assert_array_equal(data.training.read(0), first)
    assert data.training.targets[:12].tolist() == [number % classes for number in range(12)]
    assert data.told == "validated on the set's own test images"
    assert data.training.title(0) == f"CIFAR-{classes} train#0"


def test_cifar_needs_no_unpacking(tmp_path: Path) -> None:
    """The archive as it was downloaded."""
    write_cifar(tmp_path / "cifar-10-batches-bin")
    archive = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(tmp_path / "cifar-10-batches-bin", "cifar-10-batches-bin")
    packed, unpacked = open_data(archive), open_data(tmp_path / "cifar-10-batches-bin")
    assert names(packed) == names(unpacked)
    np.testing.assert_array_equal(packed.training.targets, unpacked.training.targets)
    np.testing.assert_array_equal(packed.validation.read(7), unpacked.validation.read(7))
    archive.write_bytes(archive.read_bytes()[:3000])
    with pytest.raises(
        DataError, match=r"cifar-10-binary\.tar\.gz (is a damaged archive|cannot be read) .* again"
    ):
        open_data(archive)


def test_damaged_cifar_is_one_sentence(tmp_path: Path) -> None:
    """Cut short, with a class that is none, or with a file missing."""
    write_cifar(tmp_path / "cifar")
    batch = tmp_path / "cifar" / "data_batch_3.bin"
    whole = batch.read_bytes()
    batch.write_bytes(whole[:-1])
    with pytest.raises(DataError, match=r"data_batch_3\.bin to hold records of 3073 bytes, got 61459 bytes"):
        open_data(tmp_path / "cifar")
    batch.write_bytes(b"\x0a" + whole[1:])
    with pytest.raises(DataError, match=r"expected classes below 10 in .*data_batch_3\.bin, got 10"):
        open_data(tmp_path / "cifar")
    batch.unlink()
    with pytest.raises(DataError, match=r"lacks data_batch_3\.bin of CIFAR-10"):
        open_data(tmp_path / "cifar")


def test_a_data_sets_parts_are_not_its_classes(folder: Path, tmp_path: Path) -> None:
    """A folder of train and val would make a network that tells the two apart."""
    (tmp_path / "whole").mkdir()
    for part in ("train", "val"):
        paint(tmp_path / "whole" / part, each=2)
    with pytest.raises(DataError, match="the parts of a data set"):
        open_data(tmp_path / "whole")


def test_shards_become_the_same_set_as_their_folder(folder: Path) -> None:
    """By a pattern of braces, a folder of tar files, or one file; names are classes."""
    shards = pack_folder(folder, "part-{:02}.tar", count=3)
    (folder.parent / "shards").mkdir()
    for shard in shards:
        (folder.parent / "shards" / shard.name).write_bytes(shard.read_bytes())
    looked: list[tuple[int, int]] = []
    for given in (f"{folder.parent}/part-{{00..02}}.tar", folder.parent / "shards"):
        data = open_data(given, share=0.25, looked=lambda done, total: looked.append((done, total)))
        assert names(data) == ["blue", "green", "red"]
        assert np.bincount(data.training.targets).tolist() == [9, 9, 9]
        for part in (data.training, data.validation):
            for place in range(len(part)):
                title = Path(part.title(place))
                label = names(data)[part.targets[place]]
                file = folder / label / f"{title.name.removeprefix(label)}.png"
                np.testing.assert_array_equal(part.read(place), read_image(file))
    assert looked == [(1, 3), (2, 3), (3, 3)] * 2
    assert len(open_data(shards[0], val=folder).training) == 12


def test_numbers_in_shards_are_places_with_names_beside(folder: Path) -> None:
    """WebDataset's .cls is a number as a rule; a device has to show a name."""
    order = ["red", "green", "blue"]
    pack_folder(folder, "n{}.tar", count=1, label=lambda name: str(order.index(name)))
    assert names(open_data(folder.parent / "n0.tar")) == ["0", "1", "2"]
    (folder.parent / "labels.txt").write_text("\n".join(order))
    data = open_data(folder.parent / "n0.tar")
    assert names(data) == order
    assert order[data.training.targets[0]] in data.training.title(0)
    # And with the classes of the training images, a number is their place.
    both = open_data(folder.parent / "n0.tar", val=folder)
    assert names(both) == order
    assert both.validation.targets.tolist() == [2] * 12 + [1] * 12 + [0] * 12


def test_a_class_may_stand_in_json(folder: Path, tmp_path: Path) -> None:
    """Many shards carry all that is known in one JSON file."""
    image = next(folder.glob("red/*.png")).read_bytes()
    members: dict[str, bytes] = {}
    for key, values in (
        ("a/x", {"label": "cat"}),
        ("a/y", {"cls": 5, "url": "…"}),
        ("b/x", {"label": "cat"}),
    ):
        members |= {f"{key}.json": json.dumps(values).encode(), f"{key}.PNG": image}
    members |= {"b/z.png": image, "b/z.cls": b"dog", "b/z.txt": b"a dog", "README.md": b"text"}
    data = open_data(
        pack(tmp_path / "mixed.tar", members), share=0.4, labels=None, val=tmp_path / "mixed.tar"
    )
    assert names(data) == ["5", "cat", "dog"]
    found = {
        Path(data.training.title(place)).name: names(data)[data.training.targets[place]] for place in range(4)
    }
    assert found == {"x": "cat", "y": "5", "z": "dog"}


def test_a_shard_that_lacks_something_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    """With the shard, and the image where it is one's."""
    image = next(folder.glob("red/*.png")).read_bytes()
    alone = pack(tmp_path / "alone.tar", {"a.png": image, "b.png": image, "b.cls": b"1"})
    with pytest.raises(
        DataError, match=r"the image a in .*alone\.tar has no class; expected a\.cls, or a\.json"
    ):
        open_data(alone)
    with pytest.raises(DataError, match=r"the shard .*absent-1\.tar cannot be read \(No such file"):
        open_data(f"{tmp_path}/absent-{{1..2}}.tar")
    cut = pack_folder(folder, "cut{}.tar", count=1)[0]
    cut.write_bytes(cut.read_bytes()[:9000])
    with pytest.raises(DataError, match=r"the shard .*cut0\.tar cannot be read \(unexpected end of data\)"):
        open_data(cut)
    packed = pack(tmp_path / "packed.tar", {"a.png": image, "a.cls": b"1"}, compressed=True)
    with pytest.raises(DataError, match="expected a tar file that is whole and not compressed"):
        open_data(packed)
    with pytest.raises(DataError, match="hold no image"):
        open_data(pack(tmp_path / "none.tar", {"a.cls": b"1"}))
    with pytest.raises(DataError, match=r"expected a range such as \{000..123\} in .*, got \{2..1\}"):
        open_data(f"{tmp_path}/x-{{2..1}}.tar")


def test_what_was_noted_of_a_shard_is_not_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A million images would be looked for anew at every start; a shard that changed is."""
    (shard,) = pack_folder(folder, "s{}.tar", count=1)
    first = open_data(shard)
    real = tarfile.open
    opened: list[object] = []

    def counted(*given: Any, **named: Any) -> tarfile.TarFile:
        opened.append(given)
        return real(*given, **named)

    monkeypatch.setattr(tarfile, "open", counted)
    second = open_data(shard)
    assert opened == []
    assert second.training.title(0) == first.training.title(0)
    np.testing.assert_array_equal(second.training.read(0), first.training.read(0))
    pack_folder(paint(folder.parent / "new" / "folder", each=3, seed=5), "../s{}.tar", count=1)
    opened.clear()
    assert len(open_data(shard).training) == 6
    assert len(opened) == 1
    for note in (folder.parent / "cache" / "shards").iterdir():
        note.write_text("[[1")
    assert len(open_data(shard).training) == 6
    assert len(opened) == 2

"""Every image is read before the run, and what is wrong with the data is told then."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vit_edge.errors import DataError
from vit_edge.runtime.image import read_image
from vit_edge.runtime.preprocess import crop_pixels
from vit_edge.training import ImageSet
from vit_edge.training.data import LazySet, Part, Reading, open_data, prepare
from vit_edge.training.data.collection import Files

from ...drain import drained
from ..pictures import paint
from .conftest import PREPROCESSING, pack_folder, write_cifar


class Counted:
    """A collection that counts how often it is read."""

    def __init__(self, files: Files | Part) -> None:
        self._files, self.reads = files, 0
        self.targets, self.shards, self.title, self.stamp = files.targets, None, files.title, files.stamp

    def __len__(self) -> int:
        return len(self._files)

    def read(self, place: int) -> NDArray[np.uint8]:
        self.reads += 1
        return self._files.read(place)


def test_what_fits_is_kept_as_the_runtime_crops_it(folder: Path) -> None:
    """The number at the end of training has to be the number on the device."""
    data = open_data(folder, share=0.25)
    seen, prepared = drained(prepare(data, PREPROCESSING))
    for examples, collection in ((prepared.training, data.training), (prepared.validation, data.validation)):
        assert isinstance(examples, ImageSet)
        assert (examples.cropped, examples.shards) == (True, None)
        np.testing.assert_array_equal(examples.targets, collection.targets)
        for place in range(len(collection)):
            pixels, target = examples.example(place)
            expected = crop_pixels(read_image(collection.title(place)), PREPROCESSING)
            np.testing.assert_array_equal(pixels, expected)
            assert target == collection.targets[place]
    assert seen == [Reading("validation", 9, 9), Reading("training", 27, 27)]


def test_what_does_not_fit_is_read_when_needed(folder: Path) -> None:
    """The validation is kept first, since one process reads it again and again."""
    data = open_data(folder, share=0.25)
    _, prepared = drained(prepare(data, PREPROCESSING, memory_limit=9 * 8 * 8 * 3))
    assert isinstance(prepared.validation, ImageSet)
    training = prepared.training
    assert isinstance(training, LazySet)
    assert (training.cropped, training.shards, len(training)) == (False, None, 27)
    pixels, target = training.example(5)
    assert pixels.shape == (10, 12, 3)
    np.testing.assert_array_equal(pixels, read_image(data.training.title(5)))
    assert target == data.training.targets[5]


def test_images_that_are_not_kept_are_looked_at_once_in_many_runs(folder: Path) -> None:
    """A look at a million images takes an hour; a changed file is looked at again."""
    data = open_data(folder, val=paint(folder.parent / "val", each=2, seed=8))
    assert isinstance(data.training, Files)
    (folder / "red" / "0.png").write_bytes(b"no image")
    reports = []
    for expected in (36, 0):
        training = Counted(data.training)
        changed = type(data)(data.labels, training, data.validation, "")
        _, prepared = drained(prepare(changed, PREPROCESSING, memory_limit=0, skip_broken=True))
        assert training.reads == expected
        assert len(prepared.training) == 35
        reports.append(prepared.report)
    assert reports[0].to_dict() == reports[1].to_dict()
    for note in (folder.parent / "cache" / "images").iterdir():
        note.write_bytes(note.read_bytes()[:50])
    training = Counted(data.training)
    drained(
        prepare(
            type(data)(data.labels, training, data.validation, ""),
            PREPROCESSING,
            memory_limit=0,
            skip_broken=True,
        )
    )
    assert training.reads == 36
    (folder / "red" / "0.png").write_bytes(b"still no image")
    training = Counted(data.training)
    with pytest.raises(DataError, match="1 of 42 images cannot be read"):
        drained(
            prepare(type(data)(data.labels, training, data.validation, ""), PREPROCESSING, memory_limit=0)
        )
    assert training.reads == 36


def test_images_are_looked_at_where_nothing_can_be_noted(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The notes save time, and nothing may depend on them."""
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("VIT_EDGE_CACHE", str(tmp_path / "file"))
    _, prepared = drained(prepare(open_data(folder), PREPROCESSING, memory_limit=0))
    assert len(prepared.training) + len(prepared.validation) == 36
    pack_folder(folder, "shard-{}.tar", count=2)
    data = open_data(f"{folder.parent}/shard-{{0..1}}.tar")
    assert len(data.training) + len(data.validation) == 36


@pytest.mark.parametrize("memory_limit", [0, 2**30])
def test_broken_images_are_all_told_or_left_out(folder: Path, memory_limit: int) -> None:
    """Before the first step, whether or not the set fits into memory."""
    whole = (folder / "red" / "3.png").read_bytes()
    (folder / "red" / "3.png").write_bytes(whole[: len(whole) // 2])
    (folder / "blue" / "7.png").write_bytes(b"")
    data = open_data(folder)
    with pytest.raises(DataError) as caught:
        drained(prepare(data, PREPROCESSING, memory_limit=memory_limit))
    text = str(caught.value)
    assert text.startswith("2 of 36 images cannot be read (")
    assert f"{folder}/blue/7.png is empty" in text
    assert f"{folder}/red/3.png is truncated" in text
    assert text.endswith("mend or remove them, or leave them out with --skip-broken")
    _, prepared = drained(prepare(data, PREPROCESSING, skip_broken=True, memory_limit=memory_limit))
    assert len(prepared.training) + len(prepared.validation) == 34
    lines = list(prepared.report.lines())
    assert sum("cannot be read: " in line for line in lines) >= 1
    for examples in (prepared.training, prepared.validation):
        for place in range(len(examples)):
            examples.example(place)


def test_an_image_that_could_not_be_had_is_asked_for_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that was away for a moment must not cost its images for good; damaged ones are damaged tomorrow too."""
    away = folder / "red" / "3.png"
    real = Path.read_bytes

    def read(path: Path) -> bytes:
        if path == away:
            raise PermissionError(13, "Permission denied")
        return real(path)

    data = open_data(folder)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", read)
        _, prepared = drained(prepare(data, PREPROCESSING, memory_limit=0, skip_broken=True))
    assert len(prepared.training) + len(prepared.validation) == 35
    _, prepared = drained(prepare(data, PREPROCESSING, memory_limit=0))
    assert len(prepared.training) + len(prepared.validation) == 36


def test_a_shard_that_is_gone_stops_the_run(folder: Path) -> None:
    """Left out as if they were broken, its images would be missed by nobody."""
    first, _ = pack_folder(folder, "s{}.tar", count=2)
    data = open_data(f"{folder.parent}/s{{0..1}}.tar")
    whole = first.read_bytes()
    first.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=rf"{first} is shorter than it was when it was looked through"):
        drained(prepare(data, PREPROCESSING, skip_broken=True))
    first.unlink()
    with pytest.raises(DataError, match=rf"{first} cannot be read \(No such file"):
        drained(prepare(data, PREPROCESSING, skip_broken=True))


def test_a_digest_is_of_pixels_and_not_of_places(folder: Path) -> None:
    """A run goes on where its images were moved, and not where one of them is another picture."""

    def stamp(data: Path | str) -> str:
        return drained(prepare(open_data(data), PREPROCESSING, memory_limit=0))[1].training.stamp()

    before = stamp(folder)
    moved = folder.rename(folder.with_name("moved"))
    assert stamp(moved) == before
    (moved / "red" / "3.png").write_bytes((moved / "red" / "4.png").read_bytes())
    assert stamp(moved) != before


def test_a_class_whose_images_are_all_broken_is_named(folder: Path) -> None:
    """It would be an output that nothing taught."""
    for image in (folder / "green").iterdir():
        image.write_bytes(b"")
    with pytest.raises(DataError, match="no readable training image of 'green'"):
        drained(prepare(open_data(folder), PREPROCESSING, skip_broken=True))


def test_the_report_tells_balance_and_sizes(tmp_path: Path) -> None:
    """What explains a bad network is known before an hour of training."""
    folder = paint(paint(tmp_path / "data", each=30, names=("blue",)), each=2, names=("red",), seed=1)
    data = open_data(folder, share=0.5)
    _, prepared = drained(prepare(data, PREPROCESSING))
    lines = list(prepared.report.lines())
    assert lines[:2] == [
        "training: 16 images of 2 classes, 1 ('red') to 15 ('blue') each; 12x10",
        "validation: 16 images of 2 classes, 1 ('red') to 15 ('blue') each; 12x10",
    ]
    assert lines[2].startswith("note: 'blue' has 15 times the training images of 'red'")
    assert len(lines) == 3
    values = prepared.report.to_dict()
    assert values["training"]["classes"] == {"blue": 15, "red": 1}
    assert values["training"]["sizes"] == {"smallest": "12x10", "median": "12x10", "largest": "12x10"}


def test_images_that_are_in_both_parts_are_told(folder: Path, tmp_path: Path) -> None:
    """By their pixels: a copy under another name or in another format flatters the accuracy as well."""
    import cv2

    val = paint(tmp_path / "val", each=2, seed=9)
    pixels = cv2.imread(str(folder / "red" / "4.png"))
    assert pixels is not None
    cv2.imwrite(str(val / "red" / "copy.bmp"), pixels)
    _, prepared = drained(prepare(open_data(folder, val=val), PREPROCESSING))
    assert prepared.report.shared == ((f"{val}/red/copy.bmp", f"{folder}/red/4.png"),)
    (line,) = [line for line in prepared.report.lines() if "training images too" in line]
    assert line.startswith(
        f"note: 1 validation images are training images too, pixel by pixel ({val}/red/copy.bmp = "
    )
    # And copies among the training images, one of them under another class.
    for name in ("red/again.png", "blue/wrong.png"):
        (folder / name).write_bytes((folder / "red" / "5.png").read_bytes())
    _, prepared = drained(prepare(open_data(folder, val=val), PREPROCESSING))
    assert (prepared.report.repeated, prepared.report.disputed) == (2, 1)
    told = "\n".join(prepared.report.lines())
    assert "2 training images are copies of others" in told
    assert "1 training images are there under more than one class" in told
    # Under a third class it still is one image.
    (folder / "green" / "wrong.png").write_bytes((folder / "red" / "5.png").read_bytes())
    _, prepared = drained(prepare(open_data(folder, val=val), PREPROCESSING))
    assert (prepared.report.repeated, prepared.report.disputed) == (3, 1)


def test_two_images_of_one_colour_but_another_shape_are_two(tmp_path: Path) -> None:
    """Equal bytes of pixels can make different pictures."""
    import cv2

    for name, size in (("a/1.png", (4, 8)), ("a/2.png", (8, 4)), ("b/1.png", (2, 2)), ("b/2.png", (2, 3))):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "data" / name), np.full((*size, 3), 9, np.uint8))
    _, prepared = drained(prepare(open_data(tmp_path / "data", share=0.5), PREPROCESSING))
    assert (prepared.report.shared, prepared.report.repeated) == ((), 0)


def test_cifar_and_shards_are_prepared_alike(folder: Path, tmp_path: Path) -> None:
    """Whatever the form, a run gets the same kind of sets."""
    write_cifar(tmp_path / "cifar")
    _, prepared = drained(prepare(open_data(tmp_path / "cifar"), PREPROCESSING))
    assert isinstance(prepared.training, ImageSet)
    assert (len(prepared.training), len(prepared.validation)) == (100, 20)
    pack_folder(folder, "s{}.tar", count=2)
    data = open_data(f"{folder.parent}/s{{0..1}}.tar", share=0.25)
    _, prepared = drained(prepare(data, PREPROCESSING, memory_limit=0))
    assert isinstance(prepared.training, LazySet)
    assert prepared.training.shards is not None
    assert sorted(set(prepared.training.shards.tolist())) == [0, 1]


def test_a_broken_image_in_a_shard_is_named(folder: Path) -> None:
    """By its shard and key; nobody finds the 40,123rd image of a tar file."""
    (folder / "red" / "0.png").write_bytes((folder / "red" / "0.png").read_bytes()[:60])
    (shard,) = pack_folder(folder, "s{}.tar", count=1)
    with pytest.raises(
        DataError, match=rf"1 of 36 images cannot be read \({shard}/red0: the image is truncated"
    ):
        drained(prepare(open_data(shard), PREPROCESSING, memory_limit=0))

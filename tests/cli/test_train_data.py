"""``vit-edge train`` on every kind of data, as users run it."""

import json
import tarfile
from pathlib import Path

import pytest

from vit_edge.checkpoint import load_checkpoint

from ..documentation import DOCS, blocks, needs, run_python
from ..training.data.conftest import pack_folder, write_cifar
from ..training.pictures import paint
from .command import call

# Every one of them trains a network in a process of its own.
pytestmark = pytest.mark.slow

SMALL = ("--image-size", "8", "--epochs", "1", "--batch-size", "8")

PAGE = DOCS / "data.md"


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder of three classes, with a cache of its own."""
    monkeypatch.setenv("VIT_EDGE_CACHE", str(tmp_path / "cache"))
    return paint(tmp_path / "photos", each=10)


def trained(data: object, run: Path, *options: object) -> tuple[list[str], str]:
    """Train a little: the classes of the checkpoint, and what was told."""
    done = call("train", data, "-o", run, *SMALL, *options, cwd=run.parent)
    assert done.returncode == 0, done.stderr
    labels = load_checkpoint(run / "best.safetensors").labels
    assert labels is not None
    return [label.name for label in labels.items], done.stderr


def write_list(photos: Path) -> Path:
    rows = [f"{image.relative_to(photos.parent)},{image.parent.name}" for image in photos.glob("*/*.png")]
    path = photos.parent / "labels.csv"
    path.write_text("path,label\n" + "\n".join(rows))
    return path


def test_a_list_trains(photos: Path, tmp_path: Path) -> None:
    """And what is to know of its images is told, and kept beside the run."""
    names, told = trained(write_list(photos), tmp_path / "run", "--val-share", "0.2")
    assert names == ["blue", "green", "red"]
    assert "training: 24 images of 3 classes, 8 each; 12x10\n" in told
    assert "validation: 6 images of 3 classes, 2 each; 12x10\n" in told
    assert "validated on 20 % of each class, set aside\n" in told
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["images"]["training"]["classes"] == {"blue": 8, "green": 8, "red": 8}


def test_cifar_trains_from_its_archive(photos: Path, tmp_path: Path) -> None:
    """As it is downloaded, with the names of its classes and its own test images."""
    write_cifar(tmp_path / "cifar-10-batches-bin")
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "cifar-10-batches-bin", "cifar-10-batches-bin")
    names, told = trained(tmp_path / "cifar-10-binary.tar.gz", tmp_path / "run")
    assert names == [f"name{number}" for number in range(10)]
    assert "training: 100 images of 10 classes, 10 each; 32x32\n" in told
    assert "validated on the set's own test images\n" in told


def test_shards_train_by_a_pattern(photos: Path, tmp_path: Path) -> None:
    """The braces are ours to read, since a shell's are written out before."""
    pack_folder(photos, "train-{:03}.tar", count=3)
    names, told = trained(tmp_path / "train-{000..002}.tar", tmp_path / "run")
    assert names == ["blue", "green", "red"]
    assert "Looking through shards: 3/3\n" in told


def test_what_flatters_is_told(photos: Path, tmp_path: Path) -> None:
    """Before an hour of training, not after it."""
    val = paint(tmp_path / "val", each=2, seed=4)
    (val / "red" / "0.png").write_bytes((photos / "red" / "7.png").read_bytes())
    _, told = trained(photos, tmp_path / "run", "--val", val)
    assert f"note: 1 validation images are training images too, pixel by pixel ({val}/red/0.png = " in told


@pytest.mark.slow
@needs(PAGE)
def test_the_pages_examples_run(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """People copy them."""
    monkeypatch.chdir(tmp_path)
    write_list(photos)
    paint(tmp_path / "others", each=2, seed=4)
    (tmp_path / "shards").mkdir()
    for shard in pack_folder(paint(tmp_path / "more", each=6, seed=5), "train-{:02}.tar", count=2):
        shard.rename(tmp_path / "shards" / shard.name)
    (sh,), (python,) = (blocks(PAGE, language) for language in ("sh", "python"))
    for line in sh.splitlines():
        _, *words = line.replace("'", "").split()
        done = call(*words, *SMALL)
        assert done.returncode == 0, done.stderr
    ran = run_python(python, tmp_path)
    assert ran.stdout.splitlines()[-1] == "24 (32, 32, 3)"

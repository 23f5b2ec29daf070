"""Data of every kind, made of the same small pictures."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from numpy.typing import NDArray

from vit_edge.runtime.preprocess import Preprocessing

from ..pictures import paint

PREPROCESSING = Preprocessing.parse("resize=8,crop=8,interpolation=bicubic,mean=0.5,std=0.5")

Result = TypeVar("Result")


def pack(shard: Path, members: dict[str, bytes], *, compressed: bool = False) -> Path:
    """Write a tar file of these files."""
    with tarfile.open(shard, "w:gz" if compressed else "w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return shard


def pack_folder(folder: Path, shard: str, *, count: int, label: Callable[[str], str] = str) -> list[Path]:
    """Pack a folder of class folders into *count* shards; *label* makes what stands in the .cls of a class's name."""
    images = sorted(folder.glob("*/*.png"))
    random = np.random.default_rng(0)
    random.shuffle(images)
    shards = []
    for number in range(count):
        members = {}
        for image in images[number::count]:
            key = f"{image.parent.name}{image.stem}"
            members[f"{key}.png"] = image.read_bytes()
            members[f"{key}.cls"] = label(image.parent.name).encode()
        shards.append(pack(folder.parent / shard.format(number), members))
    return shards


def write_cifar(folder: Path, *, each: int = 20, classes: int = 10) -> NDArray[np.uint8]:
    """Write a small set in CIFAR's form with one level a class: give the pixels of the first record."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    fine = classes == 100
    names = ["train.bin"] if fine else [f"data_batch_{number}.bin" for number in range(1, 6)]
    first = None
    for name in (*names, "test.bin" if fine else "test_batch.bin"):
        data = b""
        for number in range(max(each, classes)):
            planes = random.integers(0, 256, (3, 32, 32), dtype=np.uint8)
            first = planes if first is None else first
            data += bytes([number % 20] if fine else []) + bytes([number % classes]) + planes.tobytes()
        (folder / name).write_bytes(data)
    meta = "fine_label_names.txt" if fine else "batches.meta.txt"
    (folder / meta).write_text("\n".join(f"name{number}" for number in range(classes)) + "\n\n")
    assert first is not None
    return first.transpose(1, 2, 0)


@pytest.fixture(autouse=True)
def _own_notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIT_EDGE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder of three classes, twelve pictures each."""
    return paint(tmp_path / "folder", each=12)

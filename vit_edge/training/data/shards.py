"""WebDataset shards: tar files in which each image lies beside a file of its class, under the same key.

See https://github.com/webdataset/webdataset for the form. They are read here without that library, since a run that can
stop anywhere, go on, and be shared out among processes has to find each image by its place: a look through the shards
notes where each lies, and from then on parts of them are read, in an order that goes from shard to shard.
"""

import hashlib
import json
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError, ImageError
from ...runtime.cache import cache_folder
from ...runtime.image import IMAGE_SUFFIXES, read_image
from ...runtime.labels import Labels
from ...runtime.replacing import replacing
from . import places

_SCHEMA = 1

# A sample's other files, in the order in which they are asked for its class, and what a JSON file calls it.
_CLASS_SUFFIXES = (".cls", ".json")
_JSON_KEYS = ("label", "cls", "class")

# Shards that are looked through at the same time.
_LOOKERS = 8


@dataclass(frozen=True, slots=True)
class Found:
    """An image in a shard: its key, where its bytes lie, and what its class is called there."""

    key: str
    offset: int
    size: int
    label: str


@dataclass(frozen=True, eq=False)
class Shards:
    """Images in tar files.

    Attributes:
        names: The shards: paths or addresses.
        shards: (images,) int64, the shard of each image.
        keys: The images' keys in their shards.
        offsets: (images,) int64, where an image's bytes begin.
        sizes: (images,) int64, how many they are.
        targets: (images,) int64, the places of their classes.
        stamps: What tells each shard from a later one of the same name.
    """

    names: tuple[str, ...]
    shards: NDArray[np.int64]
    keys: Sequence[str]
    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    targets: NDArray[np.int64]
    stamps: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.targets)

    def read(self, place: int) -> NDArray[np.uint8]:
        """Read and decode an image."""
        name = self.names[self.shards[place]]
        # Outside: a server that does not answer says nothing of the image.
        data = places.read(name, int(self.offsets[place]), int(self.sizes[place]))
        try:
            return read_image(data)
        except ImageError as error:
            raise ImageError(f"{self.title(place)}: {error}") from error

    def title(self, place: int) -> str:
        """Give the shard and the key."""
        return f"{self.names[self.shards[place]]}/{self.keys[place]}"

    def stamp(self) -> str:
        """Take a digest of the shards' stamps."""
        return hashlib.sha256("\n".join(self.stamps).encode("utf-8", "surrogateescape")).hexdigest()


def is_shards(data: str) -> bool:
    """Whether a text means shards: tar files, an address, a pattern of braces, or a folder of nothing but tar files."""
    if data.endswith(".tar") or places.is_web(data):
        return True
    folder = Path(data)
    return (
        folder.is_dir() and any(folder.glob("*.tar")) and not any(path.is_dir() for path in folder.iterdir())
    )


def shard_names(data: str) -> tuple[str, ...]:
    """Give the shards that a text means, in order.

    Raises:
        DataError: A range of the pattern is none.
    """
    if not places.is_web(data) and Path(data).is_dir():
        return tuple(str(path) for path in sorted(Path(data).glob("*.tar")))
    return places.expand(data)


def look_through(names: Sequence[str]) -> Iterator[tuple[str, list[Found]]]:
    """Note where the images of shards lie, several shards at a time; what was noted before is not read again.

    Yields:
        Each shard's stamp and images, in the order of *names*.

    Raises:
        DataError: A shard cannot be read, is damaged, or an image in it has no class; or the other way around.
    """
    with ThreadPoolExecutor(_LOOKERS) as pool:
        # Shards that could not be read end the rest at once.
        futures = [pool.submit(_look, name) for name in names]
        try:
            for future in futures:
                yield future.result()
        finally:
            for future in futures:
                future.cancel()


def gather_shards(
    names: Sequence[str], found: Sequence[tuple[str, list[Found]]], labels: Labels | None
) -> tuple[Labels, Shards]:
    """Make a collection of what `look_through` gave.

    Args:
        names: The shards.
        found: Their stamps and images.
        labels: The classes; without them, those that occur: names in the order of the alphabet, numbers from 0 to the
            largest, called by the lines of a file ``labels.txt`` beside the shards where there is one.

    Raises:
        DataError: A class is not among the labels, or there is no image.
    """
    images = [image for _, several in found for image in several]
    if not images:
        raise DataError(f"the shards {names[0]} … hold no image")
    called = sorted({image.label for image in images})
    if labels is None:
        labels = _labels(called, names[0])
    meaning = {name: _place(name, labels) for name in called}
    if strange := [name for name, place in meaning.items() if place is None]:
        shown = ", ".join(map(repr, strange[:3]))
        raise DataError(
            f"the shards name {len(strange)} classes that are not among the {len(labels)} labels, such as {shown}"
        )
    counts = [len(several) for _, several in found]
    return labels, Shards(
        tuple(names),
        np.repeat(np.arange(len(names)), counts).astype(np.int64),
        [image.key for image in images],
        np.array([image.offset for image in images], np.int64),
        np.array([image.size for image in images], np.int64),
        np.array([meaning[image.label] for image in images], np.int64),
        tuple(stamp for stamp, _ in found),
    )


def _place(name: str, labels: Labels) -> int | None:
    place = labels.find(name)
    if place is None and name.isdecimal() and int(name) < len(labels):
        return int(name)
    return place


def _labels(called: Sequence[str], first: str) -> Labels:
    if not all(name.isdecimal() for name in called):
        return Labels.of(called)
    beside = Path(first).with_name("labels.txt")
    if not places.is_web(first) and beside.is_file():
        return Labels.read(beside)
    return Labels.of([str(number) for number in range(max(map(int, called)) + 1)])


def _look(name: str) -> tuple[str, list[Found]]:
    stamp = places.stamp(name)
    folder = cache_folder()
    digest = hashlib.sha256(f"{_SCHEMA} {stamp}".encode("utf-8", "surrogateescape")).hexdigest()
    note = folder and folder / "shards" / f"{digest[:32]}.json"
    try:
        if note is not None:
            return stamp, [Found(*entry) for entry in json.loads(note.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        # Not there, or damaged: the shard is looked through.
        pass
    found = places.through(name, lambda archive: list(_samples(archive, name)))
    if note is not None:
        entries = [[image.key, image.offset, image.size, image.label] for image in found]
        with suppress(OSError):
            note.parent.mkdir(parents=True, exist_ok=True)
            with replacing(note) as unfinished:
                unfinished.write_text(json.dumps(entries), encoding="utf-8")
    return stamp, found


def _samples(archive: tarfile.TarFile, name: str) -> Iterator[Found]:
    """Give a shard's images; the files of a sample follow one another, and share all of their name up to a dot."""
    key, image, label = "", None, None
    for member in archive:
        path = PurePosixPath(member.name)
        if not member.isfile() or path.name.startswith("."):
            continue
        stem, _, ending = path.name.partition(".")
        if (own := str(path.parent / stem)) != key:
            yield from _sample(key, image, label, name)
            key, image, label = own, None, None
        suffix = f".{ending.lower()}"
        if suffix in IMAGE_SUFFIXES:
            image = member
        elif suffix in _CLASS_SUFFIXES and label is None:
            file = archive.extractfile(member)
            assert file is not None
            label = _label(file.read(), suffix)
    yield from _sample(key, image, label, name)


def _sample(key: str, image: tarfile.TarInfo | None, label: str | None, name: str) -> Iterator[Found]:
    if image is None:
        return
    if label is None:
        raise DataError(
            f"the image {key} in {name} has no class; expected {key}.cls, or {key}.json with 'label', beside it"
        )
    yield Found(key, image.offset_data, image.size, label)


def _label(data: bytes, suffix: str) -> str | None:
    text = data.decode("utf-8", "replace").strip()
    if suffix == ".cls":
        return text or None
    try:
        values: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict):
        return None
    return next((str(values[key]) for key in _JSON_KEYS if isinstance(values.get(key), str | int)), None)

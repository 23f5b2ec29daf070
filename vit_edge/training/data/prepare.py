"""Reads every image once before a run: what is broken, twice there or rare is known then, and not in epoch 7."""

import hashlib
import json
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ...errors import ImageError
from ...runtime.cache import cache_folder
from ...runtime.cores import usable_cores
from ...runtime.preprocess import Preprocessing, crop_pixels
from ...runtime.replacing import replacing
from ..batches import Examples
from ..images import MEMORY_LIMIT, BrokenImagesError, ImageSet, check_classes
from .collection import Collection, Part, UnreadError
from .report import DataReport, Inspection
from .source import Data

_SCHEMA = 2

# Images that are handed out to the threads at a time.
_BLOCK = 256


@dataclass(frozen=True, eq=False)
class LazySet:
    """Images that are read when they are needed: sets that do not fit into memory, and those that are taken whole.

    Attributes:
        collection: The images.
        preprocessing: What the network takes.
        digest: Of all their pixels.
    """

    collection: Collection
    preprocessing: Preprocessing
    digest: str
    cropped: bool = field(default=False, init=False)

    # Both are asked for with every image, and a part of a collection gathers them anew each time.
    @cached_property
    def targets(self) -> NDArray[np.int64]:
        """The classes of the images."""
        return self.collection.targets

    @cached_property
    def shards(self) -> NDArray[np.int64] | None:
        """The files of the images, where those are best read in their order."""
        return self.collection.shards

    def __len__(self) -> int:
        return len(self.collection)

    def example(self, place: int) -> tuple[NDArray[np.uint8], int]:
        """Give an image, (height, width, 3) uint8, RGB, of any size, and the place of its class."""
        return self.collection.read(place), int(self.targets[place])

    def stamp(self) -> str:
        """Give the digest, which is that of the images wherever they lie."""
        return self.digest


@dataclass(frozen=True, eq=False)
class Prepared:
    """Images that are ready for a run.

    Attributes:
        training: The images to train on.
        validation: The images that choose the best epoch.
        report: What was found.
    """

    training: Examples
    validation: Examples
    report: DataReport


@dataclass(frozen=True, slots=True)
class Reading:
    """How far the reading of a part is."""

    what: str
    done: int
    total: int


def prepare(
    data: Data,
    preprocessing: Preprocessing,
    *,
    whole: bool = False,
    skip_broken: bool = False,
    memory_limit: int = MEMORY_LIMIT,
) -> Generator[Reading, None, Prepared]:
    """Read all images, and keep those in memory that fit.

    What fits is kept as the runtime's preprocessing crops it; the rest is read again each time, in the processes that
    load. What was found in images that are not kept is kept in the cache, and they are read once in many runs.

    Args:
        data: The images.
        preprocessing: What the network takes.
        whole: Whether training takes crops of whole images, as `Recipe.crops` says. Its images are then kept only where
            the preprocessing would leave nothing of them out: what is learned must not hang on the memory's size.
        skip_broken: Leave images that cannot be read out instead of stopping.
        memory_limit: The most bytes of pixels to keep, of both parts together.

    Raises:
        BrokenImagesError: Images are broken and are not to be skipped.
        DataError: A class has no image, or a shard cannot be read.
    """
    height, width = preprocessing.crop
    left = memory_limit
    parts: dict[str, tuple[Examples, Inspection]] = {}
    # The validation first: it is read in one process, so that it is what memory helps most.
    for what, collection in (("validation", data.validation), ("training", data.training)):
        needed = len(collection) * height * width * 3
        fits = needed <= left
        left -= needed if fits else 0
        taken_whole = whole and what == "training"
        parts[what] = yield from _read(what, collection, preprocessing, fits=fits, whole=taken_whole)
    problems = [
        problem for _, inspection in reversed(parts.values()) for problem in inspection.problems.values()
    ]
    if problems and not skip_broken:
        raise BrokenImagesError(problems, len(data.training) + len(data.validation))
    for what in ("training", "validation"):
        check_classes(parts[what][0], data.labels, what)
    (training, trained), (validation, validated) = parts["training"], parts["validation"]
    return Prepared(training, validation, DataReport(data.labels, trained, validated))


def _read(
    what: str, collection: Collection, preprocessing: Preprocessing, *, fits: bool, whole: bool
) -> Generator[Reading, None, tuple[Examples, Inspection]]:
    # What is kept is read in any case, and needs no note.
    note = None if fits and not whole else _Note(collection)
    known = None if note is None else note.read()
    kept = fits and (not whole or known is None or _nothing_outside(known, preprocessing))
    inspection, pixels = known, None
    if known is None or kept:
        pixels = np.empty((len(collection), *preprocessing.crop, 3), np.uint8) if kept else None
        inspection = yield from _inspect(what, collection, pixels, preprocessing, whole=whole)
        if note is not None and known is None:
            note.write(inspection)
    assert inspection is not None
    good = inspection.good
    if pixels is None or (whole and not _nothing_outside(inspection, preprocessing)):
        digest = hashlib.blake2b(inspection.digests[good].tobytes(), digest_size=32).hexdigest()
        return LazySet(Part(collection, good), preprocessing, digest), inspection
    if len(good) < len(pixels):
        pixels = pixels[good]
    return ImageSet(pixels, collection.targets[good], preprocessing), inspection


def _nothing_outside(inspection: Inspection, preprocessing: Preprocessing) -> bool:
    """Whether the preprocessing takes every image as it is."""
    crop = preprocessing.crop
    as_is = preprocessing.resize in (crop, min(crop))
    return as_is and bool((inspection.sizes[inspection.good] == crop).all())


def _inspect(
    what: str,
    collection: Collection,
    pixels: NDArray[np.uint8] | None,
    preprocessing: Preprocessing,
    *,
    whole: bool,
) -> Generator[Reading, None, Inspection]:
    """Decode every image in threads, for OpenCV lets others run meanwhile; crop them into *pixels* where given.

    Where they are taken *whole*, an image of another size than the network's fills no memory in vain.
    """
    count = len(collection)
    sizes, digests = np.zeros((count, 2), np.int64), np.zeros(count, "S16")
    problems: dict[int, str] = {}
    passing: set[int] = set()

    def read(place: int) -> None:
        try:
            image = collection.read(place)
            if pixels is not None and (not whole or image.shape[:2] == preprocessing.crop):
                pixels[place] = crop_pixels(image, preprocessing)
        except ImageError as error:
            problems[place] = str(error)
            if isinstance(error, UnreadError):
                passing.add(place)
            return
        sizes[place] = image.shape[:2]
        # Equal bytes of another shape are another picture.
        digest = hashlib.blake2b(str(image.shape).encode(), digest_size=16)
        digest.update(np.ascontiguousarray(image).data)
        digests[place] = digest.digest()

    with ThreadPoolExecutor(usable_cores()) as pool:
        for first in range(0, count, _BLOCK):
            last = min(first + _BLOCK, count)
            for _ in pool.map(read, range(first, last)):
                pass
            yield Reading(what, last, count)
    # Threads find them in any order.
    problems = dict(sorted(problems.items()))
    return Inspection(collection, sizes, digests, problems, lasting=not passing)


class _Note:
    """What is known of a collection from an earlier run; it saves time, and nothing depends on it."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        folder = cache_folder()
        name = hashlib.sha256(f"{_SCHEMA} {collection.stamp()}".encode()).hexdigest()[:32]
        self._path = folder and folder / "images" / f"{name}.npz"

    def read(self) -> Inspection | None:
        if self._path is None:
            return None
        try:
            # Opened here, since numpy leaves a damaged file open.
            with self._path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                sizes, digests = file["sizes"], file["digests"]
                problems = {
                    int(place): problem for place, problem in json.loads(str(file["problems"])).items()
                }
        # A damaged archive raises whatever its reader meets.
        except Exception:
            return None
        if len(sizes) != len(self._collection):
            return None
        return Inspection(self._collection, sizes, digests, problems)

    def write(self, inspection: Inspection) -> None:
        # What could not be had this time may be there the next.
        if self._path is None or not inspection.lasting:
            return
        problems = np.array(json.dumps(inspection.problems))
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self._path) as unfinished, unfinished.open("wb") as file:
                np.savez(file, sizes=inspection.sizes, digests=inspection.digests, problems=problems)

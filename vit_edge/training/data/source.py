"""Finds out what kind of data a path means, and parts it into images to train on and images to validate on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...data import Sample, class_folders, labelled_images
from ...errors import DataError
from ...runtime.labels import Labels
from ..images import check_apart
from ..split import split_places
from .cifar import is_cifar, open_cifar
from .collection import Collection, Files, Part
from .lists import LISTS, read_list
from .shards import gather_shards, is_shards, look_through, shard_names


@dataclass(frozen=True, eq=False)
class Data:
    """Images of a run, found but not read.

    Attributes:
        labels: The classes.
        training: The images to train on.
        validation: The images that choose the best epoch.
        told: What a user should know of where they come from, in a sentence.
    """

    labels: Labels
    training: Collection
    validation: Collection
    told: str


def open_data(
    data: str | Path,
    *,
    val: str | Path | None = None,
    share: float = 0.1,
    seed: int = 0,
    labels: Labels | None = None,
    looked: Callable[[int, int], None] = lambda done, total: None,
) -> Data:
    """Find the images of a run.

    Args:
        data: A folder that holds one folder per class; CIFAR-10 or CIFAR-100 in binary form, unpacked or not; a list
            (.csv, .tsv, .jsonl); or WebDataset shards: a pattern such as ``train-{000..123}.tar``, an address, or a
            folder of tar files.
        val: Images to validate on, of any of these kinds (of CIFAR its test images); without it the set's own part
            (CIFAR), or a share of each class.
        share: That share.
        seed: Which images the share takes.
        labels: The classes; those of *data* unless given.
        looked: Called with how many shards were looked through, and how many there are.

    Raises:
        DataError: There is no such data, or it lacks what a run needs.
        OptionError: *share* is not between 0 and 1.
    """
    labels, training, own = _open(str(data), labels, looked)
    if val is not None:
        _, whole, test = _open(str(val), labels, looked)
        # Of a set that parts itself, its makers' test images are what validates.
        validation = whole if test is None else test
        if isinstance(training, Files) and isinstance(validation, Files):
            check_apart(_samples(training), _samples(validation))
        return Data(labels, training, validation, f"validated on {val}")
    if own is not None:
        return Data(labels, training, own, "validated on the set's own test images")
    kept, aside = split_places(training.targets, labels, share=share, seed=seed)
    told = f"validated on {100 * share:.3g} % of each class, set aside"
    return Data(labels, Part(training, kept), Part(training, aside), told)


def _open(
    data: str, labels: Labels | None, looked: Callable[[int, int], None]
) -> tuple[Labels, Collection, Collection | None]:
    path = Path(data)
    if is_cifar(path):
        found, training, test = open_cifar(path)
        if labels is not None and labels != found:
            raise DataError(f"the classes of {data} are not those to train; leave one of them out")
        return found, training, test
    if is_shards(data):
        names = shard_names(data)
        shards = []
        for shard in look_through(names):
            shards.append(shard)
            looked(len(shards), len(names))
        return *gather_shards(names, shards, labels), None
    if path.suffix.lower() in LISTS:
        return *_open_list(path, labels), None
    if path.is_file():
        raise DataError(
            f"{data} is no data that can be trained on; expected a folder of class folders, a list "
            f"({', '.join(LISTS)}), tar shards, or CIFAR's binary form"
        )
    labels = class_folders(path) if labels is None else labels
    samples = labelled_images(path, labels)
    targets = np.array([sample.target for sample in samples], np.int64)
    return labels, Files([sample.path for sample in samples], targets), None


def _open_list(path: Path, labels: Labels | None) -> tuple[Labels, Files]:
    rows = list(read_list(path))
    called = sorted({name for _, name in rows})
    if labels is None:
        if len(called) < 2:
            raise DataError(
                f"expected at least two classes in {path}, got only {called[0]!r}; add another class"
            )
        labels = Labels.of(called)
    meaning = {name: labels.find(name) for name in called}
    if strange := [name for name, place in meaning.items() if place is None]:
        raise DataError(
            f"{path} names {len(strange)} classes that are none of the {len(labels)} to train, such as "
            f"{', '.join(map(repr, strange[:3]))}; call them as the training images' are called"
        )
    targets = np.array([meaning[name] for _, name in rows], np.int64)
    return labels, Files([image for image, _ in rows], targets)


def _samples(files: Files) -> list[Sample]:
    return [Sample(path, int(target)) for path, target in zip(files.paths, files.targets, strict=True)]

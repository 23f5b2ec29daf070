"""Finds images in folders: names, order and classes; reading the images is the runtime's business."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import DataError
from .runtime.image import IMAGE_SUFFIXES
from .runtime.labels import Label, Labels

# What macOS adds to an archive that it packs: a second copy of each name that holds no image.
_NOT_DATA = frozenset({"__MACOSX"})

# Folder names that mean a part of a data set, never a class of one.
_SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing", "calibrate"})


@dataclass(frozen=True, slots=True)
class Sample:
    """An image file and the place of its class among the labels; None where the class is not known."""

    path: Path
    target: int | None


def list_images(folder: str | Path) -> tuple[Path, ...]:
    """Find every image below a folder.

    Links are followed, hidden files and folders are left out, and the order is that of the names, folder by
    folder, the same on every machine.

    Args:
        folder: The folder; its images may lie in folders of their own.

    Raises:
        DataError: There is no such folder, it cannot be read, or it holds no image.
    """
    folder = _existing(folder)
    images = tuple(_walk(folder))
    if not images:
        raise DataError(f"expected images (such as .jpg or .png files) in {folder}, got none")
    return images


def labelled_images(folder: str | Path, labels: Labels) -> tuple[Sample, ...]:
    """Find the images of a folder that holds one folder per class.

    Args:
        folder: Its folders are named like the classes, in any order; not every class needs one.
        labels: The classes; a folder's name is a label's name or its synset id (see `Labels.find`).

    Raises:
        DataError: There is no such folder, it holds no class folders or loose images, a class folder is
            empty, or a folder's name is no class.
    """
    folder = _existing(folder)
    samples: list[Sample] = []
    strange: list[str] = []
    for class_folder in _class_folders(folder):
        target = labels.find(class_folder.name)
        if target is None:
            strange.append(class_folder.name)
        else:
            samples += (Sample(path, target) for path in _images_of(class_folder))
    if strange:
        raise DataError(
            f"{_named(strange, 'folder')} in {folder} {'is' if len(strange) == 1 else 'are'} no class of the "
            f"model; name each folder by a label's name or synset id, such as {_examples(labels)}"
        )
    return tuple(samples)


def images_with_classes(folder: str | Path, labels: Labels) -> tuple[Sample, ...]:
    """Find the images of a folder, with their classes where it holds one folder per class.

    Args:
        folder: It holds one folder per class, or else images themselves, whose classes then are not known.
        labels: The classes, as `labelled_images` takes them.

    Raises:
        DataError: As `labelled_images`, where there are folders, and where there is no image.
    """
    folder = _existing(folder)
    if any(entry.is_dir() for entry in _entries(folder)):
        return labelled_images(folder, labels)
    return tuple(Sample(path, None) for path in list_images(folder))


def class_folders(folder: str | Path) -> Labels:
    """Make labels of the names of a folder's folders, sorted, to train on them from scratch.

    Args:
        folder: A folder that holds one folder per class.

    Raises:
        DataError: There is no such folder, it holds fewer than two class folders or loose images, a class
            folder is empty, two names mean the same class, or the names are those of a data set's parts.
    """
    folder = _existing(folder)
    folders = _class_folders(folder)
    names = [class_folder.name for class_folder in folders]
    if {name.casefold() for name in names} <= _SPLITS:
        raise DataError(
            f"expected one folder per class in {folder}, got {_named(names, 'folder')}, the parts of a data "
            f"set; give one part, such as {folder / names[-1]}"
        )
    if len(names) == 1:
        raise DataError(
            f"expected at least two class folders in {folder}, got only {names[0]!r}; add another class"
        )
    for class_folder in folders:
        _images_of(class_folder)
    labels = Labels(tuple(Label(name) for name in names))
    for index, name in enumerate(names):
        place = labels.find(name)
        if place is None or place != index:
            other = "no class" if place is None else f"the same class as {names[place]!r}"
            raise DataError(f"the folder {name!r} in {folder} means {other}; rename it or join the two")
    return labels


def _existing(folder: str | Path) -> Path:
    folder = Path(folder)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise DataError(f"expected a folder of images, got the file {folder}; give the folder that holds it")
    raise DataError(f"there is no folder {folder}; check its name")


def _class_folders(folder: Path) -> tuple[Path, ...]:
    """Give a folder's folders, sorted; loose images beside them would be lost unseen, so they are refused."""
    entries = _entries(folder)
    folders = tuple(Path(entry.path) for entry in entries if entry.is_dir())
    loose = [entry.name for entry in entries if _is_image(entry)]
    if loose:
        raise DataError(
            f"expected one folder per class in {folder}, got {_named(loose, 'image')} beside them; "
            "move every image into the folder of its class"
        )
    if not folders:
        raise DataError(
            f"expected one folder per class in {folder}, got none; sort the images into class folders"
        )
    return folders


def _images_of(class_folder: Path) -> tuple[Path, ...]:
    images = tuple(_walk(class_folder))
    if not images:
        raise DataError(f"the class folder {class_folder} holds no image; add some, or remove the folder")
    return images


def _walk(folder: Path, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Path]:
    """Give the images of a folder and of those below it; *above* are the folders that led here."""
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:  # a link to a folder above: its images come where it really is
        return
    for entry in _entries(folder):
        if entry.is_dir():
            yield from _walk(Path(entry.path), above | {here})
        elif _is_image(entry):
            yield Path(entry.path)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            shown = [
                entry for entry in entries if not entry.name.startswith(".") and entry.name not in _NOT_DATA
            ]
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error.strerror}") from error
    return sorted(shown, key=lambda entry: entry.name)


def _is_image(entry: os.DirEntry[str]) -> bool:
    # A dangling link counts: reading it fails later, by name, which is better than a missing image.
    return Path(entry.name).suffix.lower() in IMAGE_SUFFIXES and not entry.is_dir()


def _named(names: list[str], noun: str) -> str:
    """Name up to three things and count the rest: ``the folders 'a', 'b', 'c' and 4 more``."""
    shown = ", ".join(repr(name) for name in names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"the {noun}{'s' if len(names) > 1 else ''} {shown}{more}"


def _examples(labels: Labels) -> str:
    names = [label.id or label.name for label in labels.items[:2]]
    if labels[0].id:
        names = [labels[0].name, labels[0].id]
    return " or ".join(repr(name) for name in names)

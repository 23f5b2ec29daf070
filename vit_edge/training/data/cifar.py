"""CIFAR-10 and CIFAR-100 in the binary form that their makers publish (Krizhevsky 2009, "Binary version").

An image is one record: a byte for the class (CIFAR-100: one for the group and one for the class), then 1024 bytes each
of red, green and blue, row by row.
"""

import tarfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ...runtime.labels import Label, Labels
from .collection import Raw

_SIDE = 32


@dataclass(frozen=True, slots=True)
class _Kind:
    name: str
    training: tuple[str, ...]
    test: str
    names: str
    labels: int  # bytes before the pixels; the last of them is the class
    classes: int


_KINDS = (
    _Kind(
        "CIFAR-10",
        tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
        "test_batch.bin",
        "batches.meta.txt",
        1,
        10,
    ),
    _Kind("CIFAR-100", ("train.bin",), "test.bin", "fine_label_names.txt", 2, 100),
)

_ARCHIVES = (".tar.gz", ".tgz", ".tar")


def is_cifar(path: Path) -> bool:
    """Whether a path is a folder of one of the two sets, or an archive that is called like the published ones."""
    if path.is_dir():
        return any((path / kind.training[0]).is_file() and (path / kind.test).is_file() for kind in _KINDS)
    name = path.name.lower()
    return path.is_file() and name.startswith("cifar-10") and "binary" in name and name.endswith(_ARCHIVES)


def open_cifar(path: Path) -> tuple[Labels, Raw, Raw]:
    """Read one of the two sets.

    Args:
        path: The folder, such as ``cifar-10-batches-bin``, or the archive of it.

    Returns:
        The classes, and the images to train on and to test with, in memory.

    Raises:
        DataError: A file is missing or damaged.
    """
    with ExitStack() as stack:
        if path.is_dir():
            names: Mapping[str, object] = {file.name: file for file in path.iterdir()}
            read: Callable[[str], bytes] = lambda name: (path / name).read_bytes()  # noqa: E731
        else:
            try:
                archive = stack.enter_context(tarfile.open(path))
                members = {PurePosixPath(member.name).name: member for member in archive if member.isfile()}
            except (tarfile.TarError, OSError, EOFError) as error:
                raise DataError(f"{path} is a damaged archive ({error}); download it again") from error
            names = members

            def read(name: str) -> bytes:
                file = archive.extractfile(members[name])
                assert file is not None
                return file.read()

        kind = next((kind for kind in _KINDS if kind.training[0] in names), None)
        if kind is None:
            raise DataError(f"{path} holds neither CIFAR-10's data_batch_1.bin nor CIFAR-100's train.bin")
        needed = (*kind.training, kind.test, kind.names)
        if missing := [name for name in needed if name not in names]:
            raise DataError(f"{path} lacks {', '.join(missing)} of {kind.name}; unpack or download it again")
        try:
            files = {name: read(name) for name in needed}
        except (tarfile.TarError, OSError, EOFError) as error:
            raise DataError(f"{path} cannot be read ({error}); download it again") from error
    labels = Labels(tuple(Label(name) for name in files[kind.names].decode("utf-8", "replace").split()))
    if len(labels) != kind.classes:
        raise DataError(f"expected {kind.classes} names in {kind.names} of {path}, got {len(labels)}")
    training = [_records(files[name], f"{path}/{name}", kind) for name in kind.training]
    pixels, targets = (np.concatenate(parts) for parts in zip(*training, strict=True))
    test = _records(files[kind.test], f"{path}/{kind.test}", kind)
    return labels, Raw(f"{kind.name} train", pixels, targets), Raw(f"{kind.name} test", *test)


def _records(data: bytes, name: str, kind: _Kind) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    size = kind.labels + 3 * _SIDE**2
    if not data or len(data) % size:
        raise DataError(
            f"expected {name} to hold records of {size} bytes, got {len(data)} bytes; download it again"
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, size)
    targets = records[:, kind.labels - 1].astype(np.int64)
    if (largest := int(targets.max())) >= kind.classes:
        raise DataError(f"expected classes below {kind.classes} in {name}, got {largest}; download it again")
    planes = records[:, kind.labels :].reshape(-1, 3, _SIDE, _SIDE)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), targets

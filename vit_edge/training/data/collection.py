"""Images with their classes, wherever they lie: each is read when it is asked for."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...errors import ImageError
from ...runtime.image import read_image


class UnreadError(ImageError):
    """An image whose bytes could not be had, whatever they are: another time they may be."""


class Collection(Protocol):
    """Images and the places of their classes.

    Attributes:
        targets: (images,) int64, the place of each image's class among the labels.
        shards: (images,) int64, the number of the file that each lies in, where images are best read in the order of
            their files; None where any order is as good.
    """

    @property
    def targets(self) -> NDArray[np.int64]: ...

    @property
    def shards(self) -> NDArray[np.int64] | None: ...

    def __len__(self) -> int: ...

    def read(self, place: int) -> NDArray[np.uint8]:
        """Give an image: (height, width, 3) uint8, RGB, 0..255.

        Raises:
            ImageError: It cannot be read; the text names it. `UnreadError` where that may pass.
            DataError: The file that it lies in with others cannot be read.
        """
        ...

    def title(self, place: int) -> str:
        """Name an image for people."""
        ...

    def stamp(self) -> str:
        """Give a digest that is another one as soon as an image is."""
        ...


@dataclass(frozen=True, eq=False)
class Files:
    """Image files.

    Attributes:
        paths: The files.
        targets: Their classes.
    """

    paths: Sequence[Path]
    targets: NDArray[np.int64]
    shards: None = field(default=None, init=False)

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, place: int) -> NDArray[np.uint8]:
        """Read and decode a file."""
        try:
            return read_image(self.paths[place])
        except ImageError as error:
            # Raised while the system's own error was handled: what the file holds is not known.
            if isinstance(error.__context__, OSError):
                raise UnreadError(str(error)) from error
            raise

    def title(self, place: int) -> str:
        """Give the path."""
        return str(self.paths[place])

    def stamp(self) -> str:
        """Take a digest of paths, sizes and times of change."""
        sha256 = hashlib.sha256()
        for path in self.paths:
            try:
                status = path.stat()
                told = f"{path.absolute()} {status.st_size} {status.st_mtime_ns}\n"
            except OSError:
                told = f"{path.absolute()} absent\n"
            sha256.update(told.encode("utf-8", "surrogateescape"))
        return sha256.hexdigest()


@dataclass(frozen=True, eq=False)
class Raw:
    """Images that are pixels already.

    Attributes:
        name: Where they come from.
        pixels: (images, height, width, 3) uint8, RGB.
        targets: Their classes.
    """

    name: str
    pixels: NDArray[np.uint8]
    targets: NDArray[np.int64]
    shards: None = field(default=None, init=False)

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, place: int) -> NDArray[np.uint8]:
        """Give an image's pixels."""
        return np.asarray(self.pixels[place])

    def title(self, place: int) -> str:
        """Give the number of the image from 0."""
        return f"{self.name}#{place}"

    def stamp(self) -> str:
        """Take a digest of all pixels."""
        return hashlib.sha256(np.ascontiguousarray(self.pixels).data).hexdigest()


@dataclass(frozen=True, eq=False)
class Part:
    """Some of the images of a collection.

    Attributes:
        whole: The collection.
        places: (images,) int64, which of its images.
    """

    whole: Collection
    places: NDArray[np.int64]

    @property
    def targets(self) -> NDArray[np.int64]:
        """The classes of the images."""
        return self.whole.targets[self.places]

    @property
    def shards(self) -> NDArray[np.int64] | None:
        """The files of the images."""
        return None if self.whole.shards is None else self.whole.shards[self.places]

    def __len__(self) -> int:
        return len(self.places)

    def read(self, place: int) -> NDArray[np.uint8]:
        """Read an image of the whole."""
        return self.whole.read(int(self.places[place]))

    def title(self, place: int) -> str:
        """Name an image of the whole."""
        return self.whole.title(int(self.places[place]))

    def stamp(self) -> str:
        """Take a digest of the whole's and of which images these are."""
        places = np.ascontiguousarray(self.places, np.int64).tobytes()
        return hashlib.sha256(self.whole.stamp().encode() + places).hexdigest()

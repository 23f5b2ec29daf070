"""The images of a training run: decoded and cropped once, by the runtime's own code, and held in memory."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..data import Sample
from ..errors import DataError, ImageError
from ..runtime.image import read_image
from ..runtime.labels import Labels
from ..runtime.preprocess import Preprocessing, crop_pixels
from .batches import Examples

MEMORY_LIMIT = 4 * 2**30
"""The most bytes that the images of a run may take; more would push a small machine into its swap space."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """What became of one image file: its pixels, or why there are none."""

    sample: Sample
    pixels: NDArray[np.uint8] | None
    problem: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class ImageSet:
    """Images as the network sees them, but for the normalisation.

    Attributes:
        pixels: (images, height, width, 3) uint8, RGB, 0..255; height and width are those of the crop.
        targets: (images,) int64, the place of each image's class among the labels.
        preprocessing: What made the pixels.
    """

    pixels: NDArray[np.uint8]
    targets: NDArray[np.int64]
    preprocessing: Preprocessing

    @property
    def cropped(self) -> bool:
        """The images are of the network's size already."""
        return True

    @property
    def shards(self) -> None:
        """In memory any order is as good."""
        return None

    def __len__(self) -> int:
        return len(self.targets)

    def example(self, place: int) -> tuple[NDArray[np.uint8], int]:
        """Give an image, (height, width, 3) uint8, RGB, and the place of its class."""
        return self.pixels[place], int(self.targets[place])

    def stamp(self) -> str:
        """Take a digest of all pixels."""
        return hashlib.blake2b(np.ascontiguousarray(self.pixels).data, digest_size=32).hexdigest()


def check_memory(images: int, preprocessing: Preprocessing) -> None:
    """Check, before any is read, that this many images fit into `MEMORY_LIMIT`.

    Raises:
        DataError: They do not.
    """
    height, width = preprocessing.crop
    needed = images * height * width * 3
    if needed > MEMORY_LIMIT:
        raise DataError(
            f"{images:,} images of {height}x{width} take {needed / 2**30:.1f} GiB of memory, more than the "
            f"{MEMORY_LIMIT / 2**30:.0f} GiB that training uses; "
            f"give at most {images * MEMORY_LIMIT // needed:,} images, or a smaller image size"
        )


def decode(samples: Iterable[Sample], preprocessing: Preprocessing) -> Iterator[Decoded]:
    """Read, resize and crop images one by one; a broken one is yielded with its problem."""
    for sample in samples:
        try:
            yield Decoded(sample, crop_pixels(read_image(sample.path), preprocessing))
        except ImageError as error:
            yield Decoded(sample, None, str(error))


def gather(
    decoded: Iterable[Decoded], count: int, preprocessing: Preprocessing, *, skip_broken: bool = False
) -> ImageSet:
    """Gather decoded images into one set.

    Args:
        decoded: What `decode` yields, perhaps through a progress bar.
        count: How many there are.
        preprocessing: What they were decoded with.
        skip_broken: Leave broken images out instead of stopping.

    Raises:
        BrokenImagesError: Images are broken and are not to be skipped; all are read first, so that all are known.
    """
    pixels = np.empty((count, *preprocessing.crop, 3), np.uint8)
    targets = np.empty(count, np.int64)
    broken: list[str] = []
    good = 0
    for image in decoded:
        if image.pixels is None:
            broken.append(image.problem)
            continue
        if image.sample.target is None:
            raise ValueError(f"expected a class for every image, got none for {image.sample.path}")
        pixels[good], targets[good] = image.pixels, image.sample.target
        good += 1
    if broken and not skip_broken:
        raise BrokenImagesError(broken, count)
    return ImageSet(pixels[:good], targets[:good], preprocessing)


class BrokenImagesError(DataError):
    """Images that cannot be read.

    Attributes:
        problems: Why, a sentence each, of all of them; the error's own text names the first few.
    """

    def __init__(self, problems: Sequence[str], count: int) -> None:
        """Take what is wrong, and how many images there are."""
        shown = "; ".join(problems[:_SHOWN])
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        super().__init__(
            f"{len(problems)} of {count} images cannot be read ({shown}{more}); "
            "mend or remove them, or leave them out with --skip-broken"
        )
        self.problems = tuple(problems)

    @property
    def unnamed(self) -> tuple[str, ...]:
        """What the text leaves out."""
        return self.problems[_SHOWN:]


def check_classes(images: Examples, labels: Labels, what: str) -> None:
    """Check that every class has an image.

    Args:
        images: The set.
        labels: The classes.
        what: What the set is for, as in "training".

    Raises:
        DataError: A class has none, for instance because all its images were broken.
    """
    present = set(images.targets.tolist())
    if missing := [label.name for index, label in enumerate(labels.items) if index not in present]:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise DataError(
            f"there is no readable {what} image of {', '.join(map(repr, missing[:_SHOWN]))}{more}; "
            "add some, or remove the class"
        )


def check_apart(training: Sequence[Sample], validation: Sequence[Sample]) -> None:
    """Check that no file is in both sets: an accuracy on images learned by heart says nothing.

    Raises:
        DataError: One is.
    """
    learned = {sample.path.resolve() for sample in training}
    if shared := [sample.path for sample in validation if sample.path.resolve() in learned]:
        raise DataError(
            f"{len(shared)} validation images are training images too, among them {shared[0]}; "
            "give other images with --val, or leave --val out to have a share set aside"
        )


# How many names an error lists.
_SHOWN = 5

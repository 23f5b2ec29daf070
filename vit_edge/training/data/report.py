"""What is told of a run's images before it starts: how many of each class, of what size, and which are twice there."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.labels import Labels
from .collection import Collection

# From this ratio on, the rare classes are drowned by the frequent ones.
_UNBALANCED = 10

# How many names a sentence lists.
_SHOWN = 3


@dataclass(frozen=True, eq=False)
class Inspection:
    """What reading every image of a collection showed.

    Attributes:
        collection: The images.
        sizes: (images, 2) int64, height and width; 0 where an image cannot be read.
        digests: (images,) bytes, equal where the pixels are.
        problems: Why images cannot be read, by their places.
        lasting: Whether all of that lies in the images' own bytes, and none in how they could be had.
    """

    collection: Collection
    sizes: NDArray[np.int64]
    digests: NDArray[np.bytes_]
    problems: Mapping[int, str]
    lasting: bool = True

    @property
    def good(self) -> NDArray[np.int64]:
        """The places of the images that can be read."""
        return np.flatnonzero(self.sizes[:, 0] > 0)


@dataclass(frozen=True, eq=False)
class DataReport:
    """What is worth knowing of a run's images.

    Attributes:
        labels: The classes.
        training: The images to train on.
        validation: The images that choose the best epoch.
    """

    labels: Labels
    training: Inspection
    validation: Inspection

    @cached_property
    def shared(self) -> tuple[tuple[str, str], ...]:
        """The images of the validation that are training images too, pixel by pixel, each with one of those."""
        learned = {self.training.digests[place]: place for place in self.training.good[::-1]}
        return tuple(
            (
                self.validation.collection.title(int(place)),
                self.training.collection.title(int(learned[digest])),
            )
            for place in self.validation.good
            if (digest := self.validation.digests[place]) in learned
        )

    @cached_property
    def repeated(self) -> int:
        """How many training images are copies of others, pixel by pixel."""
        digests = self.training.digests[self.training.good]
        return len(digests) - len(np.unique(digests))

    @cached_property
    def disputed(self) -> int:
        """How many different training images are there under two classes or more."""
        good = self.training.good
        digests, targets = self.training.digests[good], self.training.collection.targets[good]
        pairs = set(zip(digests.tolist(), targets.tolist(), strict=True))
        return sum(classes > 1 for classes in Counter(digest for digest, _ in pairs).values())

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, ready for JSON."""
        return {
            **{what: self._part(part) for what, part in self._parts()},
            "shared": len(self.shared),
            "repeated": self.repeated,
            "disputed": self.disputed,
        }

    def lines(self) -> Iterator[str]:
        """Give what people should read before the run."""
        for what, part in self._parts():
            yield f"{what}: {self._told(part)}"
        for what, part in self._parts():
            if problems := list(part.problems.values()):
                more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
                shown = "; ".join(problems[:_SHOWN]) + more
                yield f"left out {len(problems)} {what} images that cannot be read: {shown}"
        counts = self._counts(self.training)
        if counts.max() >= _UNBALANCED * counts.min():
            most, least = (self.labels[int(place)].name for place in (counts.argmax(), counts.argmin()))
            yield (
                f"note: {most!r} has {counts.max() / counts.min():.0f} times the training images of {least!r}; "
                "more images of the rare classes would help them"
            )
        if shared := self.shared:
            pairs = ", ".join(f"{mine} = {other}" for mine, other in shared[:_SHOWN])
            yield (
                f"note: {len(shared)} validation images are training images too, pixel by pixel ({pairs}"
                f"{', …' if len(shared) > _SHOWN else ''}): the accuracy is flattered by as many"
            )
        if self.repeated:
            yield f"note: {self.repeated} training images are copies of others, pixel by pixel"
        if self.disputed:
            yield f"note: {self.disputed} training images are there under more than one class, pixel by pixel"

    def _parts(self) -> tuple[tuple[str, Inspection], ...]:
        return ("training", self.training), ("validation", self.validation)

    def _counts(self, part: Inspection) -> NDArray[np.int64]:
        return np.bincount(part.collection.targets[part.good], minlength=len(self.labels))

    def _part(self, part: Inspection) -> dict[str, Any]:
        counts = self._counts(part)
        return {
            "images": len(part.good),
            "broken": list(part.problems.values()),
            "classes": {
                str(label): int(count) for label, count in zip(self.labels.items, counts, strict=True)
            },
            "sizes": dict(zip(("smallest", "median", "largest"), _sizes(part), strict=True)),
        }

    def _told(self, part: Inspection) -> str:
        counts = self._counts(part)
        each = str(counts.min())
        if counts.min() != counts.max():
            least, most = (self.labels[int(place)].name for place in (counts.argmin(), counts.argmax()))
            each = f"{counts.min()} ({least!r}) to {counts.max()} ({most!r})"
        smallest, median, largest = _sizes(part)
        size = (
            smallest
            if smallest == largest
            else f"{smallest} to {largest} pixels, half of them up to {median}"
        )
        return f"{len(part.good):,} images of {len(self.labels)} classes, {each} each; {size}"


def _sizes(part: Inspection) -> tuple[str, str, str]:
    """Give width and height of the smallest, the middle and the largest image by area."""
    sizes = part.sizes[part.good]
    order = sizes.prod(axis=1).argsort(kind="stable")
    height_width = (sizes[order[place]] for place in (0, (len(order) - 1) // 2, -1))
    smallest, median, largest = (f"{width}x{height}" for height, width in height_width)
    return smallest, median, largest

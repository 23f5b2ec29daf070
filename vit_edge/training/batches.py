"""Training batches: which images, who loads them, and what of each batch a process has."""

import itertools
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..errors import DataError, ImageError, TrainingError
from ..runtime.preprocess import Preprocessing
from .augment import Augment
from .chance import order
from .recipe import Recipe


class Examples(Protocol):
    """Images with their classes, found by place.

    Attributes:
        preprocessing: What the network takes.
        cropped: Whether the images are of the network's size already, by that preprocessing.
        targets: (images,) int64, the place of each image's class among the labels.
        shards: (images,) int64, the file that each image lies in, where they are best read file by file; None where any
            order is as good.
    """

    @property
    def preprocessing(self) -> Preprocessing: ...

    @property
    def cropped(self) -> bool: ...

    @property
    def targets(self) -> NDArray[np.int64]: ...

    @property
    def shards(self) -> NDArray[np.int64] | None: ...

    def __len__(self) -> int: ...

    def example(self, place: int) -> tuple[NDArray[np.uint8], int]:
        """Give an image, (height, width, 3) uint8, RGB, and the place of its class."""
        ...

    def stamp(self) -> str:
        """Give a digest that is another one where the images are others."""
        ...


@dataclass(frozen=True, slots=True)
class Batch:
    """A process's part of a batch.

    Attributes:
        images: (images, 3, height, width) uint8.
        targets: (images,) int64.
        places: (images,) int64, where they are in the set.
        first: The place in the whole batch of the first.
        weight: 1, or 0 where there was nothing left for this process and an image stands in.
        whole: How many images the whole batch has.
    """

    images: Tensor
    targets: Tensor
    places: NDArray[np.int64]
    first: int
    weight: float
    whole: int


def batches(
    examples: Examples,
    recipe: Recipe,
    *,
    epochs: Iterable[int],
    start: int = 0,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    pinned: bool = False,
) -> Generator[Batch, None, None]:
    """Give the batches of epochs, one after the other; while an epoch ends, the next one's images are loaded already.

    Args:
        examples: The training images.
        recipe: Its `batch_size`, `seed` and changes to images.
        epochs: From 1; another epoch has another order.
        start: The batch of the first epoch to begin with, where earlier ones are done.
        rank: Which process this is.
        world: Of how many.
        workers: How many processes load and change images beside this one; 0 does it here.
        pinned: Whether batches lie where a GPU can fetch them while it computes.

    Raises:
        TrainingError: An image can no longer be read, or a worker died; see `worker_errors` for the latter.
    """
    shares = plan(len(examples), recipe, epochs, shards=examples.shards, start=start, rank=rank, world=world)
    ahead, now = itertools.tee(shares)
    loader: DataLoader[Any] = DataLoader(
        _Changed(examples, Augment(recipe, examples.preprocessing, cropped=examples.cropped)),
        batch_sampler=([(share.epoch, place) for place in share.places.tolist()] for share in ahead),
        num_workers=workers,
        collate_fn=_collate,
        # It draws a seed that nobody uses; from the generator of all, that would change what others draw.
        generator=torch.Generator(),
        # Where it can be, images that are held in memory are shared and not copied.
        multiprocessing_context="fork" if workers and hasattr(os, "fork") else None,
        pin_memory=pinned,
    )
    with worker_errors():
        with _without_opencv_threads():
            loaded = iter(loader)
        try:
            for (images, targets), share in zip(loaded, now, strict=True):
                yield Batch(images, targets, share.places, share.first, share.weight, share.whole)
        finally:
            # An error's traceback would keep them; and as long as torch watches them, the death of one raises anywhere.
            if workers:
                loaded._shutdown_workers()  # type: ignore[attr-defined]


class Share(NamedTuple):
    """What a process has of a batch: which images, and the rest as in `Batch`."""

    epoch: int
    places: NDArray[np.int64]
    first: int
    weight: float
    whole: int


def plan(
    count: int,
    recipe: Recipe,
    epochs: Iterable[int],
    *,
    shards: NDArray[np.int64] | None,
    start: int = 0,
    rank: int = 0,
    world: int = 1,
) -> Iterator[Share]:
    """Give what a process has of each batch of epochs; of so many images, the other arguments as in `batches`."""
    size = recipe.batch_size
    for epoch in epochs:
        places = order(recipe.seed, epoch, count, shards=shards)
        for begin in range(start * size, len(places), size):
            whole = places[begin : begin + size]
            low, high = part(len(whole), rank=rank, world=world)
            # Every process takes part in every step: one without images of its own computes one that does not count.
            mine = whole[low:high] if high > low else whole[:1]
            yield Share(epoch, mine, low, float(high > low), len(whole))
        start = 0


@contextmanager
def worker_errors() -> Iterator[None]:
    """Say in a sentence what went wrong in a process that loads images.

    torch hears of its death by a signal, and so raises wherever this process happens to be.

    Raises:
        TrainingError: An image can no longer be read, or a worker died.
    """
    try:
        yield
    except (ImageError, DataError) as error:
        # All were read before; what a worker raises comes with its traceback, the sentence last.
        sentence = str(error).strip().rpartition(f"{type(error).__name__}: ")[2]
        raise TrainingError(
            f"{sentence}; it could be read when the run began; mend it, then go on with --resume"
        ) from error
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        # Where the worker could still say why, its traceback's last line does.
        said = str(error).strip().splitlines()[-1].strip() if "Traceback" in str(error) else str(error)
        raise TrainingError(
            f"a process that loads images died ({' '.join(said.split())}); where memory is short, give fewer with "
            "--workers, or 0, then go on with --resume"
        ) from error


def part(count: int, *, rank: int, world: int) -> tuple[int, int]:
    """Give a process's share of a batch, first and one past the last; pairs, which are mixed, stay together.

    >>> [part(10, rank=rank, world=3) for rank in range(3)]
    [(0, 4), (4, 8), (8, 10)]
    """
    pairs = np.array_split(np.arange((count + 1) // 2), world)[rank]
    if not len(pairs):
        return count, count
    return int(2 * pairs[0]), min(int(2 * pairs[-1] + 2), count)


class _Changed(Dataset[tuple[Tensor, int]]):
    """Images as an epoch sees them, found by the epoch and their place."""

    def __init__(self, examples: Examples, augment: Augment) -> None:
        self._examples, self._augment = examples, augment

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        epoch, place = key
        image, target = self._examples.example(place)
        return self._augment(image, epoch=epoch, place=place), target


def _collate(examples: Sequence[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    return torch.stack([image for image, _ in examples]), torch.tensor([target for _, target in examples])


@contextmanager
def _without_opencv_threads() -> Iterator[None]:
    """Put OpenCV's threads away while workers are split off: they do not come along, and a worker would wait for them.

    Workers share the cores among them, and are each to have one thread in any case; torch sees to its own.
    """
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)

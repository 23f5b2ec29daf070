"""Real images with the reference's answers for them: what every step of an export is measured on."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray

from ..data import Sample
from ..errors import ExportError
from ..evaluation import Comparison, compare
from ..runtime.errors import ModelError
from ..runtime.image import read_image
from ..runtime.preprocess import Preprocessing, crop_pixels, normalise
from ..runtime.session import open_session
from .graph import takes_bytes
from .network import Network

T = TypeVar("T")

# Crops of so many images are kept between steps; more are decoded anew each time (0.15 MB each at 224 pixels).
_KEPT_IMAGES = 2048


@dataclass(frozen=True, slots=True)
class Tick:
    """A piece of work has moved on."""

    stage: str
    done: int
    total: int


@dataclass
class Images:
    """Images, and what the network makes of them.

    Attributes:
        name: The folder, for messages.
        paths: The image files.
        targets: The right classes, where known.
        preprocessing: From an image to the network's input.
        reference: (images, classes) float32, the network's own logits; None until `answer`.
    """

    name: str
    paths: Sequence[Path]
    targets: Sequence[int] | None
    preprocessing: Preprocessing
    reference: NDArray[np.float32] | None = field(init=False, default=None)
    _kept: dict[Path, NDArray[np.uint8]] = field(init=False, default_factory=dict)

    def crop(self, path: Path) -> NDArray[np.uint8]:
        """Give one image resized and cropped: (1, height, width, 3) uint8, RGB."""
        if path in self._kept:
            return self._kept[path]
        crop = crop_pixels(read_image(path), self.preprocessing)[None]
        if len(self._kept) < _KEPT_IMAGES:
            self._kept[path] = crop
        return crop

    def pixels(self, path: Path) -> NDArray[np.float32]:
        """Give one image as the network takes it: (1, 3, height, width) float32."""
        return normalise(self.crop(path)[0], self.preprocessing)[None]

    def given(self, model: onnx.ModelProto, path: Path, *, batch: int = 1) -> NDArray[Any]:
        """Give one image as a graph takes it, raw bytes or normalised, so many times as *batch* says."""
        return np.repeat(self.crop(path) if takes_bytes(model) else self.pixels(path), batch, axis=0)

    def answer(self, network: Network) -> Iterator[Tick]:
        """Fill `reference` with a network's own answers."""
        rows = []
        for done, path in enumerate(self.paths, start=1):
            rows.append(network.logits(self.pixels(path)))
            yield Tick(f"{network.reference}'s answers on {self.name}", done, len(self.paths))
        self.reference = np.concatenate(rows)

    def measure(self, model: onnx.ModelProto, stage: str, *, count: int | None = None) -> "Measurement":
        """Prepare to run a graph on all images, or on the first *count*, one by one."""
        return Measurement(self, model, stage, min(count or len(self.paths), len(self.paths)))


@dataclass
class Measurement:
    """A graph on its way through the images: iterate for progress, then read `comparison`."""

    images: Images
    model: onnx.ModelProto
    stage: str
    count: int
    logits: NDArray[np.float32] = field(init=False)

    def __iter__(self) -> Iterator[Tick]:
        run = Runner(self.model)
        rows = []
        for done, path in enumerate(self.images.paths[: self.count], start=1):
            rows.append(run(self.images.given(self.model, path)))
            yield Tick(f"{self.stage} on {self.images.name}", done, self.count)
        self.logits = np.concatenate(rows)

    @property
    def comparison(self) -> Comparison:
        """The graph's answers against the reference's."""
        reference, targets = self.images.reference, self.images.targets
        assert reference is not None
        return compare(
            reference[: self.count], self.logits, None if targets is None else targets[: self.count]
        )


def spread(items: Sequence[T], count: int) -> list[T]:
    """Choose some of many, the same ones each time, in random order: folders sort their images by class."""
    return random.Random(0).sample(list(items), min(count, len(items)))


def labelled(folder: Path, samples: Sequence[Sample], preprocessing: Preprocessing) -> Images:
    """Give images with their classes, as `labelled_images` finds them."""
    targets = [sample.target for sample in samples if sample.target is not None]
    return Images(folder.name, [sample.path for sample in samples], targets, preprocessing)


class Runner:
    """A graph held open on the CPU provider, that takes any number of images.

    Raises:
        ExportError: ONNX Runtime does not take the graph, or fails to run it.
    """

    def __init__(self, model: onnx.ModelProto, *, threads: int | None = None) -> None:
        try:
            self._session = open_session(
                model.SerializeToString(), name="the exported graph", threads=threads
            )
        except ModelError as error:
            raise _unusable(error.__cause__ or error) from error
        self._input = self._session.get_inputs()[0]

    def __call__(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Give the logits of images in the graph's own layout: (batch, classes) float32."""
        size = self._input.shape[0]
        if isinstance(size, int) and size != len(pixels):
            # A fixed batch: copies fill it, so that one image's answer is its answer beside itself.
            pixels = np.resize(pixels, (size, *pixels.shape[1:]))
            return self._run(pixels)[:1]
        return self._run(pixels)

    def _run(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        try:
            return np.asarray(self._session.run(None, {self._input.name: pixels})[0])
        # ONNX Runtime's exceptions share no base but this one.
        except Exception as error:
            raise _unusable(error) from error


def _unusable(error: BaseException) -> ExportError:
    return ExportError(f"ONNX Runtime cannot run the graph ({' '.join(str(error).split())})")

"""Real images with torch's answers for them: what every step of an export is measured on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from numpy.typing import NDArray

from ..errors import ExportError
from ..evaluation import Comparison, compare
from ..runtime.errors import ModelError
from ..runtime.image import read_image
from ..runtime.preprocess import Preprocessing, preprocess
from ..runtime.session import open_session

if TYPE_CHECKING:
    from torch import nn

# Pixels of so many images are kept between steps; more are decoded anew each time (0.6 MB each at 224 pixels).
_KEPT_IMAGES = 512


@dataclass(frozen=True, slots=True)
class Tick:
    """A piece of work has moved on."""

    stage: str
    done: int
    total: int


@dataclass
class Images:
    """Images, and what torch makes of them.

    Attributes:
        name: The folder, for messages.
        paths: The image files.
        targets: The right classes, where known.
        preprocessing: From an image to the network's input.
        reference: (images, classes) float32, torch's logits; None until `answer`.
    """

    name: str
    paths: Sequence[Path]
    targets: Sequence[int] | None
    preprocessing: Preprocessing
    reference: NDArray[np.float32] | None = field(init=False, default=None)
    _kept: dict[Path, NDArray[np.float32]] = field(init=False, default_factory=dict)

    def pixels(self, path: Path) -> NDArray[np.float32]:
        """Give one image as the network takes it: (1, 3, height, width) float32."""
        if path in self._kept:
            return self._kept[path]
        pixels = preprocess(read_image(path), self.preprocessing)[None]
        if len(self._kept) < _KEPT_IMAGES:
            self._kept[path] = pixels
        return pixels

    def answer(self, module: "nn.Module") -> Iterator[Tick]:
        """Fill `reference` with a torch module's answers."""
        from ..reference import torch_logits

        rows = []
        for done, path in enumerate(self.paths, start=1):
            rows.append(torch_logits(module, self.pixels(path)))
            yield Tick(f"torch's answers on {self.name}", done, len(self.paths))
        self.reference = np.concatenate(rows)

    def measure(self, model: onnx.ModelProto, stage: str) -> "Measurement":
        """Prepare to run a graph on all images, one by one."""
        return Measurement(self, model, stage)


@dataclass
class Measurement:
    """A graph on its way through the images: iterate for progress, then read `comparison`."""

    images: Images
    model: onnx.ModelProto
    stage: str
    logits: NDArray[np.float32] = field(init=False)

    def __iter__(self) -> Iterator[Tick]:
        run = Runner(self.model)
        rows = []
        for done, path in enumerate(self.images.paths, start=1):
            rows.append(run(self.images.pixels(path)))
            yield Tick(f"{self.stage} on {self.images.name}", done, len(self.images.paths))
        self.logits = np.concatenate(rows)

    @property
    def comparison(self) -> Comparison:
        """The graph's answers against torch's."""
        assert self.images.reference is not None
        return compare(self.images.reference, self.logits, self.images.targets)


class Runner:
    """A graph held open on the CPU provider, that takes any number of images.

    Raises:
        ExportError: ONNX Runtime does not take the graph, or fails to run it.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        try:
            self._session = open_session(model.SerializeToString(), name="the exported graph")
        except ModelError as error:
            raise _unusable(error.__cause__ or error) from error
        self._input = self._session.get_inputs()[0]

    def __call__(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        size = self._input.shape[0]
        if isinstance(size, int) and size != len(pixels):
            # A fixed batch: copies fill it, so that one image's answer is its answer beside itself.
            pixels = np.resize(pixels, (size, *pixels.shape[1:]))
            return self._run(pixels)[:1]
        return self._run(pixels)

    def _run(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            return np.asarray(self._session.run(None, {self._input.name: pixels})[0])
        # ONNX Runtime's exceptions share no base but this one.
        except Exception as error:
            raise _unusable(error) from error


def _unusable(error: BaseException) -> ExportError:
    return ExportError(f"ONNX Runtime cannot run the graph ({' '.join(str(error).split())})")

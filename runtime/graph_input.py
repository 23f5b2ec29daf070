"""What a graph takes: normalised planes in float, or raw pixels as a camera gives them. The file alone decides."""

from typing import Any, Literal, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from .errors import ImageError, ModelError
from .preprocess import Preprocessing, crop_pixels, preprocess

Pixels = NDArray[np.float32 | np.uint8]
"""One image as a graph takes it, or several along a first axis."""

InputType = Literal["float32", "uint8"]

# ONNX Runtime's names of the types, and the axis of the channels; height and width are the other two.
_KINDS: dict[str, tuple[InputType, int]] = {"tensor(float)": ("float32", 1), "tensor(uint8)": ("uint8", 3)}


class GraphInput(NamedTuple):
    """The one input of a graph.

    Attributes:
        name: Its name.
        type: ``float32`` is (batch, 3, height, width), normalised; ``uint8`` is (batch, height, width, 3), 0..255.
        sides: Its shape without the batch.
        batch: The only batch size that it takes; None where it takes any.
    """

    name: str
    type: InputType
    sides: tuple[int, ...]
    batch: int | None

    @classmethod
    def of(cls, session: onnxruntime.InferenceSession, name: str) -> "GraphInput":
        """Read it from an open session.

        Args:
            session: The graph.
            name: The file's name, for the error.

        Raises:
            ModelError: The graph takes or gives something else than a classifier of images.
        """
        inputs, outputs = session.get_inputs(), len(session.get_outputs())
        if len(inputs) == outputs == 1:
            (source,) = inputs
            kind, channels = _KINDS.get(source.type, (None, 0))
            batch, *sides = source.shape
            if kind is not None and len(sides) == 3 and source.shape[channels] == 3:
                return cls(source.name, kind, tuple(sides), batch if isinstance(batch, int) else None)
        found = ", ".join(f"{tuple(source.shape)} {source.type}" for source in inputs)
        raise ModelError(
            f"{name} is no image classifier: expected one input, (batch, 3, height, width) tensor(float) or (batch, "
            f"height, width, 3) tensor(uint8), and one output, got {found or 'no input'} and {outputs} outputs; "
            "make it with `vit-edge export`"
        )

    @property
    def size(self) -> tuple[int, ...]:
        """Height and width."""
        return self.sides[:2] if self.type == "uint8" else self.sides[1:]

    def prepare(self, image: NDArray[np.uint8], preprocessing: Preprocessing, *, out: Any = None) -> Pixels:
        """Make what the graph takes of an image: (height, width, 3) uint8, RGB, of any size.

        Args:
            image: The image.
            preprocessing: How the network was trained.
            out: Where the result is written to, as `empty` makes it; a new array if None.
        """
        # A graph that takes raw pixels normalises by itself.
        return (crop_pixels if self.type == "uint8" else preprocess)(image, preprocessing, out=out)

    def empty(self) -> Pixels:
        """Make room for one image."""
        return np.empty(self.sides, self.type)

    def require(self, pixels: Pixels) -> None:
        """Check that a batch is what the graph takes.

        Raises:
            ImageError: It has another shape or type.
        """
        if (
            pixels.ndim != 4
            or not len(pixels)
            or pixels.shape[1:] != self.sides
            or pixels.dtype != np.dtype(self.type)
        ):
            sides = ", ".join(map(str, self.sides))
            raise ImageError(
                f"expected pixels of shape (batch, {sides}) and dtype {self.type}, got {pixels.shape} {pixels.dtype}; "
                "make them with Classifier.pixels"
            )

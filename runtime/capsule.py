"""The golden capsule: a few pictures in a model file, with what the workshop made of them at every stage.

They are stored so that each stage can be compared apart: the JPEGs, what is needed to know their decoded pixels again,
the resized crops in full, and the reference's logits. Nothing of it is read when a model is opened.
The entry is documented in docs/file-format.md.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .errors import ImageError, ModelError
from .image import read_image
from .model_file import CAPSULE, read_property

KEY = CAPSULE

VERSION = 1
"""The version of the entry that is written here, and the newest that is read."""

# So many pixels a side are kept of a picture that is too large to keep, evenly spread.
_GRID = 24

# Height and width of the test chart: primes, so that no size is a simple part of it.
_CHART = (389, 521)


@dataclass(frozen=True, slots=True)
class Difference:
    """How two pictures of one size differ.

    Attributes:
        exact: Whether every value is the same.
        share: Of the values looked at, 0..1, those that differ.
        largest: The largest difference of two values, in levels of 0..255.
        mean: The mean of all differences, in levels.
    """

    exact: bool
    share: float
    largest: int
    mean: float

    @classmethod
    def of(
        cls, first: NDArray[np.uint8], second: NDArray[np.uint8], *, exact: bool | None = None
    ) -> "Difference":
        """Compare two arrays of one shape; *exact* where they are only a part of what is compared."""
        levels = np.abs(first.astype(np.int16) - second)
        return cls(
            exact=not levels.any() if exact is None else exact,
            share=float((levels > 0).mean()),
            largest=int(levels.max()),
            mean=float(levels.mean()),
        )

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, ready for JSON."""
        return {
            "exact": self.exact,
            "share": round(self.share, 6),
            "largest": self.largest,
            "mean": round(self.mean, 6),
        }


@dataclass(frozen=True, slots=True, eq=False)
class Print:
    """What is kept of pixels to know them again, and where they are others, to tell how far off these are.

    Attributes:
        sha256: Of the bytes, row by row, red, green and blue of each pixel.
        size: Height and width.
        grid: (24, 24, 3) uint8, RGB: the pixels in rows (2i + 1) · height // 48 and columns (2j + 1) · width // 48.
    """

    sha256: str
    size: tuple[int, int]
    grid: NDArray[np.uint8]

    @classmethod
    def of(cls, pixels: NDArray[np.uint8]) -> "Print":
        """Take it of a picture: (height, width, 3) uint8, RGB."""
        height, width = pixels.shape[:2]
        places = 2 * np.arange(_GRID) + 1
        grid = pixels[np.ix_(places * height // (2 * _GRID), places * width // (2 * _GRID))]
        return cls(_sha256(pixels), (height, width), grid)

    def difference(self, pixels: NDArray[np.uint8]) -> Difference | None:
        """Compare a picture with the one that this was taken of; None where their sizes differ."""
        other = Print.of(pixels)
        if other.size != self.size:
            return None
        return Difference.of(self.grid, other.grid, exact=other.sha256 == self.sha256)

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, ready for JSON."""
        return {"sha256": self.sha256, "size": list(self.size), "grid": _text(self.grid.tobytes())}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Print":
        """Read what `to_dict` gave."""
        height, width = values["size"]
        grid = np.frombuffer(_bytes(values["grid"]), np.uint8).reshape(_GRID, _GRID, 3)
        return cls(str(values["sha256"]), (int(height), int(width)), grid)


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A picture, and what the workshop made of it at every stage.

    Attributes:
        name: For people.
        jpeg: The file's bytes.
        pixels: Of the decoded picture.
        crop: (height, width, 3) uint8, RGB, 0..255: resized and cropped.
        logits: (classes,) float32, the reference's answer.
    """

    name: str
    jpeg: bytes
    pixels: Print
    crop: NDArray[np.uint8]
    logits: NDArray[np.float32]

    @property
    def margin(self) -> float:
        """How far the reference's first answer is before its second, in logits."""
        best = np.sort(self.logits)[::-1]
        return float(best[0] - best[1]) if len(best) > 1 else float("inf")

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, ready for JSON."""
        options = [cv2.IMWRITE_PNG_COMPRESSION, 9]
        done, png = cv2.imencode(".png", cv2.cvtColor(self.crop, cv2.COLOR_RGB2BGR), options)
        assert done
        return {
            "name": self.name,
            "jpeg": _text(self.jpeg),
            "pixels": self.pixels.to_dict(),
            "crop": {"sha256": _sha256(self.crop), "png": _text(png.tobytes())},
            "logits": _text(self.logits.astype("<f4").tobytes()),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Picture":
        """Read what `to_dict` gave.

        Raises:
            ImageError: The crop does not come out as it was stored.
        """
        name = str(values["name"])
        crop = read_image(_bytes(values["crop"]["png"]))
        if _sha256(crop) != values["crop"]["sha256"]:
            raise ImageError(f"the stored crop of {name} is decoded wrongly here")
        logits = np.frombuffer(_bytes(values["logits"]), "<f4").astype(np.float32)
        return cls(name, _bytes(values["jpeg"]), Print.from_dict(values["pixels"]), crop, logits)


@dataclass(frozen=True, slots=True, eq=False)
class Capsule:
    """What a model file holds to be checked with, without any other data.

    Attributes:
        reference: Whose answers the pictures carry, such as ``torch float32``.
        set: Where the pictures come from: ``made by code``, or a folder's name.
        provider: ONNX Runtime's name of the execution provider that the file was measured on.
        drift, max_abs_drift: How far the file's own logits were from the reference's on these pictures, on that
            provider, when it was made: the mean over the pictures, relative to the logits' spread, and the largest
            distance of two logits.
        chart: Of the crop of `resize_chart`: it tells a resize apart whatever the decoder does.
        pictures: The pictures, one at least.
    """

    reference: str
    set: str
    provider: str
    drift: float
    max_abs_drift: float
    chart: Print
    pictures: tuple[Picture, ...]

    def to_text(self) -> str:
        """Give the entry of ``metadata_props``."""
        return json.dumps(
            {
                "version": VERSION,
                "reference": self.reference,
                "set": self.set,
                "measured": {
                    "provider": self.provider,
                    "drift": self.drift,
                    "max_abs_drift": self.max_abs_drift,
                },
                "chart": self.chart.to_dict(),
                "pictures": [picture.to_dict() for picture in self.pictures],
            },
            ensure_ascii=False,
        )

    @classmethod
    def from_text(cls, text: str, name: str) -> "Capsule":
        """Read the entry.

        Args:
            text: The entry.
            name: The file's name, for the error.

        Raises:
            ModelError: It is malformed or of a newer version, or its lossless crops are decoded wrongly here.
        """
        try:
            values = json.loads(text)
            if values["version"] > VERSION:
                raise ModelError(
                    f"the capsule of {name} is of version {values['version']}, and this vit-edge reads up to "
                    f"{VERSION}; update it with `pip install --upgrade vit-edge`"
                )
            measured = values["measured"]
            capsule = cls(
                reference=str(values["reference"]),
                set=str(values["set"]),
                provider=str(measured["provider"]),
                drift=float(measured["drift"]),
                max_abs_drift=float(measured["max_abs_drift"]),
                chart=Print.from_dict(values["chart"]),
                pictures=tuple(Picture.from_dict(picture) for picture in values["pictures"]),
            )
            if not capsule.pictures:
                raise ValueError("it holds no picture")
        except ImageError as error:
            raise ModelError(
                f"the capsule of {name} cannot be read ({error}); mend the installation of OpenCV, "
                "which decodes a PNG wrongly"
            ) from error
        # A base64 text that is none is a ValueError; JSON nested too deep exhausts the parser's stack.
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ModelError(
                f"the capsule of {name} is malformed ({type(error).__name__}: {error}); export the file anew"
            ) from error
        return capsule


def read_capsule(model: Path | bytes, name: str) -> Capsule | None:
    """Read a model file's capsule; None where it holds none.

    Args:
        model: The file's path or bytes. What else may be wrong with it is for whoever opens it to say, as `Classifier`
            does.
        name: The file's name, for the errors.

    Raises:
        ModelError: The capsule is malformed.
    """
    text = read_property(model, KEY)
    return None if text is None else Capsule.from_text(text, name)


def resize_chart() -> NDArray[np.uint8]:
    """Make the picture that shows what a resize does, by whole numbers only, so that no decoder has a part in it.

    Returns:
        (389, 521, 3) uint8, RGB: at row y, column x and channel c, (x² + (c + 1) · y² + 97 · x · y) // 128 mod 256.
    """
    y, x = np.ogrid[: _CHART[0], : _CHART[1]]
    planes = [(x * x + (channel + 1) * y * y + 97 * x * y >> 7) & 255 for channel in range(3)]
    return np.stack(planes, axis=2).astype(np.uint8)


def _sha256(pixels: NDArray[np.uint8]) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"a part is no base64 ({error})") from error

"""From an image to what the network takes: resize, centre crop, normalise, all as the network was trained."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from .errors import ModelError
from .resize import Interpolation, require_pixels, resize

_KEYS = ("resize", "crop", "interpolation", "mean", "std")
_EXAMPLE = "resize=248,crop=224,interpolation=bicubic,mean=0.5,std=0.5"


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How an image becomes the network's input; it belongs to the weights, so nothing here has a default.

    Attributes:
        resize: A number: the image's short side becomes this, the long one ``int(resize * long / short)``,
            as in torchvision. A pair: exactly this height and width.
        crop: Height and width of the centre crop, which is what the network takes.
        interpolation: Pillow's filter for resizing, always antialiased.
        mean: Red, green, blue; subtracted from pixels scaled to 0..1.
        std: Red, green, blue; what is left is divided by it.

    Raises:
        ModelError: A value is not usable, or the crop is larger than the resized image can be.

    >>> str(Preprocessing.parse("resize=256x192,crop=192,interpolation=box,mean=0.48/0.46/0.41,std=0.25"))
    'resize=256x192,crop=192,interpolation=box,mean=0.48/0.46/0.41,std=0.25'
    """

    resize: int | tuple[int, int]
    crop: tuple[int, int]
    interpolation: Interpolation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        resized = self.resize if isinstance(self.resize, tuple) else (self.resize, self.resize)
        for key, sides in (("resize", resized), ("crop", self.crop)):
            if not (_is_tuple(sides, 2, int) and min(sides) > 0):
                raise ModelError(f"expected {key} to be whole numbers of pixels above 0, got {_shown(sides)}")
        if self.interpolation not in get_args(Interpolation):
            names = ", ".join(get_args(Interpolation))
            raise ModelError(f"expected interpolation to be one of {names}, got {_shown(self.interpolation)}")
        for key, values, low in (("mean", self.mean, "0"), ("std", self.std, "above 0")):
            usable = _is_tuple(values, 3, (int, float)) and all(0 <= value <= 1 for value in values)
            if not usable or (key == "std" and 0 in values):
                raise ModelError(
                    f"expected {key} to be three numbers from {low} to 1, got {_shown(values)}; "
                    f"divide values meant for pixels of 0 to 255 by 255"
                )
        if self.crop[0] > resized[0] or self.crop[1] > resized[1]:
            raise ModelError(
                f"expected a crop within the resized image, got crop {_sides(self.crop)} of resize "
                f"{_sides(resized)}; make resize at least as large as crop"
            )

    @classmethod
    def parse(cls, text: str) -> "Preprocessing":
        """Read ``resize=248,crop=224,interpolation=bicubic,mean=0.5,std=0.5``; every key is needed.

        Sizes are one number or ``HEIGHTxWIDTH``; mean and std one number or three, as in ``0.48/0.46/0.41``.

        Raises:
            ModelError: A key is missing, unknown or given twice, or its value is not usable.
        """
        values: dict[str, str] = {}
        for part in text.split(","):
            key, equals, value = (piece.strip() for piece in part.partition("="))
            if not equals:
                raise ModelError(
                    f"expected key=value in the preprocessing, got {_shown(part)}; write {_EXAMPLE}"
                )
            if key in values:
                raise ModelError(f"the preprocessing gives {key} twice; give it once")
            values[key] = value
        _require_keys(values)
        resize = _parse_sides("resize", values["resize"])
        crop = _parse_sides("crop", values["crop"])
        return cls(
            resize=resize,
            crop=crop if isinstance(crop, tuple) else (crop, crop),
            interpolation=cast(Interpolation, values["interpolation"].lower()),
            mean=_parse_colour("mean", values["mean"]),
            std=_parse_colour("std", values["std"]),
        )

    def __str__(self) -> str:
        """Give the text that `parse` reads back to an equal value."""
        resize = _sides(self.resize) if isinstance(self.resize, tuple) else str(self.resize)
        crop = _sides(self.crop) if self.crop[0] != self.crop[1] else str(self.crop[0])
        mean, std = _colour(self.mean), _colour(self.std)
        return f"resize={resize},crop={crop},interpolation={self.interpolation},mean={mean},std={std}"

    def to_dict(self) -> dict[str, Any]:
        """Give what JSON can hold; `from_dict` reads it back to an equal value."""
        return {
            "resize": list(self.resize) if isinstance(self.resize, tuple) else self.resize,
            "crop": list(self.crop),
            "interpolation": self.interpolation,
            "mean": list(self.mean),
            "std": list(self.std),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocessing":
        """Read what `to_dict` gave.

        Raises:
            ModelError: A key is missing or unknown, or its value is not usable.
        """
        _require_keys(values)
        resize, crop, interpolation, mean, std = (values[key] for key in _KEYS)
        return cls(_tuple(resize), _tuple(crop), interpolation, _tuple(mean), _tuple(std))


def preprocess(
    image: NDArray[np.uint8], preprocessing: Preprocessing, *, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Make the network's input from an image.

    Args:
        image: (height, width, 3) uint8, RGB, 0..255, of any size.
        preprocessing: How the network was trained.
        out: Where the result is written to; a new array if None.

    Returns:
        (3, height, width) float32, RGB, normalised; height and width are those of the crop.

    Raises:
        ImageError: *image* has another shape or type.
    """
    return normalise(crop_pixels(image, preprocessing), preprocessing, out=out)


def crop_pixels(
    image: NDArray[np.uint8], preprocessing: Preprocessing, *, out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Resize and crop, computing no pixel outside the crop.

    Args:
        image: (height, width, 3) uint8, RGB, 0..255, of any size.
        preprocessing: How the network was trained.
        out: Where the result is written to; a new array if None.

    Returns:
        (height, width, 3) uint8, RGB, 0..255: what torchvision's Resize and CenterCrop make of it in Pillow.

    Raises:
        ImageError: *image* has another shape or type.
    """
    require_pixels(image)
    height, width = image.shape[:2]
    if isinstance(preprocessing.resize, tuple):
        size = preprocessing.resize
    elif width <= height:
        size = (int(preprocessing.resize * height / width), preprocessing.resize)
    else:
        size = (preprocessing.resize, int(preprocessing.resize * width / height))
    crop = preprocessing.crop
    # torchvision's rounding (transforms.functional.center_crop): halves go to the even number.
    top, left = round((size[0] - crop[0]) / 2), round((size[1] - crop[1]) / 2)
    window = top, left, *crop
    return resize(image, size, interpolation=preprocessing.interpolation, window=window, out=out)


def normalise(
    pixels: NDArray[np.uint8], preprocessing: Preprocessing, *, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Compute ``(pixels / 255 - mean) / std``, correctly rounded, with the channel first.

    Args:
        pixels: (height, width, 3) uint8, RGB, 0..255.
        preprocessing: Its mean and std.
        out: Where the result is written to; a new array if None.

    Returns:
        (3, height, width) float32, RGB.

    Raises:
        ImageError: *pixels* has another shape or type.
    """
    require_pixels(pixels)
    result = np.empty((3, *pixels.shape[:2]), np.float32) if out is None else out
    tables = _tables(preprocessing.mean, preprocessing.std)
    for plane, table, place in zip(cv2.split(pixels), tables, result, strict=True):
        cv2.LUT(plane, table, place)
    return result


# A byte has 256 values: looking each up takes an eighth of the time of computing it, and is exact everywhere.
@lru_cache(maxsize=16)
def _tables(mean: tuple[float, float, float], std: tuple[float, float, float]) -> NDArray[np.float32]:
    """Compute the normalised value of every byte: (3, 1, 256) float32."""
    values = (np.arange(256) / 255 - np.array(mean)[:, None]) / np.array(std)[:, None]
    return np.asarray(values[:, None], np.float32)


def _require_keys(values: Mapping[str, Any]) -> None:
    if missing := [key for key in _KEYS if key not in values]:
        raise ModelError(f"the preprocessing lacks {', '.join(missing)}; give all five, as in {_EXAMPLE}")
    if unknown := [key for key in values if key not in _KEYS]:
        raise ModelError(f"the preprocessing has an unknown key {unknown[0]!r}; expected {', '.join(_KEYS)}")


def _parse_sides(key: str, text: str) -> int | tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,6})(?:[xX]([0-9]{1,6}))?", text)
    if not match:
        raise ModelError(
            f"expected {key} to be one number or HEIGHTxWIDTH, as in 224 or 256x192, got {text!r}"
        )
    return (int(match[1]), int(match[2])) if match[2] else int(match[1])


def _parse_colour(key: str, text: str) -> tuple[float, float, float]:
    try:
        values = [float(value) for value in text.split("/")]
    except ValueError:
        values = []
    if len(values) == 1:
        values *= 3
    if len(values) != 3:
        raise ModelError(
            f"expected {key} to be one number or three, as in 0.5 or 0.485/0.456/0.406, got {text!r}"
        )
    return values[0], values[1], values[2]


def _is_tuple(value: object, length: int, kind: type | tuple[type, ...]) -> bool:
    """Whether *value* is a tuple of *length* numbers of *kind*; True and False are no numbers here."""
    return (
        isinstance(value, tuple)
        and len(value) == length
        and all(isinstance(item, kind) and not isinstance(item, bool) for item in value)
    )


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _sides(sides: tuple[int, int]) -> str:
    return f"{sides[0]}x{sides[1]}"


def _colour(values: tuple[float, float, float]) -> str:
    return str(values[0]) if len(set(values)) == 1 else "/".join(map(str, values))


def _shown(value: object) -> str:
    return "/".join(map(str, value)) if isinstance(value, tuple) else repr(value)

"""Writes small model files without the onnx package, which a device does not have.

Of ONNX's protobuf schema (onnx.proto3) it knows the fields that these graphs need, by the schema's numbers.
"""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from vit_edge.runtime.labels import Label, Labels
from vit_edge.runtime.metadata import Metadata
from vit_edge.runtime.preprocess import Preprocessing
from vit_edge.runtime.seal import BLANK, KEY, seal

SIDE = 8

LABELS = Labels((Label("red", "n00000001"), Label("green", "n00000002"), Label("blue", "n00000003")))

METADATA = Metadata(LABELS, Preprocessing.parse("resize=8,crop=8,interpolation=bilinear,mean=0.5,std=0.5"))

Entries = Mapping[str, str]


def colour_model(
    metadata: Metadata = METADATA,
    *,
    changed: Entries | None = None,
    without: tuple[str, ...] = (),
    **graph: int,
) -> bytes:
    """Make a sealed model file that names the colour of a picture.

    Args:
        metadata: What the file says of itself.
        changed: Entries of ``metadata_props`` put in place of those of *metadata*.
        without: Names of entries left out, without their prefix.
        graph: Options of `colour_graph`.
    """
    entries = metadata.to_properties() | dict(changed or {})
    for key in without:
        del entries[f"vit_edge.{key}"]
    return sealed(colour_graph(**graph), entries)


def sealed(model: bytes, entries: Entries) -> bytes:
    """Add entries of ``metadata_props`` to a model, and last the seal."""
    # Fields of a message may be appended: protobuf reads them as if they had been there.
    return seal(model + b"".join(_property(*entry) for entry in (*entries.items(), (KEY, BLANK.decode()))))


def colour_graph(
    *,
    classes: int = 3,
    channels: int = 3,
    batch: int = 0,
    side: int = SIDE,
    opset: int = 17,
    unused: int = 0,
    gain: float = 4,
) -> bytes:
    """Make a graph whose logits are *gain* times the mean of each channel.

    It maps (batch, channels, side, side) to (batch, classes), float32.

    Args:
        channels: Those of the input.
        classes: The outputs; those from the fourth on are always 0.
        batch: The only batch size; any where it is 0.
        side: Height and width of the input.
        opset: The version of the operators.
        unused: How many weights no operator reads; ONNX Runtime warns of each.
        gain: What the means are multiplied by.
    """
    weights = np.where(np.eye(channels, classes), gain, 0).astype(np.float32)
    graph = b"".join(
        (
            _field(1, _node("GlobalAveragePool", ["pixels"], "mean")),
            _field(1, _node("Flatten", ["mean"], "flat")),
            _field(1, _node("MatMul", ["flat", "weights"], "logits")),
            _field(2, b"colours"),
            _field(5, _tensor("weights", weights)),
            *(_field(5, _tensor(f"unused{place}", weights)) for place in range(unused)),
            _field(11, _value("pixels", [batch or "batch", channels, side, side])),
            _field(12, _value("logits", [batch or "batch", classes])),
        )
    )
    return _field(1, 8) + _field(7, graph) + _field(8, _field(1, b"") + _field(2, opset))


def flat_colour(name: str, *, height: int = 20, width: int = 30, shade: int = 0) -> NDArray[np.uint8]:
    """Paint a picture in one colour: (height, width, 3) uint8 RGB."""
    picture = np.full((height, width, 3), 30 + shade, np.uint8)
    picture[..., [label.name for label in LABELS.items].index(name)] = 220 - shade
    return picture


def save_picture(path: Path, picture: NDArray[np.uint8]) -> Path:
    """Write a picture losslessly."""
    assert cv2.imwrite(str(path), picture[..., ::-1])
    return path


def _property(key: str, value: str) -> bytes:
    return _field(14, _field(1, key.encode()) + _field(2, value.encode()))


def _node(operator: str, inputs: list[str], output: str) -> bytes:
    parts = [_field(1, name.encode()) for name in inputs]
    return (
        b"".join(parts)
        + _field(2, output.encode())
        + _field(3, output.encode())
        + _field(4, operator.encode())
    )


def _tensor(name: str, values: NDArray[np.float32]) -> bytes:
    sizes = b"".join(_field(1, size) for size in values.shape)
    return sizes + _field(2, 1) + _field(8, name.encode()) + _field(9, values.astype("<f4").tobytes())


def _value(name: str, sizes: list[int | str]) -> bytes:
    axes = (_field(1, size) if isinstance(size, int) else _field(2, size.encode()) for size in sizes)
    shape = b"".join(_field(1, axis) for axis in axes)
    return _field(1, name.encode()) + _field(2, _field(1, _field(1, 1) + _field(2, shape)))


def _field(number: int, value: int | bytes) -> bytes:
    """Encode a field: a varint, or length-delimited bytes (protobuf's encoding guide)."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    groups = []
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes((*groups, value))

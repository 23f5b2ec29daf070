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

GAIN = 4.0

# Numbers of types in onnx.proto3 (TensorProto.DataType and AttributeProto.AttributeType).
_FLOAT, _UINT8, _INT64 = 1, 2, 7
_INT, _INTS = 2, 7

LABELS = Labels((Label("red", "n00000001"), Label("green", "n00000002"), Label("blue", "n00000003")))

METADATA = Metadata(LABELS, Preprocessing.parse("resize=8,crop=8,interpolation=bilinear,mean=0.5,std=0.5"))

Entries = Mapping[str, str]


def colour_model(
    metadata: Metadata = METADATA,
    *,
    changed: Entries | None = None,
    without: tuple[str, ...] = (),
    raw: bool = False,
    **graph: int,
) -> bytes:
    """Make a sealed model file that names the colour of a picture.

    Args:
        metadata: What the file says of itself.
        changed: Entries of ``metadata_props`` put in place of those of *metadata*.
        without: Names of entries left out, without their prefix.
        raw: Whether it takes raw pixels.
        graph: Options of `colour_graph`, or of `raw_colour_graph`.
    """
    entries = metadata.to_properties() | dict(changed or {})
    for key in without:
        del entries[f"vit_edge.{key}"]
    return sealed(raw_colour_graph(**graph) if raw else colour_graph(**graph), entries)


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
    gain: float = GAIN,
    answers: int = 0,
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
        answers: The only number of images that the graph does not fail on as it runs; any where it is 0.
    """
    weights = np.where(np.eye(channels, classes), gain, 0).astype(np.float32)
    graph = b"".join(
        (
            _field(1, _node("GlobalAveragePool", ["pixels"], "mean")),
            _field(1, _node("Reshape", ["mean", "flat_shape"], "flat")),
            _field(1, _node("MatMul", ["flat", "weights"], "logits")),
            _field(2, b"colours"),
            _field(5, _tensor("weights", weights)),
            _field(5, _tensor("flat_shape", np.array([answers or -1, channels]))),
            *(_field(5, _tensor(f"unused{place}", weights)) for place in range(unused)),
            _field(11, _value("pixels", [batch or "batch", channels, side, side])),
            _field(12, _value("logits", [batch or "batch", classes])),
        )
    )
    return _model(graph, opset)


def raw_colour_graph(*, channels: int = 3, batch: int = 0, side: int = SIDE) -> bytes:
    """Make the graph that gives the answers of `colour_graph` on pixels that it normalises itself, as `METADATA` says.

    It maps (batch, side, side, channels) uint8 to (batch, 3) float32.
    """
    weights = (np.eye(channels, 3) * GAIN / (255 * 0.5)).astype(np.float32)
    graph = b"".join(
        (
            _field(1, _node("Cast", ["pixels"], "float", to=_FLOAT)),
            _field(1, _node("ReduceMean", ["float"], "mean", axes=(1, 2), keepdims=0)),
            _field(1, _node("MatMul", ["mean", "weights"], "scaled")),
            _field(1, _node("Add", ["scaled", "bias"], "logits")),
            _field(2, b"raw colours"),
            _field(5, _tensor("weights", weights)),
            _field(5, _tensor("bias", np.full(3, -GAIN, np.float32))),
            _field(11, _value("pixels", [batch or "batch", side, side, channels], _UINT8)),
            _field(12, _value("logits", [batch or "batch", 3])),
        )
    )
    return _model(graph, opset=17)


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


def _model(graph: bytes, opset: int) -> bytes:
    return _field(1, 8) + _field(7, graph) + _field(8, _field(1, b"") + _field(2, opset))


def _node(operator: str, inputs: list[str], output: str, **attributes: int | tuple[int, ...]) -> bytes:
    parts = [_field(1, name.encode()) for name in inputs]
    return (
        b"".join(parts)
        + _field(2, output.encode())
        + _field(3, output.encode())
        + _field(4, operator.encode())
        + b"".join(_field(5, _attribute(*item)) for item in attributes.items())
    )


def _attribute(name: str, value: int | tuple[int, ...]) -> bytes:
    if isinstance(value, int):
        return _field(1, name.encode()) + _field(3, value) + _field(20, _INT)
    return _field(1, name.encode()) + b"".join(_field(8, item) for item in value) + _field(20, _INTS)


def _tensor(name: str, values: NDArray[np.float32 | np.int64]) -> bytes:
    kind, written = (_INT64, "<i8") if values.dtype == np.int64 else (_FLOAT, "<f4")
    sizes = b"".join(_field(1, size) for size in values.shape)
    return sizes + _field(2, kind) + _field(8, name.encode()) + _field(9, values.astype(written).tobytes())


def _value(name: str, sizes: list[int | str], kind: int = _FLOAT) -> bytes:
    axes = (_field(1, size) if isinstance(size, int) else _field(2, size.encode()) for size in sizes)
    shape = b"".join(_field(1, axis) for axis in axes)
    return _field(1, name.encode()) + _field(2, _field(1, _field(1, kind) + _field(2, shape)))


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

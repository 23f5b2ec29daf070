"""Reads what an ONNX file says of itself, without parsing its graph and without opening a session.

Of protobuf's encoding and of ONNX's schema (onnx.proto3) it knows what it needs: fields that it skips cost nothing.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path

from .errors import ModelError

# Field numbers of ModelProto and StringStringEntryProto in onnx.proto3.
_METADATA = 14
_KEY, _VALUE = 1, 2

# protobuf's wire types: a varint, 8 bytes, a length and so many bytes, 4 bytes.
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_WIDTHS = {_EIGHT: 8, _FOUR: 4}

_Buffer = bytes | mmap.mmap

CAPSULE = "vit_edge.capsule"
"""The one large entry, far larger than all others together: it is read by itself, and nobody else pays for it."""


def require_file(path: Path) -> None:
    """Make sure that there is a file to read.

    Raises:
        ModelError: There is none.
    """
    try:
        if path.is_dir():
            raise ModelError(f"{path} is a folder; name the model file in it")
        if not path.is_file():
            raise ModelError(f"there is no file {path}; make one with `vit-edge export`")
    except OSError as error:  # a name too long, or a folder above that may not be entered
        raise ModelError(f"{path} cannot be read ({error.strerror}); check the path") from error


def read_properties(model: Path | bytes) -> dict[str, str]:
    """Give the entries of ``metadata_props`` but the capsule; none where the file is no ONNX or cannot be read.

    That is for whoever opens it to say: a session can.
    """
    return _read(model, None)


def read_property(model: Path | bytes, key: str) -> str | None:
    """Give one entry of ``metadata_props``, None where there is none of that key."""
    return _read(model, key).get(key)


def _read(model: Path | bytes, wanted: str | None) -> dict[str, str]:
    try:
        if isinstance(model, bytes):
            return _properties(model, wanted)
        with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _properties(data, wanted)
    except (OSError, ValueError):
        return {}


def _properties(data: _Buffer, wanted: str | None) -> dict[str, str]:
    found = {}
    for number, start, end in _fields(data, 0, len(data)):
        if number == _METADATA:
            entry = {part: (first, last) for part, first, last in _fields(data, start, end)}
            key, value = (slice(*entry.get(part, (0, 0))) for part in (_KEY, _VALUE))
            name = data[key].decode()
            if name == wanted or (wanted is None and name != CAPSULE):
                found[name] = data[value].decode()
    return found


def _fields(data: _Buffer, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Give number, start and end of each field of a message; a varint's value is left out, its place is empty."""
    place = start
    while place < end:
        tag, place = _varint(data, place, end)
        number, kind = tag >> 3, tag & 7
        length = _WIDTHS.get(kind, 0)
        if kind == _VARINT:
            _, place = _varint(data, place, end)
        elif kind == _BYTES:
            length, place = _varint(data, place, end)
        elif kind not in _WIDTHS:
            raise ValueError(f"expected a field of protobuf, got wire type {kind}")
        if place + length > end:
            raise ValueError("expected a whole message, got a part of one")
        yield number, place, place + length
        place += length


def _varint(data: _Buffer, place: int, end: int) -> tuple[int, int]:
    value = 0
    # Ten groups of 7 bits hold 64.
    for shift in range(0, 70, 7):
        if place >= end:
            break
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
    raise ValueError("expected a varint of protobuf")

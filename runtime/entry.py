"""Reads one entry of ``metadata_props`` from a model file's bytes: no session, and nothing of the graph is parsed."""

import mmap
from pathlib import Path

from .errors import ModelError

# ModelProto.metadata_props, and key and value of StringStringEntryProto, in onnx.proto3; and protobuf's wire types.
_PROPERTIES, _KEY, _VALUE = 14, 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def read_entry(model: Path | bytes, key: str, name: str) -> str | None:
    """Give an entry's text; None where there is none of that key.

    Args:
        model: The file's path (mapped, not read into memory) or its bytes.
        key: As in ``vit_edge.labels``.
        name: The file's name, for the error.

    Raises:
        ModelError: The file cannot be read, or is no ONNX model.
    """
    try:
        if isinstance(model, bytes):
            return _find(model, key.encode())
        with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _find(data, key.encode())
    except OSError as error:
        raise ModelError(
            f"{name} cannot be read ({error.strerror}); check its permissions and the disk"
        ) from error
    # A field that ends beyond the file, an unknown kind of field, or an empty file.
    except (IndexError, ValueError) as error:
        raise ModelError(
            f"{name} is no ONNX model, or a damaged one; copy it again or export it anew"
        ) from error


def _find(data: bytes | mmap.mmap, key: bytes) -> str | None:
    found = None
    for field, start, stop in _fields(data, 0, len(data)):
        if field == _PROPERTIES:
            parts = {number: data[low:high] for number, low, high in _fields(data, start, stop)}
            if parts.get(_KEY) == key:
                found = parts.get(_VALUE, b"").decode()
    return found


def _fields(data: bytes | mmap.mmap, at: int, end: int) -> "list[tuple[int, int, int]]":
    """Give the number, start and stop of each field of a message that holds bytes; others are passed over."""
    found = []
    while at < end:
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == _BYTES:
            length, at = _varint(data, at)
            if at + length > end:
                raise ValueError("a field is longer than its message")
            found.append((tag >> 3, at, at + length))
            at += length
        elif kind == _VARINT:
            _, at = _varint(data, at)
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"there is no field of kind {kind}")
    return found


def _varint(data: bytes | mmap.mmap, at: int) -> tuple[int, int]:
    """Read a number in groups of seven bits, the lowest first (protobuf's encoding guide)."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7

"""The seal of a model file: a SHA-256 over the whole file, kept inside it.

The digest is taken with 64 zeros in the place of its own hexadecimal digits, so that it can be checked on the bytes
alone, without parsing the file.
"""

import hashlib
import mmap
from pathlib import Path

from .errors import ModelError

KEY = "vit_edge.seal"
BLANK = b"0" * 64

# As protobuf writes the entry: the key, then the value's field tag (2, length-delimited) and its length.
_MARK = KEY.encode() + bytes([0x12, len(BLANK)])


def seal(data: bytes) -> bytes:
    """Write the seal into a serialized model whose entry ``vit_edge.seal`` holds 64 zeros."""
    start = _place(data)
    if data[start : start + len(BLANK)] != BLANK:
        raise ValueError("expected a blank seal")
    digest = hashlib.sha256(data).hexdigest().encode()
    return data[:start] + digest + data[start + len(BLANK) :]


def check_seal(model: Path | bytes, name: str) -> str:
    """Check that a file is as it was when it was sealed.

    Args:
        model: The file's path (mapped, not read into memory) or its bytes.
        name: The file's name, for the error.

    Returns:
        The seal: the digest, 64 hexadecimal digits, by which the file is known.

    Raises:
        ModelError: The file cannot be read, is empty, carries no seal, or was changed or damaged since.
    """
    try:
        if (len(model) if isinstance(model, bytes) else model.stat().st_size) == 0:
            raise ModelError(f"{name} is empty; copy it again or export it anew")
        if isinstance(model, bytes):
            return _check(model, name)
        with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _check(data, name)
    except OSError as error:
        raise ModelError(
            f"{name} cannot be read ({error.strerror}); check its permissions and the disk"
        ) from error


def _check(data: bytes | mmap.mmap, name: str) -> str:
    start = _place(data)
    if start < 0:
        raise ModelError(f"{name} carries no labels, preprocessing and seal; make it with `vit-edge export`")
    end = start + len(BLANK)
    with memoryview(data) as view:
        digest = hashlib.sha256(view[:start])
        digest.update(BLANK)
        digest.update(view[end:])
        found = bytes(view[start:end])
    if digest.hexdigest().encode() != found:
        raise ModelError(f"{name} was changed or damaged since its export; copy it again or export it anew")
    return found.decode()


def _place(data: bytes | mmap.mmap) -> int:
    at = data.rfind(_MARK)
    return at if at < 0 else at + len(_MARK)

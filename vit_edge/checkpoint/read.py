"""Files of weights, whatever their kind, as tensors under the names that the file gives them.

Nothing here runs code from a file: pickles are read with ``weights_only=True``, arrays with
``allow_pickle=False``, always. The kind is told by the first bytes, not by the suffix.
"""

import hashlib
import pickle
import re
import warnings
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import CheckpointError


@dataclass(frozen=True)
class Weights:
    """What one checkpoint's files hold: tensors by name, text by key, and the checksum of the bytes."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    sha256: str


def read_weights(paths: Sequence[Path]) -> Weights:
    """Read the files of one checkpoint: a single one, or all its shards in order.

    Raises:
        CheckpointError: A file is damaged, holds no weights, or would have to run code.
        OSError: The system does not let a file be read.
    """
    tensors: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    digest = hashlib.sha256()
    for path in paths:
        kind = _kind(path)
        if kind == "safetensors":
            more, notes = _read_safetensors(path)
            metadata |= notes
        else:
            more = _read_npz(path) if kind == "npz" else _read_pickle(path)
        if twice := sorted(tensors.keys() & more.keys()):
            raise CheckpointError(f"two of its files hold {twice[0]}; save it again")
        tensors |= more
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    if not tensors:
        raise CheckpointError("holds no weights; give the file that model.state_dict() was saved to")
    return Weights(tensors, metadata, digest.hexdigest())


def _kind(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise CheckpointError("is empty; download or save it again")
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            "is a pointer of Git LFS in place of the weights; fetch them with `git lfs pull`"
        )
    if head.lstrip()[:1] == b"<":
        raise CheckpointError("is a web page in place of weights; download the file itself")
    if head.startswith(b"PK"):
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except (zipfile.BadZipFile, OSError) as error:
            raise CheckpointError(_DAMAGED) from error
        return "npz" if all(name.endswith(".npy") for name in names) else "pickle"
    if head[8:9] == b"{":
        return "safetensors"
    if head.startswith(b"\x80"):  # the opcode that opens a pickle: what torch.save wrote before 1.6
        return "pickle"
    raise CheckpointError(f"is no file of weights; {_CURE}")


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(_DAMAGED) from error


def _read_npz(path: Path) -> dict[str, Tensor]:
    tensors = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            for name in file.files:
                try:
                    array = file[name]
                except ValueError as error:
                    if "allow_pickle" in str(error):
                        raise CheckpointError(f"{name} is a pickled object, {_CODE}") from error
                    raise
                if array.dtype.kind not in "fiub":
                    raise CheckpointError(
                        f"expected {name} to be an array of numbers, got {array.dtype}; save it as float32"
                    )
                tensors[name] = torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise CheckpointError(_DAMAGED) from error
    return tensors


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        # Through an open file: from a path, torch would let the suffix decide how to read it.
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about unusual pickles, which the errors below tell better
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # A damaged pickle fails with the same type as a refused one; the text tells them apart.
        refused = re.search(r"error:\s*(Unsupported|Trying to|Can only|Can not)", str(error))
        raise CheckpointError(f"holds pickled Python objects, {_CODE}" if refused else _DAMAGED) from error
    except RuntimeError as error:
        if "TorchScript" in str(error):
            raise CheckpointError(f"is a TorchScript program, {_CODE}") from error
        raise CheckpointError(_DAMAGED) from error
    except Exception as error:  # a damaged pickle can fail with any of Python's errors
        raise CheckpointError(_DAMAGED) from error
    return _unwrap(content)


def _unwrap(content: Any) -> dict[str, Tensor]:
    """Find the state dict in what a training script saved around it.

    Where a script kept a running average of the weights beside the weights, the average is the one that it
    evaluates, and the one that is taken, as timm does.
    """
    for _ in _WRAPPERS:  # each at most once: a pickle can hold itself
        if isinstance(content, Mapping):
            content = next(
                (content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), content
            )
    if not isinstance(content, Mapping):
        raise CheckpointError(f"expected a state dict, got {type(content).__name__}; {_CURE}")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f"expected a state dict, got {name!r} with a value of type {type(value).__name__}; {_CURE}"
            )
    return dict(content)


_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")

_DAMAGED = "is damaged or incomplete; download or save it again"
_CURE = "save model.state_dict() as .safetensors, .pth or .npz"
_CODE = (
    "which would run code when opened, and is refused; where it was made, save model.state_dict() alone, "
    "best as .safetensors"
)

"""Torch's answers kept in a file, each under the SHA-256 of its image, for devices that have no torch."""

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import DataError, ModelError, OptionError
from .runtime.preprocess import Preprocessing
from .runtime.replacing import replacing

_VERSION = 1

# What is in the file, a plain .npz: numpy alone reads it, and nothing of it is a pickle.
_ABOUT, _DIGESTS, _LOGITS = "vit_edge_about", "sha256", "logits"


@dataclass(frozen=True, slots=True, eq=False)
class KeptAnswers:
    """A reference's logits.

    Attributes:
        reference: Whose they are, for people: the checkpoint's name.
        sources: The SHA-256 of the checkpoint, and that which the model named that it was compared with when they were
            kept: a model file whose source is one of these may be compared with them.
        labels: The classes in the order of the logits.
        preprocessing: What an image went through.
        logits: Under the SHA-256 of each image file's bytes, (classes,) float32.
    """

    reference: str
    sources: tuple[str, ...]
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    logits: Mapping[str, NDArray[np.float32]]

    def save(self, path: Path) -> int:
        """Write them, atomically, and give the size of the file in bytes.

        Raises:
            OptionError: There is such a file already, or it cannot be written.
        """
        require_new(path)
        about = {
            "version": _VERSION,
            "reference": self.reference,
            "sources": self.sources,
            "labels": self.labels,
            "preprocess": self.preprocessing.to_dict(),
        }
        parts = {
            _ABOUT: np.frombuffer(json.dumps(about, ensure_ascii=False).encode(), np.uint8),
            _DIGESTS: np.stack([np.frombuffer(bytes.fromhex(key), np.uint8) for key in self.logits]),
            _LOGITS: np.stack(list(self.logits.values())).astype("<f4"),
        }
        try:
            with replacing(path) as unfinished, unfinished.open("wb") as file:
                # Logits hardly shrink, and a device should not have to unpack them.
                np.savez(file, **parts)  # type: ignore[arg-type]  # its last option is no array
            return path.stat().st_size
        except OSError as error:
            raise OptionError(f"cannot write {path} ({error.strerror}); nothing was changed") from error

    @classmethod
    def load(cls, path: Path) -> "KeptAnswers":
        """Read what `save` wrote.

        Raises:
            DataError: The file cannot be read, is none of these, or is of a newer version.
        """
        again = "make it with `vit-edge check MODEL --against CHECKPOINT --data DIR --save-reference`"
        try:
            # numpy leaves a file open that it opened by itself and cannot read.
            with path.open("rb") as file, np.load(file, allow_pickle=False) as parts:
                about: dict[str, Any] = json.loads(parts[_ABOUT].tobytes())
                if about["version"] > _VERSION:
                    raise DataError(
                        f"{path} is of version {about['version']}, and this vit-edge reads up to {_VERSION}; "
                        "update it with `pip install --upgrade vit-edge`"
                    )
                digests, logits = parts[_DIGESTS], parts[_LOGITS].astype(np.float32)
            labels = tuple(str(label) for label in about["labels"])
            if digests.shape != (len(logits), 32) or logits.shape != (len(digests), len(labels)):
                raise ValueError(f"{len(digests)} digests, logits {logits.shape}, {len(labels)} labels")
            return cls(
                reference=str(about["reference"]),
                sources=tuple(map(str, about["sources"])),
                labels=labels,
                preprocessing=Preprocessing.from_dict(about["preprocess"]),
                logits={
                    digest.astype(np.uint8).tobytes().hex(): row
                    for digest, row in zip(digests, logits, strict=True)
                },
            )
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror or error}); check the path") from error
        except (KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile, ModelError) as error:
            raise DataError(f"{path} does not hold torch's answers ({error}); {again}") from error


def is_kept(path: Path) -> bool:
    """Whether a file holds kept answers: weights come as .npz too, so that the name does not tell."""
    try:
        with zipfile.ZipFile(path) as archive:
            return f"{_ABOUT}.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def require_new(path: Path) -> None:
    """Refuse a file that is there already, or whose folder is not, before the work.

    Raises:
        OptionError: It is, or is not.
    """
    if path.exists():
        raise OptionError(f"{path} exists; remove it, or give another name to --save-reference")
    if not path.parent.is_dir():
        raise OptionError(f"there is no folder {path.parent}; make it, or write elsewhere")
    if not os.access(path.parent, os.W_OK):
        raise OptionError(f"{path.parent} may not be written to; choose another folder")


def image_digest(image: Path | bytes) -> str:
    """Give the SHA-256 of an image file's bytes.

    Raises:
        DataError: The file cannot be read.
    """
    if isinstance(image, bytes):
        return hashlib.sha256(image).hexdigest()
    try:
        with image.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{image} cannot be read ({error.strerror}); check its permissions") from error

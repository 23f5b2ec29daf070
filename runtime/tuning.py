"""The thread count that was found best for a file on this device, kept in the device's cache.

It never goes into the sealed file: the best count belongs to the device. What is kept holds for the same file,
provider, processor, granted cores and ONNX Runtime, and for nothing else.
"""

import json
from pathlib import Path
from typing import Any

import onnxruntime

from .cache import CACHE_VARIABLE, place_of
from .cores import usable_cores
from .errors import VitEdgeError
from .processor import processor
from .replacing import replacing


def tuned_threads(seal: str, provider: str) -> int | None:
    """Give the thread count that was kept for a file here; None where there is none that fits.

    A damaged or unreadable record counts as none: the tuning saves time, and nothing depends on it.

    Args:
        seal: The file's seal, the digest that `check_seal` gives.
        provider: The short name of the execution provider.
    """
    path = _path(seal)
    records = _records(path) if path else []
    # Most files have no tuning, and describing the processor would cost their start more than that look.
    here = _here(provider) if records else {}
    for record in records:
        threads = record.get("threads")
        if _holds(record, here) and type(threads) is int and threads >= 1:
            return threads
    return None


def keep_threads(seal: str, provider: str, threads: int) -> Path:
    """Keep a thread count for a file here, in place of an older one; gives the record's place.

    Raises:
        VitEdgeError: The cache's folder cannot be written to, or this user has none.
    """
    path = _path(seal)
    another = f"set {CACHE_VARIABLE} to a folder that can be"
    if path is None:
        raise VitEdgeError(
            f"the tuning cannot be kept, since this user has no home folder; {another} written to"
        )
    here = _here(provider)
    others = [record for record in _records(path) if not _holds(record, here)]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as draft:
            draft.write_text(json.dumps([*others, {**here, "threads": threads}], indent=1), encoding="utf-8")
    except OSError as error:
        raise VitEdgeError(
            f"the tuning cannot be kept in {path.parent} ({error.strerror}); {another}"
        ) from error
    return path


def forget_threads(seal: str) -> bool:
    """Forget what was kept for a file here; whether there was something.

    Raises:
        VitEdgeError: The record cannot be removed.
    """
    path = _path(seal)
    try:
        if path is None:
            return False
        path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise VitEdgeError(f"{path} cannot be removed ({error.strerror}); check its permissions") from error
    return True


def _path(seal: str) -> Path | None:
    return place_of(seal, "tuning", ".json")


def _here(provider: str) -> dict[str, Any]:
    return {
        "provider": provider,
        "processor": processor(),
        "cores": usable_cores(),
        "onnxruntime": onnxruntime.__version__,
    }


def _holds(record: dict[str, Any], here: dict[str, Any]) -> bool:
    return all(record.get(key) == value for key, value in here.items())


def _records(path: Path) -> list[dict[str, Any]]:
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    return [record for record in records if isinstance(record, dict)] if isinstance(records, list) else []

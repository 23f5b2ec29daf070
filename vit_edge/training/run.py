"""The folder of a training run: what it holds and when it may be written."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import TrainingError

if TYPE_CHECKING:
    from .fit import Epoch

BEST = "best.safetensors"
"""The checkpoint of the epoch with the best validation accuracy."""

METRICS = "metrics.jsonl"
"""One JSON object per epoch: the fields of `Epoch`."""


def open_run(folder: str | Path, *, force: bool = False) -> Path:
    """Make the folder of a run, before the long work starts.

    Args:
        folder: The folder.
        force: Allow one that holds a run; its files are replaced when the first epoch is done.

    Returns:
        The folder.

    Raises:
        TrainingError: It holds a run and *force* is off, or it cannot be made.
    """
    folder = Path(folder)
    if not force and (folder / BEST).exists():
        raise TrainingError(
            f"{folder / BEST} exists; choose another folder for the run, or replace it with --force"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(
            f"cannot make the folder {folder}: {error.strerror}; choose another with -o"
        ) from error
    return folder


def record(folder: Path, epoch: "Epoch") -> None:
    """Write an epoch's line; the first epoch starts the file anew.

    Raises:
        TrainingError: The file cannot be written.
    """
    path = folder / METRICS
    try:
        with path.open("w" if epoch.epoch == 1 else "a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(epoch)) + "\n")
    except OSError as error:
        raise TrainingError(
            f"cannot write {path}: {error.strerror}; check the folder and the disk"
        ) from error

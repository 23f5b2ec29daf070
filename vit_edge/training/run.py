"""The folder of a training run: what it holds and when it may be written."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import TrainingError
from ..runtime.replacing import replacing

if TYPE_CHECKING:
    from .told import Epoch

BEST = "best.safetensors"
"""The checkpoint of the epoch with the best validation accuracy."""

LAST = "last.safetensors"
"""The checkpoint of the last epoch."""

METRICS = "metrics.jsonl"
"""One JSON object per epoch: the fields of `Epoch`."""

STATE = "state.pt"
"""Weights, optimizer, average and place of a run: what `--resume` goes on from."""

CONFIG = "config.json"
"""What the run was asked for: its recipe, the network's sizes, the images."""


def open_run(folder: str | Path, *, force: bool = False, resume: bool = False) -> Path:
    """Make the folder of a run, before the long work starts.

    Args:
        folder: The folder.
        force: Allow one that holds a run; its files are replaced when the first epoch is done.
        resume: Allow one that holds a run, which is to go on.

    Returns:
        The folder.

    Raises:
        TrainingError: It holds a run and neither is given, or one that cannot go on, or it cannot be made.
    """
    folder = Path(folder)
    kept = [name for name in (BEST, LAST) if (folder / name).exists()]
    if resume and not force and kept and not (folder / STATE).exists():
        # Taken for one that never began, the run would replace what another has learnt.
        raise TrainingError(
            f"{folder} holds {kept[0]} and no {STATE} to go on from; start from that checkpoint with --from in "
            "another folder, or replace it with --force"
        )
    if not (force or resume) and (folder / BEST).exists():
        raise TrainingError(
            f"{folder / BEST} exists; choose another folder for the run, go on with --resume, or replace it with "
            "--force"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(
            f"cannot make the folder {folder}: {error.strerror}; choose another with -o"
        ) from error
    return folder


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write what a run was asked for.

    Raises:
        TrainingError: The file cannot be written.
    """
    _replace(folder / CONFIG, json.dumps(config, indent=2, ensure_ascii=False) + "\n")


def record(folder: Path, epoch: "Epoch") -> None:
    """Add an epoch's line.

    Raises:
        TrainingError: The file cannot be written.
    """
    path = folder / METRICS
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(epoch)) + "\n")
    except OSError as error:
        raise unwritable(path, error) from error


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Give what is recorded of each epoch so far; a line that a kill cut short is none."""
    path = folder / METRICS
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    epochs: list[dict[str, Any]] = []
    for line in lines:
        try:
            epochs.append(json.loads(line))
        except ValueError:
            break
    return epochs


def best_epoch(folder: Path) -> dict[str, Any]:
    """Give what is recorded of the epoch whose weights are in `BEST`."""
    return max(read_metrics(folder), key=lambda line: (line["val_accuracy"], -line["val_loss"]))


def trim(folder: Path, epochs: int) -> None:
    """Keep the lines of the first epochs only: those after the state that a run goes on from are made again.

    Raises:
        TrainingError: The file cannot be written.
    """
    kept = [json.dumps(line) + "\n" for line in read_metrics(folder)[:epochs]]
    _replace(folder / METRICS, "".join(kept))


def _replace(path: Path, text: str) -> None:
    try:
        with replacing(path) as unfinished:
            unfinished.write_text(text, encoding="utf-8")
    except OSError as error:
        raise unwritable(path, error) from error


def unwritable(path: Path, error: OSError) -> TrainingError:
    """Give the error for a file of a run that cannot be written."""
    return TrainingError(
        f"cannot write {path}: {error.strerror}; check the folder and the disk, then go on with --resume"
    )

"""What a run needs to go on as if it had never stopped, in one file that is there whole or not at all."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import TrainingError
from ..models import ViTConfig
from ..runtime.labels import Labels
from ..runtime.replacing import replacing
from .batches import Examples
from .recipe import Recipe
from .run import STATE
from .teacher import Teacher

_SCHEMA = 1


def save_state(run: Path, state: Mapping[str, Any]) -> None:
    """Write a run's state; a kill at any moment leaves the old file or the new one.

    Raises:
        TrainingError: It cannot be written.
    """
    path = run / STATE
    try:
        with replacing(path) as unfinished, unfinished.open("wb") as file:
            torch.save({"schema": _SCHEMA, **state}, file)
            file.flush()
            os.fsync(file.fileno())
    # torch's zip writer raises a RuntimeError where the disk is full.
    except (OSError, RuntimeError) as error:
        if "DataLoader worker" in str(error):  # a signal that came meanwhile, and is no matter of this file
            raise
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise TrainingError(
            f"cannot write {path} ({reason}); free some space, then go on with --resume"
        ) from error


def forget_state(run: Path) -> None:
    """Remove the state of an earlier run, which the one that begins must not go on from.

    Raises:
        TrainingError: It cannot be removed.
    """
    try:
        (run / STATE).unlink(missing_ok=True)
    except OSError as error:
        raise TrainingError(f"cannot replace {run / STATE} ({error.strerror}); check the folder") from error


def load_state(run: Path, recipe: Recipe, asked: Mapping[str, str]) -> dict[str, Any] | None:
    """Read a run's state; None where it never came to write one.

    Args:
        run: The run's folder.
        recipe: What it is to go on with.
        asked: The `fingerprint` of what it is to go on with.

    Raises:
        TrainingError: The file is damaged, or recipe, network, classes or images are others than the run began with.
    """
    path = run / STATE
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        schema = state["schema"]
    # torch raises whatever its unpickler meets.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise TrainingError(
            f"{path} is damaged ({reason}); start the run anew with --force, from its best checkpoint with --from"
        ) from error
    if schema != _SCHEMA:
        raise TrainingError(f"{path} is of schema {schema}, and {_SCHEMA} is expected; update vit-edge")
    if differing := recipe.differing(json.loads(state["recipe"])):
        old = json.loads(state["recipe"])
        told = ", ".join(f"{name} {old.get(name)!r}, not {getattr(recipe, name)!r}" for name in differing)
        raise TrainingError(f"the run in {run} began with {told}; go on with what it began with")
    if others := [name for name, value in asked.items() if state["asked"].get(name) != value]:
        raise TrainingError(
            f"the run in {run} began with other {' and other '.join(others)}; give the same, or start anew in another "
            "folder"
        )
    return state


def fingerprint(
    config: ViTConfig, labels: Labels, *sets: Examples, teacher: Teacher | None = None
) -> dict[str, str]:
    """Give digests of what a run is of: the network's sizes, the classes, the images, and the teacher."""
    sha256 = hashlib.sha256()
    for examples in sets:
        sha256.update(f"{len(examples)} {examples.preprocessing} {examples.stamp()}\n".encode())
        sha256.update(np.ascontiguousarray(examples.targets, np.int64).tobytes())
    return {
        "sizes of the network": json.dumps(config.to_dict()),
        "classes": json.dumps([[label.name, label.id] for label in labels.items]),
        "images": sha256.hexdigest(),
        "teacher": "" if teacher is None else teacher.stamp(),
    }

"""What ``vit-edge train`` starts from: a network, a teacher, the grids of a target."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError, OptionError
from .load import given

if TYPE_CHECKING:
    from ..runtime.labels import Labels
    from ..training import Processes, Start, Teacher


def open_network(
    source: str | None,
    model: str,
    classes: "Labels",
    *,
    image_size: int | None,
    mean: str | None,
    std: str | None,
    heads: int | None,
    labels: Path | None,
    distilled: bool,
    seed: int,
) -> "Start":
    """Open the checkpoint that is fine-tuned, or make a new network; see `open_start` and `start_new`."""
    from ..models import named
    from ..runtime.labels import Labels
    from ..training import open_start, start_from, start_new
    from ..training.start import usual_preprocessing

    try:
        if source is not None:
            known = None if labels is None else Labels.read(labels)
            checkpoint, preprocessing = open_start(
                source, image_size=image_size, mean=mean, std=std, heads=heads, labels=known
            )
            return start_from(checkpoint, classes, preprocessing, seed=seed, distilled=distilled)
        config = replace(named(model, classes=len(classes), image_size=image_size), distilled=distilled)
        preprocessing = usual_preprocessing(config.image_size, mean=mean or "0.5", std=std or "0.5")
    except ModelError as error:
        raise OptionError(str(error)) from error
    return start_new(config, preprocessing, seed=seed)


def open_teacher(
    source: str,
    classes: "Labels",
    processes: "Processes",
    *,
    labels: Path | None = None,
    preprocess: str | None = None,
) -> "Teacher":
    """Open the network whose answers are learned, where this process computes.

    Args:
        source: A checkpoint.
        classes: The student's.
        processes: This process among others.
        labels: The value of ``--teacher-labels``, for a checkpoint that does not tell its labels.
        preprocess: That of ``--teacher-preprocess``, likewise.

    Raises:
        OptionError: Labels or preprocessing are missing, or no such thing.
        CheckpointError: It cannot be read, or tells otherwise than what was given.
        TrainingError: It does not know a class, or memory is short.
    """
    from ..checkpoint import load_checkpoint
    from ..training import Teacher, class_places
    from ..training.memory import enough_memory

    known_labels, known_preprocessing = given(labels, preprocess)
    checkpoint = load_checkpoint(source, labels=known_labels, preprocessing=known_preprocessing)
    known_labels, known_preprocessing = checkpoint.labels, checkpoint.preprocessing
    if known_labels is None or known_preprocessing is None:
        missing = []
        if known_labels is None:
            missing.append("--teacher-labels FILE (one a line, in the order of its outputs)")
        if known_preprocessing is None:
            missing.append(
                f"--teacher-preprocess resize=...,crop={checkpoint.config.image_size[0]},interpolation=...,mean=...,"
                "std=... (as it was trained)"
            )
        raise OptionError(f"the teacher {source} does not tell all; give {' and '.join(missing)}")
    places = class_places(known_labels, classes)
    with enough_memory(f"bringing the teacher to {processes.device}", advice="take a smaller one"):
        model = checkpoint.model.to(processes.device)
    return Teacher(model, known_preprocessing, places)


def grids(name: str) -> dict[str, Any]:
    """Give what a recipe says of the grids that an export for a target lays."""
    from ..export.targets import target

    device = target(name)
    if device.recipe == "float16":
        raise OptionError(f"{name} computes in float16, which needs no training for it; leave out --qat")
    return {"quantize": True, "symmetric": device.symmetric, "weight_bits": device.weight_bits}

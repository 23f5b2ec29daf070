"""What ``vit-edge train`` starts from: a network, a teacher, the grids of a target."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError, OptionError

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


def open_teacher(source: str, classes: "Labels", processes: "Processes") -> "Teacher":
    """Open the network whose answers are learned, where this process computes."""
    from ..checkpoint import load_checkpoint
    from ..training import Teacher, class_places
    from ..training.memory import enough_memory

    checkpoint = load_checkpoint(source)
    if checkpoint.labels is None or checkpoint.preprocessing is None:
        raise OptionError(
            f"the teacher {source} does not say its labels and preprocessing; give a checkpoint that vit-edge, timm or "
            "transformers saved, as `vit-edge train --from` makes one"
        )
    places = class_places(checkpoint.labels, classes)
    with enough_memory(f"bringing the teacher to {processes.device}", advice="take a smaller one"):
        model = checkpoint.model.to(processes.device)
    return Teacher(model, checkpoint.preprocessing, places)


def grids(name: str) -> dict[str, Any]:
    """Give what a recipe says of the grids that an export for a target lays."""
    from ..export.targets import target

    device = target(name)
    if device.recipe == "float16":
        raise OptionError(f"{name} computes in float16, which needs no training for it; leave out --qat")
    return {"quantize": True, "symmetric": device.symmetric, "weight_bits": device.weight_bits}

"""Loads what the commands of the workshop are given, with the labels and preprocessing that belong to it."""

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import OptionError

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint
    from ..runtime.labels import Labels
    from ..runtime.preprocess import Preprocessing


def given(labels: Path | None, preprocess: str | None) -> "tuple[Labels | None, Preprocessing | None]":
    """Read the values of ``--labels`` and ``--preprocess``.

    Raises:
        OptionError: A value is not usable.
    """
    from ..runtime.errors import ModelError
    from ..runtime.labels import Labels
    from ..runtime.preprocess import Preprocessing

    try:
        return (
            None if labels is None else Labels.read(labels),
            None if preprocess is None else Preprocessing.parse(preprocess),
        )
    except ModelError as error:
        raise OptionError(str(error)) from error


def complete(checkpoint: "Checkpoint") -> "tuple[Labels, Preprocessing]":
    """Give a checkpoint's labels and preprocessing.

    Raises:
        OptionError: It has none and none was given: there is no default, since a wrong one costs the answers.
    """
    missing = []
    if checkpoint.labels is None:
        missing.append(("labels", "--labels FILE (one a line, in the order of the outputs)"))
    if checkpoint.preprocessing is None:
        size = checkpoint.config.image_size[0]
        missing.append(
            (
                "preprocessing",
                f"--preprocess resize=...,crop={size},interpolation=...,mean=...,std=... "
                "(as the network was trained)",
            )
        )
    if missing:
        what, how = (" and ".join(parts) for parts in zip(*missing, strict=True))
        raise OptionError(f"{checkpoint.source} does not tell its {what}; give {how}")
    assert checkpoint.labels is not None
    assert checkpoint.preprocessing is not None
    return checkpoint.labels, checkpoint.preprocessing

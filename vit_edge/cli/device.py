"""Opens a model file for the commands that run it, with notes on stderr and progress while a provider compiles."""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .progress import note, working

if TYPE_CHECKING:
    from ..runtime.classifier import Classifier


def open_classifier(
    model: Path,
    provider: str = "auto",
    threads: int | None = None,
    *,
    provider_options: Mapping[str, str] | None = None,
    spinning: bool = True,
    quiet: bool = False,
) -> "Classifier":
    """Open a model file, and say on stderr what its user should know.

    Args:
        model: The file.
        provider: As `Classifier` takes it.
        threads: As `Classifier` takes it.
        provider_options: As `Classifier` takes it.
        spinning: As `Classifier` takes it.
        quiet: Show no progress; the notes are shown all the same.

    Raises:
        ModelError, ProviderError: As `Classifier`.
    """
    from ..runtime.classifier import Classifier

    # The notes are printed here; without any handler Python would print the log's copy as well.
    logging.getLogger(Classifier.__module__).addHandler(logging.NullHandler())
    classifier = Classifier(
        model,
        provider,
        threads,
        provider_options=provider_options,
        spinning=spinning,
        compiling=partial(working, quiet=quiet),
    )
    for difference in classifier.notes:
        note(f"note: {difference}")
    return classifier

"""Sets some of each class's images aside for validation."""

import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..data import Sample
from ..errors import DataError, OptionError
from ..runtime.labels import Labels


def split(
    samples: Sequence[Sample], labels: Labels, *, share: float, seed: int = 0
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Split samples into those to train on and those to validate on, class by class.

    Args:
        samples: Images with their classes.
        labels: The classes, to name one that is too small.
        share: The share of each class that is set aside: at least one image, never all.
        seed: Which images; the same seed sets the same ones aside.

    Returns:
        Training and validation samples, each in the order of *samples*.

    Raises:
        OptionError: *share* is not between 0 and 1.
        DataError: A class has one image only.
    """
    targets = [-1 if sample.target is None else sample.target for sample in samples]
    kept, aside = split_places(targets, labels, share=share, seed=seed)
    return tuple(samples[place] for place in kept), tuple(samples[place] for place in aside)


def split_places(
    targets: Sequence[int] | NDArray[np.int64], labels: Labels, *, share: float, seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split images by their classes as `split` does; -1 is no class.

    Returns:
        The places of the images to train on and of those to validate on, each going up.

    Raises:
        OptionError, DataError: As `split`.
    """
    if not 0 < share < 1:
        raise OptionError(f"expected the validation share to be between 0 and 1, got {share}")
    classes: dict[int, list[int]] = {}
    for place, target in enumerate(targets):
        classes.setdefault(int(target), []).append(place)
    generator = random.Random(seed)
    aside = np.zeros(len(targets), bool)
    for target, members in sorted(classes.items()):
        if len(members) == 1:
            name = "without a label" if target < 0 else repr(labels[target].name)
            raise DataError(
                f"the class {name} has one image, too few to train on some and validate on others; "
                "add images, or give validation images with --val"
            )
        count = min(max(1, round(share * len(members))), len(members) - 1)
        aside[generator.sample(members, count)] = True
    return np.flatnonzero(~aside), np.flatnonzero(aside)

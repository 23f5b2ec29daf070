"""Sets some of each class's images aside for validation."""

import random
from collections.abc import Sequence

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
    if not 0 < share < 1:
        raise OptionError(f"expected the validation share to be between 0 and 1, got {share}")
    classes: dict[int | None, list[int]] = {}
    for index, sample in enumerate(samples):
        classes.setdefault(sample.target, []).append(index)
    generator = random.Random(seed)
    aside: set[int] = set()
    for target, members in sorted(classes.items(), key=lambda item: -1 if item[0] is None else item[0]):
        if len(members) == 1:
            name = "without a label" if target is None else repr(labels[target].name)
            raise DataError(
                f"the class {name} has one image, too few to train on some and validate on others; "
                "add images, or give validation images with --val"
            )
        count = min(max(1, round(share * len(members))), len(members) - 1)
        aside.update(generator.sample(members, count))
    return (
        tuple(sample for index, sample in enumerate(samples) if index not in aside),
        tuple(sample for index, sample in enumerate(samples) if index in aside),
    )

"""Compares several files of one model on the device at hand: which keep their bounds here, and which is the fastest."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .checking import none_known, require_kept
from .data import Sample
from .evaluation import Bounds, Comparison, compare
from .kept import KeptAnswers, image_digest
from .runtime.capsule import read_capsule
from .runtime.classifier import Classifier
from .runtime.image import read_image
from .runtime.timing import as_steps, take_turns

Progress = tuple[str, int, int]
"""What is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """An image that the kept answers know.

    Attributes:
        image: Its file, or its file's bytes.
        reference: (classes,) float32, the kept logits.
        target: Its class, where that is known.
    """

    image: Path | bytes
    reference: NDArray[np.float32]
    target: int | None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file as it was found on this device.

    Attributes:
        path: The file.
        provider: The execution provider that it ran on; None where it could not be opened.
        comparison: Its answers against the kept ones.
        latency_ms: The time from a decoded image to the logits, taken in turns with the others: the 20th percentile.
        problem: Why it is not to be chosen; None where it may.
    """

    path: Path
    provider: str | None = None
    comparison: Comparison | None = None
    latency_ms: float | None = None
    problem: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, ready for JSON."""
        return {
            "file": str(self.path),
            "provider": self.provider,
            **({} if self.comparison is None else self.comparison.to_dict()),
            "latency_ms": self.latency_ms,
            "problem": self.problem,
        }


@dataclass(frozen=True, slots=True)
class Wanted:
    """Bounds in the place of those that a file was exported with; None leaves the file's own."""

    min_agreement: float | None = None
    max_drift: float | None = None
    max_drop: float | None = None

    def of(self, classifier: Classifier, *, few: bool) -> Bounds:
        """Give the bounds that a file is held to; where it names none, none binds.

        Args:
            classifier: The file.
            few: Whether the images are a capsule's few, on some of which torch itself hardly decides: their share of
                equal answers says little, and binds only where it is given. The drift tells a wrong graph.
        """
        own = classifier.metadata.proof.get("bounds", {})
        loose = Bounds(0.0, float("inf"), float("inf"), 0.0)
        names = ("min_agreement", "max_drift", "max_drop")
        told = {name: float(own[name]) for name in names if name in own and not (few and name == names[0])}
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        return replace(loose, **(told | given))


def images_of(
    kept: KeptAnswers, samples: Sequence[Sample] | None, files: Sequence[Path]
) -> tuple[tuple[Shown, ...], int]:
    """Find the images that kept answers know: among samples, or in the files' own capsules where there are none.

    Args:
        kept: The answers.
        samples: Images; None takes the capsules' pictures.
        files: The model files.

    Returns:
        The images, and how many others are unknown to the answers.

    Raises:
        DataError: They know none.
    """
    if samples is None:
        capsules = (read_capsule(path, str(path)) for path in files)
        pictures = (
            picture.jpeg for capsule in capsules if capsule is not None for picture in capsule.pictures
        )
        # Variants of one export carry the same pictures.
        found: list[tuple[Path | bytes, int | None]] = [(jpeg, None) for jpeg in dict.fromkeys(pictures)]
    else:
        found = [(sample.path, sample.target) for sample in samples]
    shown = []
    for image, target in found:
        reference = kept.logits.get(image_digest(image))
        if reference is not None:
            shown.append(Shown(image, reference, target))
    if not shown:
        raise none_known(kept, len(found))
    return tuple(shown), len(found) - len(shown)


def compare_here(
    classifiers: Sequence[Classifier], kept: KeptAnswers, images: Sequence[Shown], wanted: Wanted
) -> Generator[Progress, None, tuple[Candidate, ...]]:
    """Run several files on the same images, and time them in turns.

    Args:
        classifiers: The files, open.
        kept: The reference's answers.
        images: What `images_of` found.
        wanted: Bounds in the place of the files' own.

    Returns:
        A candidate for each, in their order.

    Raises:
        CheckpointError: A file and the answers do not belong together.
        ImageError, ModelError: An image cannot be read, or ONNX Runtime failed.
    """
    for classifier in classifiers:
        require_kept(kept, classifier)
    reference = np.stack([shown.reference for shown in images])
    targets = [shown.target for shown in images if shown.target is not None]
    few = all(isinstance(shown.image, bytes) for shown in images)
    found = []
    for classifier in classifiers:
        rows = []
        for done, shown in enumerate(images, start=1):
            rows.append(classifier.logits(classifier.pixels(shown.image)[None]))
            yield f"checking {Path(classifier.name).name}", done, len(images)
        comparison = compare(
            reference, np.concatenate(rows), targets if len(targets) == len(images) else None
        )
        problem = wanted.of(classifier, few=few).broken_by(comparison)
        found.append(Candidate(Path(classifier.name), classifier.provider, comparison, problem=problem))
    picture = read_image(images[0].image)

    def answer(classifier: Classifier) -> Callable[[], object]:
        # A graph of raw pixels is spared the normalisation: preparing belongs to the time.
        return lambda: classifier.logits(classifier.pixels(picture)[None])

    turns = take_turns([answer(classifier) for classifier in classifiers])
    times = yield from as_steps(turns, lambda done, total: ("timing", done, total))
    return tuple(
        replace(candidate, latency_ms=latency) for candidate, latency in zip(found, times, strict=True)
    )


def fastest(candidates: Sequence[Candidate]) -> Candidate | None:
    """Give the fastest of those without a problem; None where all have one."""
    able = [one for one in candidates if one.problem is None and one.latency_ms is not None]
    return min(able, key=lambda one: one.latency_ms or 0.0, default=None)

"""``vit-edge classify``: image files, folders, globs or standard input, answered by a model file."""

import glob
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import DataError, ImageError, OptionError
from . import options as shared
from .device import open_classifier
from .progress import Advance, answer, note, progress

if TYPE_CHECKING:
    from ..runtime.classifier import Classifier
    from ..runtime.prediction import Prediction

# From so many images on, a person would wonder whether something still happens.
_LONG = 20

_STDIN = "-"

UNKNOWN = "unknown"
"""What an answer below the threshold is called."""


def classify(
    model: Annotated[Path, typer.Argument(help="A file made by `vit-edge export`.")],
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE", help="Image files, folders, globs, or - for an image on standard input."
        ),
    ],
    top: Annotated[int, typer.Option(min=1, help="How many classes to show for each image.")] = 1,
    threshold: Annotated[
        str | None,
        typer.Option(
            metavar="P|auto",
            help="Call an answer unknown below this probability, 0..1, or below the file's own (auto).",
        ),
    ] = None,
    provider: shared.Provider = "auto",
    provider_option: shared.ProviderOptions = None,
    threads: shared.Threads = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    quiet: shared.Quiet = False,
) -> None:
    """Classify images, without torch.

    An image that cannot be read is reported and does not stop the others; the exit status is then 1. Where this
    device differs from the one that the model was measured on, or a provider left part of the graph to the CPU, a note
    says so.
    """
    own = shared.provider_options(provider_option)
    images = list(_expand(sources))
    failed = 0
    with (
        open_classifier(model, provider, threads, provider_options=own, quiet=quiet) as classifier,
        progress(
            "classifying", total=len(images), unit="images", quiet=quiet or len(images) < _LONG
        ) as advance,
    ):
        least = _least(threshold, classifier)
        if not as_json:
            width = max(len(image) for image in images)
            answer(f"{'image':<{width}}  probability  {'ms':>6}  label")
        for image, found in _answers(classifier, images, top, advance):
            if isinstance(found, ImageError):
                failed += 1
                note(f"error: {found}")
                if as_json:
                    answer(json.dumps({"source": image, "error": str(found)}))
            elif as_json:
                unknown = {"label": UNKNOWN} if found.probability < least else {}
                answer(json.dumps({"source": image} | found.to_dict() | unknown))
            else:
                _print_rows(image, found, width, least)
    if failed:
        note(f"{failed} of {len(images)} images could not be read")
        raise typer.Exit(1)


def _least(text: str | None, classifier: "Classifier") -> float:
    """Give the least probability of a known answer; 0 where every answer is one."""
    if text is None:
        return 0.0
    if text == "auto":
        if classifier.threshold is None:
            raise OptionError(
                f"{classifier.name} says nothing of a threshold; give --threshold a number, or export it anew"
            )
        return classifier.threshold
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise OptionError(f"expected --threshold from 0 to 1, or auto, got {text!r}")
    if not classifier.calibrated:
        note(
            f"note: the scores of {classifier.name} are not calibrated: {value:g} is the network's own opinion"
        )
    return value


def _answers(
    classifier: "Classifier", images: Sequence[str], top: int, advance: Advance
) -> "Iterator[tuple[str, Prediction | ImageError]]":
    for image in images:
        try:
            found: Prediction | ImageError = classifier(_read_stdin() if image == _STDIN else image, top=top)
        except ImageError as error:
            found = error
        yield image, found
        advance()


def _read_stdin() -> bytes:
    # Python has no sys.stdin where the process was started with it closed.
    if sys.stdin is None or sys.stdin.isatty():
        raise ImageError(
            "no image comes on standard input; send one, as in `vit-edge classify MODEL - < image.jpg`"
        )
    return sys.stdin.buffer.read()


def _print_rows(image: str, prediction: "Prediction", width: int, least: float) -> None:
    for place, score in enumerate(prediction.top):
        unknown = place == 0 and score.probability < least
        label = f"{UNKNOWN} (likeliest: {score.label})" if unknown else score.label
        first = f"{image:<{width}}" if place == 0 else " " * width
        latency = f"{prediction.latency_ms:6.1f}" if place == 0 else " " * 6
        answer(f"{first}  {100 * score.probability:9.2f} %  {latency}  {label}")


def _expand(sources: Sequence[str]) -> Iterator[str]:
    """Give the images that the sources mean; a folder's in the order of their names.

    Raises:
        DataError: A folder or glob holds no image.
    """
    from ..data import list_images

    for source in sources:
        if source == _STDIN:
            yield source
        elif Path(source).is_dir():
            yield from map(str, list_images(source))
        elif not Path(source).exists() and glob.has_magic(source):
            # Path.glob takes no absolute pattern.
            found = glob.glob(source, recursive=True)  # noqa: PTH207
            matches = sorted(path for path in found if Path(path).is_file())
            if not matches:
                raise DataError(f"no file matches {source}; check the pattern, or give a folder")
            yield from matches
        else:
            yield source

"""The images of ``vit-edge train``: found, read and told about, with progress."""

from typing import TYPE_CHECKING

from .progress import Stages, note

if TYPE_CHECKING:
    from ..runtime.preprocess import Preprocessing
    from ..training.data import Data, Prepared


def find(data: str, val: str | None, *, share: float, seed: int, quiet: bool = False) -> "Data":
    """Find the images of a run; see `open_data`."""
    from ..training.data import open_data

    with Stages(quiet=quiet) as stages:

        def looked(done: int, total: int) -> None:
            stages.show("Looking through shards", done, total)

        return open_data(data, val=val, share=share, seed=seed, looked=looked)


def read(
    data: "Data",
    preprocessing: "Preprocessing",
    *,
    whole: bool = False,
    skip_broken: bool = False,
    quiet: bool = False,
) -> "Prepared":
    """Read the images of a run, see `prepare`, and say what a user should know of them."""
    from ..training import BrokenImagesError
    from ..training.data import prepare

    try:
        with Stages(quiet=quiet) as stages:
            work = prepare(data, preprocessing, whole=whole, skip_broken=skip_broken)
            prepared = stages.follow(
                work, lambda step: (f"Reading {step.what} images", step.done, step.total)
            )
    except BrokenImagesError as error:
        # Whoever mends them wants them all; a few are in the error's own sentence.
        for problem in error.problems if error.unnamed else ():
            note(problem, quiet=quiet)
        raise
    for line in (*prepared.report.lines(), data.told):
        note(line, quiet=quiet)
    if whole and not prepared.training.cropped:
        note("each epoch reads the training images anew, for random crops are of whole images", quiet=quiet)
    return prepared

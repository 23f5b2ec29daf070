"""The training loop's front: what it takes, what it promises."""

from collections.abc import Callable, Generator
from pathlib import Path

from ..models import ViT
from ..runtime.labels import Labels
from .batches import Examples
from .loop import Run
from .processes import Processes
from .recipe import Recipe
from .teacher import Teacher
from .told import Epoch, Step


def fit(
    model: ViT,
    training: Examples,
    validation: Examples,
    *,
    labels: Labels,
    recipe: Recipe,
    run: Path,
    teacher: Teacher | None = None,
    processes: Processes | None = None,
    workers: int = 0,
    resume: bool = False,
    save_every_s: float = 300.0,
    on_step: Callable[[Step], None] = lambda step: None,
    on_features: Callable[[int, int], None] = lambda done, total: None,
) -> Generator[Epoch, None, None]:
    """Train a network, in place.

    AdamW (Loshchilov and Hutter 2019), a linear warm-up, then a cosine to 0, a clipped gradient, and what the recipe
    adds. The same recipe, images, machine and number of threads give the same weights, bit for bit, on a processor;
    a run that was stopped and resumed gives them too, and one on several processes to rounding.

    Args:
        model: The network; afterwards it holds the weights of the last epoch.
        training: Images to learn from.
        validation: Images that choose the best epoch.
        labels: The classes, to be kept in the checkpoints.
        recipe: The numbers.
        run: The folder for what is written, as `open_run` gives it.
        teacher: The network to learn from, where the recipe distils.
        processes: This process among others; those that the environment tells of unless given.
        workers: How many processes load images beside this one.
        resume: Go on from the run's state, where there is one.
        save_every_s: How often the state is written within an epoch; at its end it always is.
        on_step: Called after every step.
        on_features: Called before the first step with how many images were looked at, and how many there are, where
            the recipe freezes the network: features that no epoch changes are computed once.

    Yields:
        Each epoch as it ends, its files written. The best has the highest validation accuracy; where two have
        the same, the lower validation loss.

    Processes that load images live as long as the run, so that torch may tell of a death between two epochs as well,
    in the middle of what the caller does: `worker_errors` around the loop makes a sentence of it.

    Raises:
        TrainingError: The loss or the gradient is no longer a number, memory is short, a file cannot be written, or the
            state to go on from is of another run.
        CheckpointError: The checkpoint cannot be written.
        ValueError: The two sets were made by different preprocessing.
    """
    if training.preprocessing != validation.preprocessing:
        raise ValueError(
            "expected one preprocessing for both sets, "
            f"got {training.preprocessing} and {validation.preprocessing}"
        )
    yield from Run(
        model, training, validation, labels, recipe, run, teacher, processes or Processes(), workers
    ).epochs(resume=resume, save_every_s=save_every_s, on_step=on_step, on_features=on_features)

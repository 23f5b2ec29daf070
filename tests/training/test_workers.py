"""Processes that load images, and what becomes of a run when one of them dies."""

import multiprocessing
import os
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vit_edge.checkpoint import load_checkpoint
from vit_edge.errors import TrainingError
from vit_edge.training import ImageSet, Recipe, Step, fit, new_model, open_run, worker_errors
from vit_edge.training.batches import batches
from vit_edge.training.run import LAST

from ..cli.command import environment
from .test_fit import CONFIG, LABELS, PREPROCESSING, painted

RECIPE = Recipe(epochs=2, batch_size=2, learning_rate=3e-3, augment="trivial", flip=True)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[ImageSet, ImageSet]:
    folder = tmp_path_factory.mktemp("pictures")
    return painted(folder / "training"), painted(folder / "validation", seed=1)


@pytest.mark.slow
def test_a_worker_that_is_killed_ends_the_run_in_a_sentence(
    sets: tuple[ImageSet, ImageSet], tmp_path: Path
) -> None:
    """The system kills the largest process where memory is short; the run then goes on with fewer workers."""
    run = open_run(tmp_path / "run")

    def kill(step: Step) -> None:
        if step.step == 3:
            worker = multiprocessing.active_children()[0]
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)

    with pytest.raises(
        TrainingError, match=r"a process that loads images died \(.*Killed.*--workers"
    ) as error:
        list(
            fit(
                new_model(CONFIG, seed=0),
                *sets,
                labels=LABELS,
                recipe=RECIPE,
                run=run,
                workers=2,
                save_every_s=0,
                on_step=kill,
            )
        )
    assert "\n" not in str(error.value)
    # None is left whose death would be told of later, in the middle of something else.
    assert not multiprocessing.active_children()
    assert not [path for path in run.iterdir() if path.suffix == ".safetensors"]
    list(fit(new_model(CONFIG, seed=0), *sets, labels=LABELS, recipe=RECIPE, run=run, resume=True))
    whole = open_run(tmp_path / "whole")
    list(fit(new_model(CONFIG, seed=0), *sets, labels=LABELS, recipe=RECIPE, run=whole))
    one, two = (load_checkpoint(path / LAST).model.state_dict() for path in (run, whole))
    assert all(torch.equal(one[name], value) for name, value in two.items())


@pytest.mark.slow
def test_a_worker_that_is_killed_between_epochs_is_told_of_in_a_sentence(
    sets: tuple[ImageSet, ImageSet], tmp_path: Path
) -> None:
    """Workers wait for the next epoch while this one's numbers are written and shown."""
    epochs = fit(
        new_model(CONFIG, seed=0), *sets, labels=LABELS, recipe=RECIPE, run=open_run(tmp_path), workers=2
    )

    @worker_errors()
    def tell() -> None:
        for _ in epochs:
            worker = multiprocessing.active_children()[0]
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)
            worker.join()

    with pytest.raises(TrainingError, match=r"a process that loads images died"):
        tell()
    epochs.close()
    assert not multiprocessing.active_children()


def test_workers_load_images_of_the_next_epoch_while_this_one_ends(sets: tuple[ImageSet, ImageSet]) -> None:
    """They are started once, which takes a while, and never wait for an epoch to begin."""
    workers: set[int | None] = set()
    stream = batches(sets[0], RECIPE, epochs=(1, 2), workers=1)
    steps = -(-len(sets[0]) // RECIPE.batch_size)
    seen = []
    for _ in range(2):
        for batch in islice(stream, steps):
            seen.append(batch)
            workers |= {child.pid for child in multiprocessing.active_children()}
    assert len(workers) == 1
    assert next(stream, None) is None
    assert not multiprocessing.active_children()
    alone = [batch for epoch in (1, 2) for batch in batches(sets[0], RECIPE, epochs=[epoch])]
    assert len(alone) == 2 * steps
    for one, other in zip(seen, alone, strict=True):
        assert torch.equal(one.images, other.images)
        assert one.places.tolist() == other.places.tolist()
    # Another epoch has another order, and an epoch's rest is what comes first where a run goes on.
    assert [batch.places.tolist() for batch in alone[:steps]] != [
        batch.places.tolist() for batch in alone[steps:]
    ]
    rest = [batch.places.tolist() for batch in batches(sets[0], RECIPE, epochs=(1, 2), start=steps - 1)]
    assert rest == [batch.places.tolist() for batch in alone[steps - 1 :]]


class _Failing(ImageSet):
    def example(self, place: int) -> tuple[NDArray[np.uint8], int]:
        raise RuntimeError("unable to write to file </torch_1>: No space left on device (28)")


@pytest.mark.slow
def test_a_worker_that_fails_says_why_in_a_line(sets: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    """What it raises comes here with its traceback, of which a user wants the last line."""
    failing = _Failing(sets[0].pixels, sets[0].targets, PREPROCESSING)
    with pytest.raises(
        TrainingError, match=r"images died \(RuntimeError: unable .* device \(28\)\)"
    ) as error:
        list(
            fit(
                new_model(CONFIG, seed=0),
                failing,
                sets[1],
                labels=LABELS,
                recipe=RECIPE,
                run=tmp_path,
                workers=1,
            )
        )
    assert "\n" not in str(error.value)


_THREADED = """
import cv2, numpy as np
from vit_edge.runtime.preprocess import Preprocessing
from vit_edge.training import ImageSet, Recipe
from vit_edge.training.batches import batches

class Resized(ImageSet):
    def example(self, place):
        image, target = super().example(place)
        return cv2.resize(cv2.resize(image, (900, 900)), (8, 8)), target

cv2.setNumThreads(4)
for _ in range(20):
    cv2.GaussianBlur(np.zeros((2000, 2000, 3), np.uint8), (0, 0), 3)
preprocessing = Preprocessing.parse("resize=8,crop=8,interpolation=bicubic,mean=0.5,std=0.5")
images = Resized(np.zeros((12, 8, 8, 3), np.uint8), np.zeros(12, np.int64), preprocessing)
for epoch in (1, 2):
    print(sum(len(batch.targets) for batch in batches(images, Recipe(batch_size=4), epochs=[epoch], workers=2)))
print(cv2.getNumThreads())
"""


def test_workers_start_beside_the_threads_of_opencv() -> None:
    """The images were decoded here before, by threads that do not come along: a worker that waited for them hung."""
    done = subprocess.run(
        [sys.executable, "-c", _THREADED],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == ["12", "12", "4"], done.stderr

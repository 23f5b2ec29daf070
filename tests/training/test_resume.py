"""A run that was stopped, however rudely, goes on as if it had not been."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vit_edge.checkpoint import load_checkpoint
from vit_edge.errors import TrainingError
from vit_edge.models import ViT
from vit_edge.runtime.labels import Labels
from vit_edge.training import BEST, Epoch, ImageSet, Recipe, Step, fit, new_model, open_run
from vit_edge.training.run import LAST, METRICS, STATE
from vit_edge.training.teacher import Teacher

from .test_fit import CONFIG, LABELS, TIMES, painted

# All that has a state or draws chance.
RECIPE = Recipe(
    epochs=3,
    batch_size=8,
    learning_rate=3e-3,
    augment="trivial",
    flip=True,
    mixup=0.8,
    cutmix=1.0,
    erasing=0.25,
    drop_path=0.2,
    ema=0.9,
    layer_decay=0.9,
)


class StoppedError(Exception):
    """What stands for a kill: it comes out of the loop at any step."""


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[ImageSet, ImageSet]:
    folder = tmp_path_factory.mktemp("pictures")
    return painted(folder / "training"), painted(folder / "validation", seed=1)


def go(
    sets: tuple[ImageSet, ImageSet],
    run: Path,
    *,
    recipe: Recipe = RECIPE,
    stop_at: int | None = None,
    **options: Any,
) -> tuple[ViT, list[Epoch]]:
    model = new_model(CONFIG, seed=recipe.seed)

    def on_step(step: Step) -> None:
        if step.step == stop_at:
            raise StoppedError

    epochs = []
    try:
        folder = open_run(run, resume=True)
        for epoch in fit(
            model, *sets, labels=LABELS, recipe=recipe, run=folder, on_step=on_step, save_every_s=0, **options
        ):
            epochs.append(epoch)
    except StoppedError:
        pass
    return model, epochs


def same(first: Path, second: Path) -> bool:
    one, two = (load_checkpoint(path).model.state_dict() for path in (first, second))
    return all(torch.equal(one[name], two[name]) for name in one)


def told(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / METRICS).read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


@pytest.fixture(scope="module")
def whole(sets: tuple[ImageSet, ImageSet], tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    go(sets, run)
    return run


@pytest.mark.parametrize("stop_at", [1, 4, 5, 8])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(
    sets: tuple[ImageSet, ImageSet], tmp_path: Path, whole: Path, stop_at: int
) -> None:
    """In the middle of an epoch, at its end, before the first state: what was lost is made again, alike."""
    run = tmp_path / "run"
    go(sets, run, stop_at=stop_at)
    _, epochs = go(sets, run, resume=True)
    assert [epoch.epoch for epoch in epochs][-1] == 3
    for name in (BEST, LAST):
        assert same(run / name, whole / name)
    assert told(run) == told(whole)


def test_a_run_that_is_done_has_nothing_left_to_do(sets: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    """Whoever resumes once too often loses nothing."""
    run = tmp_path / "run"
    go(sets, run)
    before = (run / BEST).read_bytes(), told(run)
    assert go(sets, run, resume=True)[1] == []
    assert ((run / BEST).read_bytes(), told(run)) == before


def test_other_numbers_or_images_are_refused(sets: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    """A run that changes half-way is neither of the two."""
    run = tmp_path / "run"
    go(sets, run, stop_at=4)
    with pytest.raises(TrainingError, match=r"began with learning_rate 0\.003, not 0\.1; go on with"):
        go(sets, run, recipe=replace(RECIPE, learning_rate=0.1), resume=True)
    fewer = ImageSet(sets[0].pixels[1:], sets[0].targets[1:], sets[0].preprocessing)
    with pytest.raises(TrainingError, match="began with other images"):
        go((fewer, sets[1]), run, resume=True)
    # As many of each class, but not the same.
    others = ImageSet(255 - sets[0].pixels, sets[0].targets, sets[0].preprocessing)
    with pytest.raises(TrainingError, match="began with other images"):
        go((others, sets[1]), run, resume=True)


def test_another_teacher_is_refused(sets: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    """What is learned of two is nobody's answer."""
    recipe = replace(RECIPE, distillation="soft")
    first, second = (
        Teacher(new_model(CONFIG, seed=seed), sets[0].preprocessing, torch.arange(3)) for seed in (1, 2)
    )
    go(sets, tmp_path / "run", recipe=recipe, stop_at=2, teacher=first)
    with pytest.raises(TrainingError, match="began with other teacher; give the same"):
        go(sets, tmp_path / "run", recipe=recipe, resume=True, teacher=second)
    assert go(sets, tmp_path / "run", recipe=recipe, resume=True, teacher=first)[1]


def test_a_damaged_state_says_what_is_left(sets: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    """A disk that lost its end must not look like a run that never was."""
    run = tmp_path / "run"
    go(sets, run, stop_at=4)
    data = (run / STATE).read_bytes()
    (run / STATE).write_bytes(data[: len(data) // 2])
    with pytest.raises(TrainingError, match=r"state\.pt is damaged .* --from"):
        go(sets, run, resume=True)


_KILLED = """
import sys
from pathlib import Path
from tests.training.test_resume import RECIPE, go, painted
folder, run = Path(sys.argv[1]), Path(sys.argv[2])
sets = painted(folder / "training"), painted(folder / "validation", seed=1)
print("going", flush=True)
go(sets, run, resume=True)
print("done", flush=True)
"""


@pytest.mark.slow
def test_a_kill_at_any_moment_loses_no_more_than_a_few_steps(
    sets: tuple[ImageSet, ImageSet], tmp_path: Path, whole: Path
) -> None:
    """Kill -9 again and again, as likely within a save as not, since every step saves: the end is the same."""
    run, chance = tmp_path / "run", np.random.default_rng(0)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    kills = 0
    for attempt in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", _KILLED, str(tmp_path / str(attempt)), str(run)],
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "going\n"
        if attempt < 8:
            time.sleep(float(chance.uniform(0.05, 0.6)))
            process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
        if "done" in rest:
            break
        kills += 1
    assert kills
    assert "done" in rest
    for name in (BEST, LAST):
        assert same(run / name, whole / name)
    assert told(run) == told(whole)
    # A file that was being written when the kill came lies beside, and is taken for nothing else.
    assert all(path.name.startswith(".") or path.suffix != ".tmp" for path in run.iterdir())


def test_a_disk_without_room_is_one_sentence_and_leaves_the_state_before(
    sets: tuple[ImageSet, ImageSet], tmp_path: Path
) -> None:
    """A night's work is not to be lost to the morning's last megabyte."""
    import resource

    run = tmp_path / "run"
    go(sets, run, stop_at=4)
    before = (run / STATE).read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(TrainingError, match=r"cannot write .*state\.pt .* go on with --resume"):
            go(sets, run, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert (run / STATE).read_bytes() == before
    assert not [path for path in run.iterdir() if path.suffix == ".tmp"]


def test_epochs_are_plain_values(whole: Path) -> None:
    """Every line of the metrics reads back as what the loop yielded."""
    lines = [json.loads(line) for line in (whole / METRICS).read_text().splitlines()]
    assert [asdict(Epoch(**line)) for line in lines] == lines


def test_a_run_with_quantizers_keeps_its_grids_within_an_epoch(
    sets: tuple[ImageSet, ImageSet], tmp_path: Path
) -> None:
    """They are laid where an epoch begins; laid again in its middle they would be others."""
    recipe = replace(RECIPE, quantize=True)
    go(sets, tmp_path / "whole", recipe=recipe)
    go(sets, tmp_path / "run", recipe=recipe, stop_at=5)
    go(sets, tmp_path / "run", recipe=recipe, resume=True)
    assert same(tmp_path / "run" / LAST, tmp_path / "whole" / LAST)
    assert told(tmp_path / "run") == told(tmp_path / "whole")


def test_a_linear_probe_goes_on_as_well(sets: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    """Its features are computed again, and must be the same."""
    recipe = Recipe(epochs=3, batch_size=8, learning_rate=3e-3, augment="none", freeze=True)
    go(sets, tmp_path / "whole", recipe=recipe)
    go(sets, tmp_path / "run", recipe=recipe, stop_at=5)
    go(sets, tmp_path / "run", recipe=recipe, resume=True)
    assert same(tmp_path / "run" / LAST, tmp_path / "whole" / LAST)


def test_another_network_or_other_classes_are_refused(
    sets: tuple[ImageSet, ImageSet], tmp_path: Path
) -> None:
    """The state would not fit, or be of another question."""
    run = tmp_path / "run"
    go(sets, run, stop_at=4)

    def other(**changes: Any) -> None:
        model = new_model(changes.get("config", CONFIG), seed=0)
        labels = changes.get("labels", LABELS)
        list(fit(model, *sets, labels=labels, recipe=RECIPE, run=run, resume=True))

    with pytest.raises(TrainingError, match="began with other sizes of the network; give the same"):
        other(config=replace(CONFIG, depth=1))
    with pytest.raises(TrainingError, match="began with other classes"):
        other(labels=Labels.of(["sky", "grass", "rose"]))


def test_a_run_that_begins_anew_forgets_the_old_state(
    sets: tuple[ImageSet, ImageSet], tmp_path: Path
) -> None:
    """Killed before its first save, it must not be taken for the run that it replaces."""
    run = tmp_path / "run"
    go(sets, run)
    with pytest.raises(StoppedError):
        list(
            fit(
                new_model(CONFIG, seed=0),
                *sets,
                labels=LABELS,
                recipe=RECIPE,
                run=open_run(run, force=True),
                on_step=stopped,
            )
        )
    assert (run / BEST).exists()
    assert not (run / STATE).exists()


def stopped(step: Step) -> None:
    raise StoppedError

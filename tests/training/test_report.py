"""What a run shows of itself: curves and events."""

import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vit_edge.errors import TrainingError
from vit_edge.runtime.image import read_image
from vit_edge.training import Epoch, Report, Step
from vit_edge.training.report import CURVES, EVENTS, draw_curves, left_out
from vit_edge.training.run import record

STEP = Step(1, 12, 1, 2.0, 1e-3, 100.0, 5.0)
EPOCH = Epoch(1, 4, 2.0, 1.9, 0.25, 1e-3, 100.0, 5.0, True)


def go(run: Path, *, first: int, last: int) -> None:
    """Report on steps, three to an epoch."""
    with Report(run) as report:
        for number in range(first, last + 1):
            report.step(replace(STEP, step=number, loss=float(number)))
            if number % 3 == 0:
                epoch = replace(EPOCH, epoch=number // 3, val_accuracy=number / 20)
                record(run, epoch)
                report.epoch(epoch)


def scalars(run: Path, name: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(run / EVENTS))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_steps_and_epochs_share_one_axis(tmp_path: Path) -> None:
    """The accuracy of an epoch belongs above the loss of its last step."""
    go(tmp_path, first=1, last=6)
    assert scalars(tmp_path, "step/loss") == [(number, float(number)) for number in range(1, 7)]
    assert [step for step, _ in scalars(tmp_path, "epoch/val_accuracy")] == [3, 6]
    assert min(read_image(tmp_path / CURVES).shape[:2]) > 200


def test_a_run_that_goes_on_draws_one_line(tmp_path: Path) -> None:
    """Steps that were made twice, before and after a kill, would draw a knot."""
    go(tmp_path, first=1, last=5)
    go(tmp_path, first=4, last=6)
    assert [step for step, _ in scalars(tmp_path, "step/loss")] == [1, 2, 3, 4, 5, 6]


def test_a_run_that_begins_anew_forgets_the_old_events(tmp_path: Path) -> None:
    """Two runs in one folder would draw one crooked curve."""
    go(tmp_path, first=1, last=6)
    go(tmp_path, first=1, last=2)
    assert [step for step, _ in scalars(tmp_path, "step/loss")] == [1, 2]


def test_a_report_without_steps_leaves_nothing(tmp_path: Path) -> None:
    """Other processes of a run, and one that is done, have nothing to tell."""
    with Report(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_is_left_out_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks for the curves after a night wants to have been told."""
    assert left_out() == {}
    for package in ("matplotlib", "tensorboard"):
        monkeypatch.setitem(sys.modules, package, None)
    assert left_out() == {"matplotlib": CURVES, "tensorboard": EVENTS}


def test_the_curves_mark_the_best_epoch(tmp_path: Path) -> None:
    """It is drawn from the metrics alone, so that it can be drawn again."""
    for number, accuracy in enumerate((0.2, 0.6, 0.4), 1):
        record(tmp_path, replace(EPOCH, epoch=number, val_accuracy=accuracy))
    draw_curves(tmp_path)
    picture = read_image(tmp_path / CURVES).astype(int)
    red = (abs(picture - (0xC4, 0x4E, 0x52)).sum(axis=2) < 30).nonzero()
    # The best is in the middle of the right half, at its top.
    assert 0.7 < red[1].mean() / picture.shape[1] < 0.8
    assert red[0].mean() / picture.shape[0] < 0.3


@contextmanager
def full_disk(bytes_left: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size: a write fails as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    """A picture is no reason for a traceback in the middle of the night."""
    record(tmp_path, EPOCH)
    with (
        full_disk(1000),
        pytest.raises(TrainingError, match=r"cannot write .*curves\.png: File too large; .* --resume"),
        Report(tmp_path) as report,
    ):
        report.epoch(EPOCH)
    assert not (tmp_path / CURVES).exists()

    def steps() -> None:
        with Report(tmp_path) as report:
            for number in range(1, 1000):
                report.step(replace(STEP, step=number))

    with full_disk(300), pytest.raises(TrainingError, match=r"cannot write .*events: File too large"):
        steps()

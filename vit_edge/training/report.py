"""What a run shows of itself beside its numbers: curves as a picture, and events for TensorBoard."""

import importlib.util
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..runtime.replacing import replacing
from .run import best_epoch, read_metrics, unwritable
from .told import Epoch, Step

CURVES = "curves.png"
"""Losses, accuracy and learning rate over the epochs."""

EVENTS = "events"
"""The folder of TensorBoard's event files."""


# What draws and logs, and what is left out without it.
_NEEDED = {"matplotlib": CURVES, "tensorboard": EVENTS}


def left_out() -> dict[str, str]:
    """Give what a report leaves out here, by the package that it would need."""
    return {package: what for package, what in _NEEDED.items() if importlib.util.find_spec(package) is None}


class Report:
    """Draws and logs a run as it goes; without matplotlib or TensorBoard, what they would do is left out.

    Example::

        with Report(run) as report:
            for epoch in fit(..., on_step=report.step):
                report.epoch(epoch)
    """

    def __init__(self, run: Path) -> None:
        """Prepare to report on a run, in the process that writes its files.

        Args:
            run: The run's folder.
        """
        self._run = run
        self._events: _Events | None = None
        self._last = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._events is not None:
            self._events.close()

    def step(self, step: Step) -> None:
        """Log a step; the first that comes says where the run goes on, and what was logged beyond is void.

        Raises:
            TrainingError: The events cannot be written.
        """
        if not self._last and importlib.util.find_spec("tensorboard") is not None:
            self._events = _Events(self._run / EVENTS, step.step)
        self._last = step.step
        if self._events is not None:
            values = {"step/loss": step.loss, "step/learning_rate": step.learning_rate}
            self._events.write(step.step, values)

    def epoch(self, epoch: Epoch) -> None:
        """Log an epoch at its last step, and draw the curves anew.

        Raises:
            TrainingError: Events or curves cannot be written.
        """
        if self._events is not None:
            names = ("loss", "val_loss", "val_accuracy", "images_per_second")
            self._events.write(self._last, {f"epoch/{name}": getattr(epoch, name) for name in names})
            self._events.flush()
        if importlib.util.find_spec("matplotlib") is not None:
            try:
                draw_curves(self._run)
            except OSError as error:
                raise unwritable(self._run / CURVES, error) from error


class _Events:
    """A file of TensorBoard's events. Its own writer does this in a thread, whose errors nobody can catch."""

    def __init__(self, folder: Path, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._folder = folder
        name = f"events.out.tfevents.{time.time_ns()}.{os.getpid()}"
        try:
            if step == 1 and folder.exists():
                shutil.rmtree(folder)
            folder.mkdir(exist_ok=True)
            self._file = (folder / name).open("wb")
        except OSError as error:
            raise unwritable(folder, error) from error
        self._records = RecordWriter(self._file)
        self._event = Event
        self._put(Event(wall_time=time.time(), file_version="brain.Event:2"))
        # What has this step or a later one in other files is void.
        self._put(Event(wall_time=time.time(), step=step, session_log=SessionLog(status=SessionLog.START)))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        entries = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._put(self._event(wall_time=time.time(), step=step, summary=Summary(value=entries)))

    def flush(self) -> None:
        try:
            self._file.flush()
        except OSError as error:
            raise unwritable(self._folder, error) from error

    def close(self) -> None:
        # What is left cannot matter more than how the run ended.
        with suppress(OSError):
            self._file.close()

    def _put(self, event: Any) -> None:
        try:
            self._records.write(event.SerializeToString())
        except OSError as error:
            raise unwritable(self._folder, error) from error


def draw_curves(run: Path) -> None:
    """Draw the metrics of a run into `CURVES`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    epochs = read_metrics(run)
    numbers = [line["epoch"] for line in epochs]
    # Not by pyplot, which keeps figures and looks for a screen.
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(numbers, [line["loss"] for line in epochs], label="training", color="#4c72b0")
    left.plot(numbers, [line["val_loss"] for line in epochs], label="validation", color="#dd8452")
    left.set(title="Loss", xlabel="epoch")
    left.legend(frameon=False)
    right.plot(numbers, [100 * line["val_accuracy"] for line in epochs], color="#dd8452")
    right.set(title="Validation accuracy, %", xlabel="epoch")
    best = best_epoch(run)
    right.plot([best["epoch"]], [100 * best["val_accuracy"]], "o", color="#c44e52")
    right.annotate(
        f"{100 * best['val_accuracy']:.1f} %",
        (best["epoch"], 100 * best["val_accuracy"]),
        textcoords="offset points",
        xytext=(-6, -14),
        ha="right",
    )
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    with replacing(run / CURVES) as unfinished:
        FigureCanvasAgg(figure).print_png(str(unfinished))  # type: ignore[no-untyped-call]

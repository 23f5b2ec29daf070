"""What a run shows of itself beside its numbers: curves as a picture, and events for TensorBoard."""

import importlib.util
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .fit import Epoch, Step
from .run import best_epoch, read_metrics

CURVES = "curves.png"
"""Losses, accuracy and learning rate over the epochs."""

EVENTS = "events"
"""The folder of TensorBoard's event files."""


class Report:
    """Draws and logs a run as it goes; without matplotlib or TensorBoard, what they would do is left out.

    Example::

        with Report(run) as report:
            for epoch in fit(..., on_step=report.step):
                report.epoch(epoch)
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._writer: Any = None

    def __enter__(self) -> Self:
        if importlib.util.find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._run / EVENTS))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def step(self, step: Step) -> None:
        """Log a step."""
        if self._writer is not None:
            self._writer.add_scalar("step/loss", step.loss, step.step)
            self._writer.add_scalar("step/learning_rate", step.learning_rate, step.step)

    def epoch(self, epoch: Epoch) -> None:
        """Log an epoch, and draw the curves anew."""
        if self._writer is not None:
            for name in ("loss", "val_loss", "val_accuracy", "images_per_second"):
                self._writer.add_scalar(f"epoch/{name}", getattr(epoch, name), epoch.epoch)
            self._writer.flush()
        if importlib.util.find_spec("matplotlib") is not None:
            draw_curves(self._run)


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
    unfinished = run / f".{CURVES}"
    FigureCanvasAgg(figure).print_png(str(unfinished))  # type: ignore[no-untyped-call]
    unfinished.replace(run / CURVES)

"""The examination: one part after the other, findings as they come."""

import sys
from collections.abc import Iterator
from pathlib import Path

from .cameras import camera_findings
from .engine import engine
from .finding import Finding
from .machine import cache, cores, int8, memory, system
from .model import model as model_findings
from .opencv import opencv
from .screen import screen


def examine(model: Path | None = None, *, provider: str = "auto") -> Iterator[Finding]:
    """Examine this device, and a model file on it.

    Args:
        model: A file made by ``vit-edge export``.
        provider: The execution provider to run the file on, as `Classifier` takes it.

    Yields:
        What is found, in the order in which one thing needs another.
    """
    yield system()
    yield from filter(None, (memory(), cache()))
    yield int8()
    yield cores()
    yield from engine()
    gui = yield from opencv()
    yield from screen(gui)
    if sys.platform == "linux":
        yield from camera_findings()
    if model is not None:
        yield from model_findings(model, provider)

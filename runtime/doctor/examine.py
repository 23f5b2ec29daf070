"""The examination: one part after the other, findings as they come."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any

from .cameras import camera_findings
from .engine import engine
from .finding import Finding
from .machine import cache, cores, int8, memory, system
from .model import model as model_findings
from .opencv import opencv
from .screen import screen


def examine(
    model: Path | None = None,
    *,
    provider: str = "auto",
    provider_options: Mapping[str, str] = MappingProxyType({}),
    running: Callable[[str], AbstractContextManager[Any]] = nullcontext,
) -> Iterator[Finding]:
    """Examine this device, and a model file on it.

    Args:
        model: A file made by ``vit-edge export``.
        provider: The execution provider to run the file on, as `Classifier` takes it.
        provider_options: The provider's own options, as `Classifier` takes them.
        running: Entered, with what is being done, while the file is opened and run: a provider may compile it then,
            for minutes.

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
        yield from model_findings(model, provider, provider_options, running)

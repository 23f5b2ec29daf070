"""A whole benchmark, from what is to be measured to its report."""

import os
import platform
from collections.abc import Generator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import cv2
import onnxruntime

from .. import __version__
from ..runtime.cores import usable_cores
from ..runtime.opening import Compiling
from ..runtime.processor import processor
from .measure import Row, Setting, Step, measure
from .pictures import Pictures
from .start import Start, measure_starts
from .sweep import Sweep, sweep_threads


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured: every model with every provider, thread count, batch and concurrency.

    Attributes:
        models: The files.
        providers: Short names of execution providers, or ``auto``.
        threads: Thread counts, with None for the classifier's own choice; or ``auto``, the best for each model and
            provider, which is searched at the first batch and concurrency.
        batches: How many images a call holds.
        concurrencies: How many threads share a classifier.
        seconds: How long each model is timed in each setting.
        provider_options: Names and values of the providers' own options.
        starts: How many fresh processes show the start and the memory of each; 0 for neither.
    """

    models: tuple[Path, ...]
    providers: tuple[str, ...] = ("auto",)
    threads: tuple[int | None, ...] | Literal["auto"] = (None,)
    batches: tuple[int, ...] = (1,)
    concurrencies: tuple[int, ...] = (1,)
    seconds: float = 4.0
    starts: int = 5
    provider_options: tuple[tuple[str, str], ...] = ()

    def settings(self, threads: int | None) -> list[Setting]:
        """Give the settings of a model with one thread count."""
        return [
            Setting(provider, threads, batch, concurrency, self.provider_options)
            for provider, batch, concurrency in product(self.providers, self.batches, self.concurrencies)
        ]


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured.

    Attributes:
        device: The processor, the cores that are granted, the versions, and the load before the start.
        pictures: What was classified.
        rows: The times, setting by setting.
        starts: For each row what fresh processes showed; empty where none were started.
        sweeps: The searches for a thread count.
    """

    device: dict[str, Any]
    pictures: Pictures
    rows: tuple[Row, ...]
    starts: tuple[Start, ...]
    sweeps: tuple[Sweep, ...]

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, ready for JSON."""
        rows = [row.to_dict() for row in self.rows]
        for row, start in zip(rows, self.starts, strict=False):
            row |= start.to_dict()
        return {
            "device": self.device,
            "pictures": self.pictures.to_dict(),
            "rows": rows,
            "threads": [sweep.to_dict() for sweep in self.sweeps],
        }


def run(
    plan: Plan, pictures: Pictures, *, compiling: Compiling = nullcontext
) -> Generator[Step, None, Report]:
    """Measure all that a plan names.

    Args:
        plan: What is to be measured.
        pictures: What is classified.
        compiling: As `Classifier` takes it.

    Raises:
        VitEdgeError: A model or image cannot be used, or a provider is missing.
    """
    device = describe_device()
    sweeps: list[Sweep] = []
    settings: list[list[Setting]] = []
    for model in plan.models:
        if plan.threads == "auto":
            settings.append([])
            for provider in plan.providers:
                own = [setting for setting in plan.settings(None) if setting.provider == provider]
                sweep = yield from sweep_threads(model, own[0], pictures, compiling=compiling)
                sweeps.append(sweep)
                settings[-1] += [replace(setting, threads=sweep.best) for setting in own]
        else:
            settings.append([setting for threads in plan.threads for setting in plan.settings(threads)])
    rows = yield from measure(plan.models, settings, pictures, seconds=plan.seconds, compiling=compiling)
    starts: tuple[Start, ...] = ()
    if plan.starts:
        cases = [(row.model, row.setting) for row in rows]
        starts = yield from measure_starts(cases, pictures, count=plan.starts)
    return Report(device, pictures, rows, starts, tuple(sweeps))


def describe_device() -> dict[str, Any]:
    """Say what decides the figures here; the load is None where the system does not tell it."""
    return {
        "processor": processor(),
        "cores": usable_cores(),
        # The processes that wanted a core during the last minute.
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "opencv": cv2.__version__,
        "vit_edge": __version__,
    }

"""Turns a torch ViT into one verified ONNX file."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import OptionError
from ..evaluation import Bounds
from ..runtime.labels import Label, Labels
from .images import Tick
from .options import DEFAULT_BOUNDS, Options, Precision
from .pipeline import run
from .recorder import Step
from .result import Export, Source

if TYPE_CHECKING:
    from torch import nn

    from ..runtime.preprocess import Preprocessing

__all__ = [
    "DEFAULT_BOUNDS",
    "Bounds",
    "Export",
    "Options",
    "Precision",
    "Source",
    "Step",
    "Tick",
    "export_module",
    "run",
]


def export_module(
    module: "nn.Module",
    output: str | Path,
    *,
    labels: Labels | Sequence[str | Label],
    preprocessing: "Preprocessing | str",
    calibrate: str | Path | None = None,
    check: str | Path | None = None,
    options: Options | None = None,
) -> Export:
    """Export a torch module in one call; `run` is the same as a generator that tells its progress.

    Args:
        module: Maps (batch, 3, height, width) float32 to (batch, classes) logits, or to an object that has them as
            `logits`.
        output: The file to write.
        labels: The classes in the order of the logits.
        preprocessing: From an image to the module's input, or the text that `Preprocessing.parse` reads.
        calibrate: A folder of images that choose and fit; with a folder per class they fit the scores' temperature too.
        check: A folder of labelled images, one folder per class, that can only veto. One of the two is needed.
        options: Precision, graph and bounds; the defaults where it is None.

    Raises:
        OptionError: Neither folder is given, the file exists, or labels and outputs differ in number.
        ExportError: A step failed, or its answers broke its bounds.
        ImageError, DataError: The images are not usable.
    """
    from ..reference import digest
    from ..runtime.preprocess import Preprocessing
    from .network import TorchNetwork

    chosen = options or Options()
    if len(chosen.targets) > 1:
        raise OptionError("one call makes one file; give one target, or use `run`")
    events: Any = run(
        TorchNetwork(module),
        labels=Labels.of(labels),
        preprocessing=Preprocessing.parse(preprocessing) if isinstance(preprocessing, str) else preprocessing,
        output=Path(output),
        source=Source(type(module).__name__, digest(module), {}),
        calibrate=None if calibrate is None else Path(calibrate),
        check=None if check is None else Path(check),
        options=chosen,
    )
    *_, result = events
    assert isinstance(result, Export)
    return result

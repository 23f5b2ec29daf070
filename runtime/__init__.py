"""Runs a model file on a device: numpy, ONNX Runtime and OpenCV, never torch.

The folder works by itself: copied into another application, under any name, it imports nothing outside.
"""

from typing import TYPE_CHECKING, Any

from .errors import ImageError, ModelError, ProviderError, VitEdgeError
from .labels import Label, Labels

if TYPE_CHECKING:
    from .classifier import Classifier, Prediction, Score
    from .metadata import Metadata
    from .preprocess import Preprocessing

__all__ = [
    "Classifier",
    "ImageError",
    "Label",
    "Labels",
    "Metadata",
    "ModelError",
    "Prediction",
    "Preprocessing",
    "ProviderError",
    "Score",
    "VitEdgeError",
]

# These need ONNX Runtime or OpenCV, which the command line's help does without.
_HOMES = {
    "Classifier": "classifier",
    "Prediction": "classifier",
    "Score": "classifier",
    "Metadata": "metadata",
    "Preprocessing": "preprocess",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)

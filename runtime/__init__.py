"""Runs a model file on a device: numpy, ONNX Runtime and OpenCV, never torch.

The folder works by itself: copied into another application, under any name, it imports nothing outside.
"""

from typing import TYPE_CHECKING, Any

from .errors import (
    ImageError,
    ModelError,
    ProviderError,
    SinkError,
    SourceError,
    VitEdgeError,
    WatchError,
)
from .labels import Label, Labels

if TYPE_CHECKING:
    from .answer import Answer
    from .classifier import Classifier
    from .compile import Compiled, compile_model
    from .frame import Frame
    from .image import read_image
    from .loop import Watch, watch
    from .metadata import Metadata
    from .prediction import Prediction, Score
    from .preprocess import Preprocessing
    from .sinks import Fan, GrabSink, JsonSink, RecordSink, Sink, TextSink, WindowSink
    from .sources import Capture, Gap, Source, open_source
    from .summary import Summary

__all__ = [
    "Answer",
    "Capture",
    "Classifier",
    "Compiled",
    "Fan",
    "Frame",
    "Gap",
    "GrabSink",
    "ImageError",
    "JsonSink",
    "Label",
    "Labels",
    "Metadata",
    "ModelError",
    "Prediction",
    "Preprocessing",
    "ProviderError",
    "RecordSink",
    "Score",
    "Sink",
    "SinkError",
    "Source",
    "SourceError",
    "Summary",
    "TextSink",
    "VitEdgeError",
    "Watch",
    "WatchError",
    "WindowSink",
    "compile_model",
    "open_source",
    "read_image",
    "watch",
]

# These need ONNX Runtime or OpenCV, which the command line's help does without.
_HOMES = {
    "Answer": "answer",
    "Watch": "loop",
    "watch": "loop",
    "Summary": "summary",
    **dict.fromkeys(("Fan", "GrabSink", "JsonSink", "RecordSink", "Sink", "TextSink", "WindowSink"), "sinks"),
    "Classifier": "classifier",
    "Prediction": "prediction",
    "Score": "prediction",
    "Compiled": "compile",
    "compile_model": "compile",
    "Metadata": "metadata",
    "Preprocessing": "preprocess",
    "Frame": "frame",
    "Capture": "sources",
    "Gap": "sources",
    "Source": "sources",
    "open_source": "sources",
    "read_image": "image",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)

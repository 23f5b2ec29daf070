"""Passes that go wrong in the ways that native code does."""

import ctypes
import os
import time
from dataclasses import dataclass

import onnx
from onnx import numpy_helper

from vit_edge.export.graph import copy


@dataclass(frozen=True)
class Segfault:
    """Reads address 0."""

    def __call__(self, model: onnx.ModelProto) -> onnx.ModelProto:
        ctypes.string_at(0)
        return model


@dataclass(frozen=True)
class Abort:
    """Ends itself as a failed C++ assertion does."""

    def __call__(self, model: onnx.ModelProto) -> onnx.ModelProto:
        os.abort()


@dataclass(frozen=True)
class Exit:
    """Ends its process as if all were well."""

    def __call__(self, model: onnx.ModelProto) -> onnx.ModelProto:
        os._exit(0)


@dataclass(frozen=True)
class Hang:
    """Never comes back."""

    def __call__(self, model: onnx.ModelProto) -> onnx.ModelProto:
        time.sleep(600)
        return model


@dataclass(frozen=True)
class Fail:
    """Raises, and has written bytes that are no text before."""

    reason: str = "the shapes do not fit"

    def __call__(self, model: onnx.ModelProto) -> onnx.ModelProto:
        os.write(2, b"\xff\xfe native noise\n")
        raise ValueError(self.reason)


@dataclass(frozen=True)
class Scale:
    """Multiplies all matrices, and so damages the answers without breaking the graph."""

    factor: float = 0.5

    def __call__(self, model: onnx.ModelProto) -> onnx.ModelProto:
        twin = copy(model)
        for tensor in twin.graph.initializer:
            if len(tensor.dims) == 2:
                tensor.CopyFrom(
                    numpy_helper.from_array(numpy_helper.to_array(tensor) * self.factor, tensor.name)
                )
        return twin


@dataclass(frozen=True)
class Tear:
    """Takes the last node away, so that the graph has no output any more."""

    def __call__(self, model: onnx.ModelProto) -> onnx.ModelProto:
        twin = copy(model)
        del twin.graph.node[-1]
        return twin


@dataclass(frozen=True)
class Rename:
    """Names the first node after the words that it was given, so that these can be seen on the other side."""

    words: tuple[str, ...] = ()

    def __call__(self, model: onnx.ModelProto) -> onnx.ModelProto:
        twin = copy(model)
        twin.graph.node[0].name = f"{type(self.words).__name__} {'+'.join(self.words)}"
        return twin

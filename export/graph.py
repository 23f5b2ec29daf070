"""Looks at an ONNX graph: its weights, and its linear layers by structure, never by name."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper


@dataclass(frozen=True, slots=True)
class Linear:
    """A product with constant weights, alone or inside a fused attention.

    Attributes:
        node: The name of its node.
        input: The name of the tensor that is multiplied, its last axis the channels.
        weight: The name of the weights.
        splits: Whether single channels can be taken out of it.
    """

    node: str
    input: str
    weight: str
    splits: bool


def copy(model: onnx.ModelProto) -> onnx.ModelProto:
    """Copy a model, so that a pass can leave its argument as it was."""
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    return twin


def linears(model: onnx.ModelProto) -> Iterator[Linear]:
    """Give every product whose second factor is a constant matrix, in graph order."""
    matrices = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 2}
    for node in model.graph.node:
        product = (node.domain, node.op_type) in (("", "MatMul"), ("com.microsoft", "Attention"))
        if product and node.input[1] in matrices:
            yield Linear(node.name, node.input[0], node.input[1], splits=node.op_type == "MatMul")


def without_notes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop what an exporter notes beside the graph: source lines, stack traces, paths of the machine.

    They tell a stranger where the model was made, and are a good part of a small file.
    """
    bare = copy(model)
    bare.doc_string = bare.graph.doc_string = ""
    del bare.metadata_props[:]
    del bare.graph.metadata_props[:]
    del bare.graph.value_info[:]
    for part in (*bare.graph.node, *bare.graph.input, *bare.graph.output, *bare.graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]
    return bare


def named(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give every node a name of its own: quantizers tell nodes apart by name only, and exporters leave it out."""
    twin, taken = copy(model), set[str]()
    for index, node in enumerate(twin.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{index}"
        taken.add(node.name)
    return twin


def weight(model: onnx.ModelProto, name: str) -> NDArray[np.float32]:
    """Give an initializer's values."""
    return numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == name))

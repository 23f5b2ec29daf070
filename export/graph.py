"""Looks at an ONNX graph: its weights, and its linear layers by structure, never by name."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

MASSIVE_SUFFIX = "_massive"
"""What the name of a product of massive channels ends with."""

PATCHES_SUFFIX = "_patches"
"""What the name of the product of raw patches ends with."""


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
    """Give the products whose second factor is a constant matrix, in graph order, but for those that `stands_apart`."""
    matrices = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 2}
    for node in model.graph.node:
        product = (node.domain, node.op_type) in (("", "MatMul"), ("com.microsoft", "Attention"))
        if product and node.input[1] in matrices and not stands_apart(node.name):
            yield Linear(node.name, node.input[0], node.input[1], splits=node.op_type == "MatMul")


def takes_bytes(model: onnx.ModelProto) -> bool:
    """Tell whether a graph's input is raw pixels, (batch, height, width, 3) uint8."""
    return bool(model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8)


def fixed_batch(model: onnx.ModelProto) -> int | None:
    """Give the only batch size that a graph takes; None where it takes any."""
    side = model.graph.input[0].type.tensor_type.shape.dim[0]
    return side.dim_value if side.HasField("dim_value") else None


def stands_apart(name: str | None) -> bool:
    """Tell by a product's name whether it is one that another pass set apart from the network's linear layers.

    One of massive channels stays in float, and that of raw patches is quantized in a way of its own.
    """
    return (name or "").endswith((MASSIVE_SUFFIX, PATCHES_SUFFIX))


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

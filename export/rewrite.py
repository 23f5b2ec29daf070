"""Reading and rewriting a graph by its structure: what feeds what, and the shapes that really occur."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common
from numpy.typing import NDArray

from ..runtime.session import open_session
from .graph import copy

Shapes = dict[str, tuple[tuple[int, int], ...]]
"""For each tensor its sides as observed at batch 2 and at batch 3; a side that is free of the batch is a pair (n, n)."""

_OBSERVED_BATCHES = (2, 3)


@dataclass(frozen=True, slots=True)
class Affine:
    """A linear layer as it stands in a graph: y = x W + b.

    Attributes:
        product: The MatMul node.
        output: The value after the bias, or after the product where there is none.
        weight: (inputs, outputs) float32.
        bias: (outputs,) float32, or None.
    """

    product: ir.Node
    output: ir.Value
    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None

    @property
    def input(self) -> ir.Value:
        """The value that is multiplied."""
        value = self.product.inputs[0]
        assert value is not None
        return value


def observe_shapes(model: onnx.ModelProto) -> Shapes:
    """Run a graph at two batch sizes and note every tensor's shape.

    Symbolic inference loses its way in the shapes that exporters compute; what really comes out does not.
    """
    watched = copy(model)
    outputs = {output.name for output in watched.graph.output}
    names = [name for node in watched.graph.node for name in node.output if name and name not in outputs]
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = open_session(watched.SerializeToString(), name="the graph")
    source = session.get_inputs()[0]
    fixed = source.shape[0] if isinstance(source.shape[0], int) else None
    found = []
    for batch in (fixed, fixed) if fixed else _OBSERVED_BATCHES:
        pixels = np.zeros((batch, *source.shape[1:]), np.uint8 if "uint8" in source.type else np.float32)
        values = session.run(None, {source.name: pixels})
        shapes = {o.name: v.shape for o, v in zip(session.get_outputs(), values, strict=True)}
        found.append(shapes | {source.name: pixels.shape})
    return {
        name: tuple(zip(shape, found[1][name], strict=True))
        for name, shape in found[0].items()
        if len(shape) == len(found[1][name])
    }


def constant(value: ir.Value | None) -> NDArray[np.generic] | None:
    """Give a value that is an initializer or a Constant node, else None."""
    if value is None:
        return None
    tensor = ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def scalar(value: ir.Value | None) -> float | None:
    """Give a constant of one element, else None."""
    array = constant(value)
    return float(array.reshape(())) if array is not None and array.size == 1 else None


def affine(value: ir.Value | None) -> Affine | None:
    """Read a value as the output of a linear layer with constant weights, else None."""
    node = value.producer() if value is not None else None
    if node is None or value is None:
        return None
    bias = None
    if node.op_type == "Add":
        for place in (0, 1):
            array = constant(node.inputs[place])
            other = node.inputs[1 - place]
            if array is not None and array.ndim == 1 and other is not None and other.producer() is not None:
                bias, node = array, other.producer()
                break
    if node is None or node.op_type != "MatMul":
        return None
    weight = constant(node.inputs[1])
    if weight is None or weight.ndim != 2:
        return None
    return Affine(
        node, value, weight.astype(np.float32), None if bias is None else bias.astype(np.float32)
    )


def consumers(value: ir.Value) -> list[ir.Node]:
    """Give the nodes that take a value."""
    return [usage.node for usage in value.uses()]


def only_consumer(value: ir.Value) -> ir.Node | None:
    """Give the one node that takes a value; None where there are several, or where it is an output."""
    nodes = consumers(value)
    return nodes[0] if len(nodes) == 1 and not value.is_graph_output() else None


def walk(graph: ir.Graph, op_type: str) -> Iterator[ir.Node]:
    """Give the nodes of a type, in graph order, safe against changes on the way."""
    yield from [node for node in graph if node.op_type == op_type]


def add_constant(graph: ir.Graph, name: str, array: NDArray[np.generic]) -> ir.Value:
    """Add an initializer under a name that is not taken yet."""
    taken = graph.initializers
    unique, number = name, 1
    while unique in taken:
        unique, number = f"{name}_{number}", number + 1
    value = ir.Value(
        name=unique,
        type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
        shape=ir.Shape(array.shape),
        const_value=ir.tensor(array, name=unique),
    )
    graph.register_initializer(value)
    return value


def insert_before(anchor: ir.Node, nodes: Iterable[ir.Node]) -> None:
    """Insert nodes in front of another."""
    graph = anchor.graph
    assert graph is not None
    graph.insert_before(anchor, nodes)


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """Drop what is dead, sort, name, and give the protobuf."""
    onnx_ir.passes.common.RemoveUnusedNodesPass()(model)
    model.graph.sort()
    onnx_ir.passes.common.NameFixPass()(model)
    proto: onnx.ModelProto = ir.to_proto(model)
    del proto.graph.value_info[:]
    return proto

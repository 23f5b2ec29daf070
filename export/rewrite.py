"""Reading and rewriting a graph by its structure: what feeds what, and the shapes that really occur."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common
from numpy.typing import NDArray

from ..runtime.session import open_session
from .graph import copy

Shape = tuple[tuple[int, int], ...]
"""A tensor's sides as observed at batch 2 and at batch 3; one that does not depend on the batch is a pair (n, n)."""


TOKENWISE = frozenset(
    (
        "Add",
        "Sub",
        "Mul",
        "Div",
        "LayerNormalization",
        "Gelu",
        "QuickGelu",
        "Erf",
        "Tanh",
        "Sigmoid",
        "Relu",
        "Identity",
    )
)
"""Operators that treat every token by itself, beside others of the same shape and constants along the channels."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What came out of every node of a graph when it ran.

    Attributes:
        shapes: The shape of each tensor.
        zeros: Tensors that hold nothing but zeros (or False): masks that mask nothing, tests for what never occurs.
    """

    shapes: Mapping[str, Shape]
    zeros: frozenset[str]

    def shape(self, value: ir.Value | None) -> Shape | None:
        """Give a value's shape, where it was observed."""
        return None if value is None else self.shapes.get(value.name or "")

    def is_tokens(self, value: ir.Value | None) -> bool:
        """Tell whether a value is (batch, tokens, channels)."""
        shape = self.shape(value)
        return shape is not None and len(shape) == 3 and varies(shape[0]) and not varies(shape[1])


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


def observe(model: onnx.ModelProto) -> Observed:
    """Run a graph on noise at two batch sizes and note what comes out of every node.

    Symbolic inference loses its way in the shapes that exporters compute; what really comes out does not.
    """
    watched = copy(model)
    outputs = {output.name for output in watched.graph.output}
    names = [name for node in watched.graph.node for name in node.output if name and name not in outputs]
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = open_session(watched.SerializeToString(), name="the graph")
    source = session.get_inputs()[0]
    fixed = source.shape[0] if isinstance(source.shape[0], int) else None
    noise = np.random.default_rng(0)
    shapes, zeros = [], []
    for batch in (fixed, fixed) if fixed else _OBSERVED_BATCHES:
        shape = (batch, *source.shape[1:])
        pixels = (
            noise.integers(256, size=shape, dtype=np.uint8)
            if source.type == "tensor(uint8)"
            else noise.standard_normal(shape, np.float32)
        )
        values = dict(
            zip(
                (o.name for o in session.get_outputs()), session.run(None, {source.name: pixels}), strict=True
            )
        )
        shapes.append({name: value.shape for name, value in values.items()} | {source.name: pixels.shape})
        zeros.append({name for name, value in values.items() if not np.any(value)})
    return Observed(
        {
            name: tuple(zip(shape, shapes[1][name], strict=True))
            for name, shape in shapes[0].items()
            if len(shape) == len(shapes[1][name])
        },
        frozenset(zeros[0] & zeros[1]),
    )


def varies(side: tuple[int, int]) -> bool:
    """Tell whether a side of a shape depends on the batch."""
    return side[0] != side[1]


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
    bias, part = None, value
    if node.op_type == "Add":
        for place in (0, 1):
            array = constant(node.inputs[place])
            other = node.inputs[1 - place]
            if array is not None and array.ndim == 1 and other is not None and other.producer() is not None:
                bias, part, node = array, other, other.producer()
                break
    columns = slice(None)
    if node is not None and node.op_type == "Split":
        # Simplifiers join the products of one input, and split the result.
        found = _split_columns(node, part)
        source = node.inputs[0]
        if found is None or source is None:
            return None
        columns, node = found, source.producer()
    if node is None or node.op_type != "MatMul":
        return None
    weight = constant(node.inputs[1])
    if weight is None or weight.ndim != 2:
        return None
    return Affine(
        node,
        value,
        weight[:, columns].astype(np.float32),
        None if bias is None else bias.astype(np.float32),
    )


def _split_columns(node: ir.Node, part: ir.Value) -> slice | None:
    """Give the columns that an output of a Split along the last axis holds."""
    sizes = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if sizes is None or node.attributes.get_int("axis", 0) not in (-1, 2):
        return None
    ends = np.cumsum(sizes)
    index = part.index()
    assert index is not None
    return slice(int(ends[index] - sizes[index]), int(ends[index]))


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


class Builder:
    """Appends nodes to a graph under one prefix; the graph is sorted when it is done."""

    def __init__(self, graph: ir.Graph, prefix: str) -> None:
        self._graph = graph
        self._prefix = prefix

    def constant(self, name: str, array: NDArray[np.generic]) -> ir.Value:
        """Add an initializer."""
        return add_constant(self._graph, f"{self._prefix}_{name}", array)

    def integers(self, name: str, *numbers: int) -> ir.Value:
        """Add an initializer (numbers,) int64: a shape, axes, places."""
        return self.constant(name, np.array(numbers, np.int64))

    def node(
        self,
        op_type: str,
        name: str,
        outputs: int,
        *inputs: ir.Value,
        domain: str = "",
        **attributes: int | list[int],
    ) -> ir.Node:
        """Append a node with so many outputs."""
        node = ir.node(
            op_type,
            list(inputs),
            attributes,
            domain=domain,
            num_outputs=outputs,
            name=f"{self._prefix}_{name}",
        )
        self._graph.append(node)
        return node

    def __call__(
        self, op_type: str, name: str, *inputs: ir.Value, domain: str = "", **attributes: int | list[int]
    ) -> ir.Value:
        """Append a node with one output, and give that."""
        return self.node(op_type, name, 1, *inputs, domain=domain, **attributes).outputs[0]


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """Sort, drop what is dead, name, and give the protobuf."""
    # What is dead is looked for once, from the end.
    model.graph.sort()
    onnx_ir.passes.common.RemoveUnusedNodesPass()(model)
    onnx_ir.passes.common.NameFixPass()(model)
    proto: onnx.ModelProto = ir.to_proto(model)
    del proto.graph.value_info[:]
    return proto

"""Static INT8 in the form that execution providers share: QuantizeLinear and DequantizeLinear around products."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from ...errors import ExportError
from ...quantizers import Grid, Range, quantized_weights
from ..graph import stands_apart
from ..rewrite import add_constant, constant, insert_before, to_proto
from .fuse_attention import CONTRIB

Kind = Literal["linear", "patches", "attention", "scores", "mixture"]


@dataclass(frozen=True, slots=True)
class Site:
    """A product that can be quantized.

    Attributes:
        node: The name of its node.
        kind: ``linear``: MatMul with constant weights; ``patches``: Conv; ``attention``: ONNX Runtime's fused
            operator; ``scores``: attention's queries by keys; ``mixture``: its shares by values.
        inputs: The tensors whose ranges its quantization needs.
    """

    node: str
    kind: Kind
    inputs: tuple[str, ...]


def sites(model: onnx.ModelProto) -> tuple[Site, ...]:
    """Give every product of a graph that can be quantized, in graph order."""
    return tuple(
        Site(node.name or "", kind, tuple(value.name or "" for value in _activations(node, kind)))
        for node, kind in _found(ir.from_proto(model).graph)
    )


@dataclass(frozen=True)
class QuantizeStatic:
    """Quantize products with ranges fixed beforehand; biases, norms, softmax and sums stay in float.

    Weights are int8, symmetric, one scale per output. Activations are uint8 with a zero point, or int8 around 0
    where *symmetric*, one scale per tensor. Behind a reshape that mixes tokens and batch OpenVINO's provider does not
    compile such weights: run `Unflatten` before.

    Attributes:
        ranges: For the name of each input of a product the range of its values.
        method: How the ranges were chosen, for the record.
        symmetric: Whether activations are int8 with zero point 0.
        weight_bits: 8, or 7 for processors that add pairs of products in 16 bits.
        keep_float: Names of the products that stay in float.
        products: Whether attention's own two products, of activations, are quantized as well.
    """

    ranges: Mapping[str, Range] = field(repr=False, compare=False)
    method: str
    symmetric: bool = False
    weight_bits: int = 8
    keep_float: tuple[str, ...] = ()
    products: bool = False

    def __call__(self, model: onnx.ModelProto) -> onnx.ModelProto:
        twin = ir.from_proto(model)
        quantized = _Quantized(twin.graph, self)
        for node, kind in list(_found(twin.graph)):
            if node.name in self.keep_float or (kind in ("scores", "mixture") and not self.products):
                continue
            if kind == "attention":
                quantized.attention(node)
            else:
                quantized.product(node, kind)
        return to_proto(twin)


def _found(graph: ir.Graph) -> Iterator[tuple[ir.Node, Kind]]:
    for node in graph:
        if (node.domain, node.op_type) == (CONTRIB, "Attention"):
            if len(node.inputs) == 3 and constant(node.inputs[1]) is not None:
                yield node, "attention"
        elif node.domain not in ("", "ai.onnx") or node.op_type not in ("MatMul", "Conv"):
            continue
        elif node.op_type == "Conv":
            if constant(node.inputs[1]) is not None:
                yield node, "patches"
        elif (weight := constant(node.inputs[1])) is not None:
            if weight.ndim == 2 and not stands_apart(node.name):
                yield node, "linear"
        elif constant(node.inputs[0]) is None:
            yield node, "mixture" if _is_softmax(node.inputs[0]) else "scores"


def _is_softmax(value: ir.Value | None) -> bool:
    """Tell whether a value is a softmax, behind whatever is done to what it holds element by element."""
    node = value.producer() if value is not None else None
    while node is not None and node.op_type in ("Where", "Dropout", "Identity", "Cast"):
        value = node.inputs[2] if node.op_type == "Where" else node.inputs[0]
        node = value.producer() if value is not None else None
    return node is not None and node.op_type == "Softmax"


def _activations(node: ir.Node, kind: Kind) -> tuple[ir.Value, ...]:
    both = kind in ("scores", "mixture")
    return tuple(value for value in node.inputs[: 2 if both else 1] if value is not None)


class _Quantized:
    """The quantized forms of a graph's tensors, each made once."""

    def __init__(self, graph: ir.Graph, step: QuantizeStatic) -> None:
        self._graph = graph
        self._step = step
        self._stored: dict[tuple[ir.Value, bool], tuple[ir.Value, ir.Value, ir.Value]] = {}
        self._restored: dict[ir.Value, ir.Value] = {}

    def product(self, node: ir.Node, kind: Kind) -> None:
        """Put QDQ in front of a product's activations, and DQ behind its stored weights."""
        for place, value in enumerate(_activations(node, kind)):
            node.replace_input_with(place, self._activation(value, node))
        weight = constant(node.inputs[1])
        if weight is None:
            return
        # A Conv's weights have their outputs first.
        axis = 0 if kind == "patches" else 1
        parts = self._weight(node, weight.astype(np.float32), axis)
        restored = ir.node("DequantizeLinear", parts, {"axis": axis}, name=f"{node.name}_weight_restored")
        insert_before(node, [restored])
        node.replace_input_with(1, restored.outputs[0])

    def attention(self, node: ir.Node) -> None:
        """Put ONNX Runtime's quantized attention in the place of its float one; it has no form in QDQ."""
        source, weight, bias = node.inputs[0], constant(node.inputs[1]), node.inputs[2]
        assert source is not None
        assert weight is not None
        # The operator takes unsigned tokens only, and runs on no provider that would want others.
        stored, scale, zero = self._store(source, node, symmetric=False)
        matrix, weight_scale, weight_zero = self._weight(node, weight.astype(np.float32), 1)
        inputs = [stored, matrix, bias, scale, weight_scale, None, zero, weight_zero]
        attributes = {"num_heads": node.attributes.get_int("num_heads")}
        quantized = ir.node("QAttention", inputs, attributes, domain=CONTRIB, name=f"{node.name}_quantized")
        insert_before(node, [quantized])
        old, taken = node.outputs[0], node.outputs[0].name
        ir.convenience.replace_all_uses_with(old, quantized.outputs[0], replace_graph_outputs=True)
        # The output keeps its name, by which ranges are known and graphs put together layer by layer.
        self._graph.remove(node, safe=True)
        quantized.outputs[0].name = taken

    def _activation(self, value: ir.Value, before: ir.Node) -> ir.Value:
        if value not in self._restored:
            parts = self._store(value, before, symmetric=self._step.symmetric)
            restored = ir.node("DequantizeLinear", parts, name=f"{value.name}_restored")
            insert_before(before, [restored])
            self._restored[value] = restored.outputs[0]
        return self._restored[value]

    def _store(
        self, value: ir.Value, before: ir.Node, *, symmetric: bool
    ) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Give an activation in 8 bits, its scale, and its zero point."""
        key = value, symmetric
        if key not in self._stored:
            span = self._step.ranges.get(value.name or "")
            if span is None:
                raise ExportError(
                    f"there is no range for the tensor {value.name}; collect the ranges on the graph that is quantized"
                )
            grid = Grid.over(span, symmetric=symmetric)
            kind = np.int8 if symmetric else np.uint8
            scale = add_constant(self._graph, f"{value.name}_scale", np.array(grid.scale, np.float32))
            zero = add_constant(self._graph, f"{value.name}_zero", np.array(grid.zero, kind))
            stored = ir.node("QuantizeLinear", [value, scale, zero], name=f"{value.name}_stored")
            insert_before(before, [stored])
            self._stored[key] = stored.outputs[0], scale, zero
        return self._stored[key]

    def _weight(
        self, node: ir.Node, weight: NDArray[np.float32], axis: int
    ) -> tuple[ir.Value, ir.Value, ir.Value]:
        stored, scale = quantized_weights(weight, bits=self._step.weight_bits, axis=axis)
        return (
            add_constant(self._graph, f"{node.name}_weight", stored),
            add_constant(self._graph, f"{node.name}_weight_scale", scale),
            add_constant(self._graph, f"{node.name}_weight_zero", np.zeros(scale.size, np.int8)),
        )

"""Layer norms that older operator sets write in single operators, as the one operator of newer sets."""

from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from ..rewrite import (
    Observed,
    Shape,
    add_constant,
    constant,
    insert_before,
    observe,
    only_consumer,
    scalar,
    to_proto,
    walk,
)

# The first operator set with LayerNormalization.
_OPSET = 17


@dataclass(frozen=True)
class FuseNorms:
    """Write (x - E[x]) / √(E[(x - E[x])²] + ε) · gain + shift, over the channels, as ``LayerNormalization``.

    Below opset 17 there was no such operator, and converters of versions leave what was written as it is. Passes that
    look for norms, or for operators that treat every token by itself, then find them. A graph of an older operator
    set stays as it was.
    """

    def __call__(self, model: onnx.ModelProto) -> onnx.ModelProto:
        twin = ir.from_proto(model)
        quotients = [norm for node in walk(twin.graph, "Div") if (norm := _norm(node)) is not None]
        if quotients and twin.opset_imports.get("", 0) >= _OPSET:
            observed = observe(model)
            for norm in quotients:
                _fuse(norm, twin.graph, observed)
        return to_proto(twin)


@dataclass(frozen=True, slots=True)
class _Norm:
    """A norm before gain and shift, as it stands in a graph.

    Attributes:
        quotient: The node that ends it.
        means: The nodes that take means, of what is normed in front and of the squares behind.
        epsilon: What is added to the variance.
    """

    quotient: ir.Node
    means: tuple[ir.Node, ...]
    epsilon: float

    @property
    def source(self) -> ir.Value:
        """What is normed: read when it is asked for, since it may be another norm that was fused meanwhile."""
        value = self.means[0].inputs[0]
        assert value is not None
        return value


def _norm(quotient: ir.Node) -> _Norm | None:
    """Read a quotient as the end of a norm, whatever its axes; None where it is none."""
    mean = _mean(quotient.inputs[0])
    root = _made_by(quotient.inputs[1], "Sqrt")
    total = _made_by(root.inputs[0], "Add") if root is not None else None
    if mean is None or total is None:
        return None
    for place in (0, 1):
        epsilon, variance = constant(total.inputs[place]), _made_by(total.inputs[1 - place], "ReduceMean")
        # Its type is that of all the others.
        if epsilon is None or epsilon.size != 1 or epsilon.dtype != np.float32 or variance is None:
            continue
        # Some exporters subtract the mean a second time.
        again = _mean(_squared(variance.inputs[0]))
        if again is not None and again.inputs[0] is mean.inputs[0]:
            return _Norm(quotient, (mean, again, variance), float(epsilon.reshape(())))
    return None


def _mean(value: ir.Value | None) -> ir.Node | None:
    """Read a value as x - E[x], and give the node that takes the mean."""
    difference = _made_by(value, "Sub")
    mean = _made_by(difference.inputs[1], "ReduceMean") if difference is not None else None
    if difference is None or mean is None or mean.inputs[0] is not difference.inputs[0]:
        return None
    return mean


def _squared(value: ir.Value | None) -> ir.Value | None:
    """Give that of which a value is the square."""
    power, product = _made_by(value, "Pow"), _made_by(value, "Mul")
    if power is not None and scalar(power.inputs[1]) == 2:
        return power.inputs[0]
    if product is not None and product.inputs[0] is product.inputs[1]:
        return product.inputs[0]
    return None


def _made_by(value: ir.Value | None, op_type: str) -> ir.Node | None:
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == op_type and node.domain in ("", "ai.onnx") else None


def _axes(mean: ir.Node) -> tuple[int, ...] | None:
    """Give the axes over which a mean is taken: an attribute up to opset 17, an input from 18 on."""
    if len(mean.inputs) > 1:
        axes = constant(mean.inputs[1])
        return None if axes is None else tuple(int(axis) for axis in axes.ravel())
    return tuple(mean.attributes.get_ints("axes", ())) or None


def _fuse(norm: _Norm, graph: ir.Graph, observed: Observed) -> None:
    shape = observed.shape(norm.source) or ()
    axes = [(-1,), (len(shape) - 1,)]
    if not shape or any(
        _axes(mean) not in axes or mean.attributes.get_int("keepdims", 1) != 1 for mean in norm.means
    ):
        return
    end, gain = _vector(norm.quotient.outputs[0], "Mul", shape)
    end, shift = _vector(end, "Add", shape)
    channels = shape[-1][0]
    name = norm.quotient.name or "norm"
    fused = ir.node(
        "LayerNormalization",
        [
            norm.source,
            add_constant(graph, f"{name}_gain", np.ones(channels, np.float32) if gain is None else gain),
            add_constant(graph, f"{name}_shift", np.zeros(channels, np.float32) if shift is None else shift),
        ],
        {"axis": -1, "epsilon": norm.epsilon},
        name=f"{name}_norm",
    )
    last, taken = end.producer(), end.name
    assert last is not None
    insert_before(last, [fused])
    ir.convenience.replace_all_uses_with(end, fused.outputs[0], replace_graph_outputs=True)
    # The output keeps its name, under which its shape is known to a norm of it, and the graph's output to all.
    graph.remove(last, safe=True)
    fused.outputs[0].name = taken


def _vector(value: ir.Value, op_type: str, shape: Shape) -> tuple[ir.Value, NDArray[np.float32] | None]:
    """Give what a value becomes where a vector is multiplied with it or added to it next, and that vector."""
    node = only_consumer(value)
    if node is None or node.op_type != op_type:
        return value, None
    array = constant(node.inputs[1 if node.inputs[0] is value else 0])
    channels = shape[-1][0]
    if array is None or array.ndim > len(shape):
        return value, None
    # One number for all channels, or (1, 1, channels), says the same as a vector.
    if array.size != 1 and not array.size == array.shape[-1] == channels:
        return value, None
    return node.outputs[0], np.resize(array.astype(np.float32), channels)

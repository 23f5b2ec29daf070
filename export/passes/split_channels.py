"""Massive channels of a linear layer's input in a product of their own, which stays in float."""

from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from ..graph import MASSIVE_SUFFIX
from ..rewrite import add_constant, constant, insert_before, to_proto, walk


@dataclass(frozen=True)
class SplitChannels:
    """Write x W as (x with some channels zero) W + (those channels) (their rows of W): the same in exact arithmetic.

    Quantized, the first product's scale spans the ordinary channels alone, and the second is small enough to stay in
    float (the idea of LLM.int8(), Dettmers et al. 2022, section 3.2, with the channels fixed beforehand).

    Attributes:
        channels: For each product's name the channels of its input to take out.
    """

    channels: tuple[tuple[str, tuple[int, ...]], ...]

    def __call__(self, model: onnx.ModelProto) -> onnx.ModelProto:
        twin = ir.from_proto(model)
        chosen = dict(self.channels)
        for node in walk(twin.graph, "MatMul"):
            if node.name in chosen:
                _split(node, np.array(chosen[node.name], np.int64), twin.graph)
        return to_proto(twin)


def _split(node: ir.Node, channels: np.ndarray, graph: ir.Graph) -> None:
    source, weight, product = node.inputs[0], constant(node.inputs[1]), node.outputs[0]
    assert source is not None
    assert weight is not None
    mask = np.ones(weight.shape[0], np.float32)
    mask[channels] = 0
    rest = ir.node("Mul", [source, add_constant(graph, f"{node.name}_mask", mask)], name=f"{node.name}_rest")
    picked = ir.node(
        "Gather",
        [source, add_constant(graph, f"{node.name}_channels", channels)],
        {"axis": -1},
        name=f"{node.name}_pick",
    )
    rows = add_constant(graph, f"{node.name}_rows", np.ascontiguousarray(weight[channels]))
    extra = ir.node("MatMul", [picked.outputs[0], rows], name=f"{node.name}{MASSIVE_SUFFIX}")
    total = ir.node("Add", [product, extra.outputs[0]], name=f"{node.name}_total")
    insert_before(node, [rest, picked, extra])
    node.replace_input_with(0, rest.outputs[0])
    ir.convenience.replace_all_uses_with(product, total.outputs[0])
    graph.insert_after(node, [total])
    total.replace_input_with(0, product)

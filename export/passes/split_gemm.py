"""Writes Gemm as MatMul and Add, the form that quantizers match."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..graph import copy, weight


@dataclass(frozen=True)
class SplitGemm:
    """Write every Gemm with constant weights as a MatMul and an Add; the results are the same.

    Simplifiers make the opposite change, and ONNX Runtime's dynamic quantizer only knows the product by itself.
    """

    def __call__(self, model: onnx.ModelProto) -> onnx.ModelProto:
        twin = copy(model)
        constants = {tensor.name: tensor for tensor in twin.graph.initializer}
        nodes = [part for node in twin.graph.node for part in _split(node, twin, constants)]
        del twin.graph.node[:]
        twin.graph.node.extend(nodes)
        used = {name for node in nodes for name in node.input}
        kept = [tensor for name, tensor in constants.items() if name in used]
        del twin.graph.initializer[:]
        twin.graph.initializer.extend(kept)
        return twin


def _split(
    node: onnx.NodeProto, model: onnx.ModelProto, constants: dict[str, onnx.TensorProto]
) -> Iterator[onnx.NodeProto]:
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    plain = attributes.get("alpha", 1.0) == attributes.get("beta", 1.0) == 1.0 and not attributes.get(
        "transA"
    )
    if node.op_type != "Gemm" or node.input[1] not in constants or not plain:
        yield node
        return
    factor = node.input[1]
    if attributes.get("transB"):
        factor = f"{node.input[1]}_transposed"
        if factor not in constants:
            values = np.ascontiguousarray(weight(model, node.input[1]).T)
            constants[factor] = numpy_helper.from_array(values, factor)
    if len(node.input) < 3 or not node.input[2]:
        yield helper.make_node("MatMul", [node.input[0], factor], node.output, name=node.name)
        return
    product = f"{node.output[0]}_product"
    yield helper.make_node("MatMul", [node.input[0], factor], [product], name=node.name)
    yield helper.make_node("Add", [product, node.input[2]], node.output, name=f"{node.name}_bias")

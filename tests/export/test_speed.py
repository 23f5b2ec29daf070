"""The race tells which of two graphs is faster, by running them."""

from itertools import pairwise

import numpy as np
import onnx
from onnx import helper, numpy_helper

from vit_edge.export.images import Tick
from vit_edge.export.speed import race

from ..drain import drained


def products(count: int) -> onnx.ModelProto:
    """Make a graph of many products, one after the other."""
    side = 128
    weight = numpy_helper.from_array(np.eye(side, dtype=np.float32), "weight")
    names = ["pixels", *(f"x{number}" for number in range(1, count)), "logits"]
    nodes = [helper.make_node("MatMul", [one, "weight"], [other]) for one, other in pairwise(names)]
    shape: list[str | int | None] = ["batch", 3, side, side]
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("pixels", "logits")
    ]
    graph = helper.make_graph(nodes, "products", ends[:1], ends[1:], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def test_a_graph_that_does_fifty_times_the_work_is_slower_wherever_it_stands() -> None:
    """A race that favoured the first or the last would let a slow INT8 file ship."""
    pixels = np.ones((1, 3, 128, 128), np.float32)
    for order in ((1, 50), (50, 1)):
        ticks, found = drained(race([products(count) for count in order], pixels))
        times = dict(zip(order, found, strict=True))
        assert times[50] > 3 * times[1] > 0
        assert all(isinstance(tick, Tick) for tick in ticks)
        assert ticks[-1].done == ticks[-1].total

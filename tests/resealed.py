"""Changes a finished model file and seals it again, as somebody would who means it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from vit_edge.runtime.seal import BLANK, KEY, seal


def resealed(
    source: Path,
    target: Path,
    change: Callable[[onnx.ModelProto], None] | None = None,
    *,
    entries: dict[str, str | None] | None = None,
) -> Path:
    """Write a changed copy.

    Args:
        source: The file.
        target: The copy.
        change: Changes the graph in place.
        entries: Entries of ``metadata_props`` to put in; None takes one out.
    """
    model = onnx.load(source)
    if change is not None:
        change(model)
    kept = {entry.key: entry.value for entry in model.metadata_props if entry.key != KEY}
    for key, value in (entries or {}).items():
        kept.pop(key, None)
        if value is not None:
            kept[key] = value
    del model.metadata_props[:]
    for key, value in (*kept.items(), (KEY, BLANK.decode())):
        model.metadata_props.add(key=key, value=value)
    target.write_bytes(seal(model.SerializeToString()))
    return target


def swap_head(model: onnx.ModelProto) -> None:
    """Turn the weights that make the logits around, so that every class gets another's."""
    last = max(
        (tensor for tensor in model.graph.initializer if len(tensor.dims) == 2 and tensor.dims[-1] == 10),
        key=lambda tensor: tensor.dims[0],
    )
    last.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(last)[:, ::-1].copy(), last.name))


def slow_down(model: onnx.ModelProto) -> None:
    """Add work that changes no answer: products of large matrices, of which the logits get nothing."""
    side, products = 384, 8
    graph = model.graph
    for node in graph.node:
        for place, name in enumerate(node.output):
            if name == "logits":
                node.output[place] = "answers"
    graph.initializer.append(numpy_helper.from_array(np.eye(side, dtype=np.float32), "large"))
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.float32), "nothing"))
    nodes = [
        helper.make_node("Cast", ["pixels"], ["slow_pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["slow_pixels"], ["slow_mean"], keepdims=0),
        helper.make_node("Mul", ["slow_mean", "large"], ["slow0"]),
        *(
            helper.make_node("MatMul", [f"slow{place}", "large"], [f"slow{place + 1}"])
            for place in range(products)
        ),
        helper.make_node("ReduceMean", [f"slow{products}"], ["slow_sum"], keepdims=0),
        helper.make_node("Mul", ["slow_sum", "nothing"], ["slow_nothing"]),
        helper.make_node("Add", ["answers", "slow_nothing"], ["logits"]),
    ]
    graph.node.extend(nodes)

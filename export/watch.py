"""Runs a graph on images and looks at tensors inside it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from ..runtime.session import open_session
from .rewrite import to_proto


def watch(
    model: onnx.ModelProto, names: Sequence[str], batches: Iterable[NDArray[Any]]
) -> Iterator[Mapping[str, NDArray[Any]]]:
    """Run a graph, as far as it computes some of its tensors, and give these for each batch.

    Args:
        model: A graph.
        names: Tensors of the graph; its input may be among them.
        batches: Inputs of the graph.
    """
    source = model.graph.input[0].name
    inside = [name for name in dict.fromkeys(names) if name != source]
    session = open_session(_up_to(model, inside).SerializeToString(), name="the graph") if inside else None
    for batch in batches:
        values = session.run(inside, {source: batch}) if session is not None else ()
        yield {source: batch} | dict(zip(inside, values, strict=True))


def _up_to(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Cut a graph down to what computes some of its tensors."""
    twin = ir.from_proto(model)
    values = {value.name: value for node in twin.graph for value in node.outputs}
    twin.graph.outputs[:] = [values[name] for name in names]
    return to_proto(twin)

"""Passes in a process of their own, among them some that crash for real."""

import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from vit_edge.errors import ExportError
from vit_edge.export.isolation import run_isolated
from vit_edge.export.passes import Pass, Simplify

from .broken import Abort, Exit, Fail, Hang, Rename, Segfault


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    """Give a product with a constant that a simplifier can fold: (batch, 3) to (batch, 2)."""
    nodes = [
        helper.make_node("Transpose", ["matrix"], ["turned"], name="turn"),
        helper.make_node("MatMul", ["pixels", "turned"], ["logits"], name="product"),
    ]
    values = numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(2, 3), "matrix")
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [values],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def failure(step: Pass, model: onnx.ModelProto, *, timeout_s: float = 60.0) -> str:
    with pytest.raises(ExportError) as caught:
        run_isolated(step, model, timeout_s=timeout_s)
    return str(caught.value)


def test_a_pass_gives_the_same_as_at_home(model: onnx.ModelProto) -> None:
    """The other process is only for safety: the simplified graph comes back whole."""
    simplified = run_isolated(Simplify(), model, timeout_s=60)
    assert [node.op_type for node in simplified.graph.node] == ["MatMul"]
    assert simplified.ir_version == model.ir_version
    assert simplified == Simplify()(model)
    assert len(model.graph.node) == 2


def test_the_fields_of_a_pass_go_with_it(model: onnx.ModelProto) -> None:
    """They pass through JSON, which has no tuples, and a list would change what the file says of the pass."""
    renamed = run_isolated(Rename(("ä", "b")), model, timeout_s=60)
    assert renamed.graph.node[0].name == "tuple ä+b"


@pytest.mark.parametrize(("step", "name"), [(Segfault(), "SIGSEGV"), (Abort(), "SIGABRT")])
def test_a_crash_in_native_code_is_survived_and_named(model: onnx.ModelProto, step: Pass, name: str) -> None:
    """Simplifiers crash on graphs that they don't know; an hour of calibration must not go down with them."""
    assert failure(step, model) == f"{step} crashed ({name})"


def test_a_pass_that_hangs_is_ended(model: onnx.ModelProto) -> None:
    """And not only no longer waited for: it would go on to burn the processor."""
    start = time.monotonic()
    assert failure(Hang(), model, timeout_s=3.0) == "Hang() took longer than 3 s"
    assert time.monotonic() - start < 60


def test_a_pass_that_fails_gives_its_last_line(model: onnx.ModelProto) -> None:
    """The reason is there, without the pages above it, whatever native code wrote before."""
    step = Fail()
    assert failure(step, model) == f"{step} failed (ValueError: the shapes do not fit)"


def test_a_pass_that_leaves_nothing_has_failed(model: onnx.ModelProto) -> None:
    """A library can end its process with status 0; there is no graph then, and no traceback either."""
    assert failure(Exit(), model) == "Exit() ended without a result"

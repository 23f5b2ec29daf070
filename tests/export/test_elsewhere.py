"""Measuring in another interpreter, by real processes; OpenVINO's needs VIT_EDGE_OPENVINO_PYTHON to name one."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from vit_edge.errors import ExportError, OptionError
from vit_edge.export.elsewhere import Elsewhere
from vit_edge.export.images import Runner
from vit_edge.export.passes.static import QuantizeStatic
from vit_edge.export.targets import target

from ..drain import drained

T = TypeVar("T")

OPENVINO = os.environ.get("VIT_EDGE_OPENVINO_PYTHON")
needs_openvino = pytest.mark.skipif(
    OPENVINO is None, reason="VIT_EDGE_OPENVINO_PYTHON names no python with onnxruntime-openvino"
)

SIDE = 16


def model(count: int = 2, side: int = SIDE) -> onnx.ModelProto:
    """Make a graph of products, one after the other."""
    matrix = np.random.default_rng(0).normal(size=(side, side)).astype(np.float32) / side**0.5
    names = ["pixels", *(f"x{number}" for number in range(1, count)), "logits"]
    nodes = [
        helper.make_node("MatMul", [names[place], "weight"], [names[place + 1]], name=f"product{place}")
        for place in range(count)
    ]
    ends = [helper.make_tensor_value_info(name, 1, ["batch", 3, side]) for name in ("pixels", "logits")]
    weight = numpy_helper.from_array(matrix, "weight")
    made = helper.make_graph(nodes, "products", ends[:1], ends[1:], [weight])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def pixels(folder: Path, count: int = 5) -> tuple[Path, NDArray[np.float32]]:
    rows = np.random.default_rng(1).uniform(-1, 1, size=(count, 3, SIDE)).astype(np.float32)
    np.save(folder / "pixels.npy", rows)
    return folder / "pixels.npy", rows


HERE = Elsewhere(target("cpu"))


def test_the_answers_are_those_that_the_graph_gives_here(tmp_path: Path) -> None:
    """The other process only is where they are computed; images come back in their order."""
    path, rows = pixels(tmp_path)
    ticks, logits = drained(HERE.answers(model(), path, threads=1))
    np.testing.assert_allclose(logits, Runner(model())(rows), rtol=1e-5)
    assert [(tick.done, tick.total) for tick in ticks] == [(done, 5) for done in range(1, 6)]


def test_a_graph_that_does_fifty_times_the_work_is_slower_wherever_it_stands() -> None:
    """The times come back in the order of the graphs."""
    side = 512
    one = np.ones((1, 3, side), np.float32)
    for order in ((1, 50), (50, 1)):
        ticks, found = drained(HERE.race([model(count, side) for count in order], one, threads=1))
        times = dict(zip(order, found, strict=True))
        assert times[50] > 3 * times[1] > 0
        assert ticks[-1].done == ticks[-1].total


def test_an_interpreter_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A wrong path is the likeliest mistake, and says nothing of the model."""
    path, _ = pixels(tmp_path)
    work = Elsewhere(target("openvino"), tmp_path / "bin" / "python").answers(model(), path, threads=1)
    with pytest.raises(
        OptionError, match=r"cannot start .*python \(No such file or directory\); give the python"
    ):
        drained(work)


def test_an_interpreter_without_onnxruntime_is_told_what_it_lacks(tmp_path: Path) -> None:
    """The worker's traceback must not reach the user."""
    path, _ = pixels(tmp_path)
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -I "$@"\n')
    bare.chmod(0o755)
    with pytest.raises(
        OptionError, match=r"lacks what .* \(ModuleNotFoundError: No module named 'numpy'\); install"
    ):
        drained(Elsewhere(target("cpu"), bare).answers(model(), path, threads=1))


@pytest.mark.skipif(
    "OpenVINOExecutionProvider" in onnxruntime.get_available_providers(), reason="the provider is here"
)
def test_a_provider_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """ONNX Runtime itself would run the graph on the processor, and the file would claim a speed it never had."""
    path, _ = pixels(tmp_path)
    with pytest.raises(
        ExportError, match=r"there has no OpenVINOExecutionProvider, only .*CPUExecutionProvider"
    ):
        drained(Elsewhere(target("openvino")).answers(model(), path, threads=1))
    with pytest.raises(ExportError, match=r"there has no OpenVINOExecutionProvider"):
        Elsewhere(target("openvino")).require()
    Elsewhere(target("cpu")).require()


def test_a_graph_that_cannot_run_gives_the_reason(tmp_path: Path) -> None:
    """A provider may lack an operator; that is the answer to the question, in one line."""
    path, _ = pixels(tmp_path)
    broken = model()
    broken.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(ExportError, match=r"failed there \(.*NoSuchOperator.*\); mend") as caught:
        drained(HERE.answers(broken, path, threads=1))
    assert "\n" not in str(caught.value)


def test_a_process_that_hangs_is_ended(tmp_path: Path) -> None:
    """Providers that compile for minutes, or wait for a device, must not hang the export."""
    path, _ = pixels(tmp_path)
    slow = tmp_path / "python"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    with pytest.raises(ExportError, match="no result after 1 s"):
        drained(Elsewhere(target("cpu"), slow, timeout_s=1.0).answers(model(), path, threads=1))


@pytest.mark.parametrize(
    ("ending", "text"), [("kill -SEGV $$", r"crashed \(SIGSEGV\)"), ("exit 0", "ended without a result")]
)
def test_a_process_that_dies_is_named(tmp_path: Path, ending: str, text: str) -> None:
    """Native code of a provider can crash, or end its process with status 0."""
    path, _ = pixels(tmp_path)
    dying = tmp_path / "python"
    dying.write_text(f"#!/bin/sh\n{ending}\n")
    dying.chmod(0o755)
    with pytest.raises(ExportError, match=text):
        drained(Elsewhere(target("cpu"), dying).answers(model(), path, threads=1))


@needs_openvino
def test_openvino_answers_a_quantized_graph(tmp_path: Path) -> None:
    """Its products run in 8 bits there, so that the answers are near those of the CPU provider."""
    path, rows = pixels(tmp_path)
    quantized = QuantizeStatic({"pixels": (-1.0, 1.0), "x1": (-3.0, 3.0)}, "minmax")(model())
    there = Elsewhere(target("openvino"), Path(OPENVINO or ""))
    _, logits = drained(there.answers(quantized, path, threads=1))
    np.testing.assert_allclose(logits, Runner(model())(rows), atol=0.1)
    _, times = drained(there.race([quantized, model()], rows[:1], threads=2))
    assert all(time > 0 for time in times)


@needs_openvino
def test_a_silent_fallback_of_openvino_is_an_error(tmp_path: Path) -> None:
    """Given the name of a file as its configuration, it leaves the graph to the processor without an exception."""
    path, _ = pixels(tmp_path)
    wrong = replace(target("openvino"), options={"device_type": "CPU", "load_config": "openvino.json"})
    with pytest.raises(
        ExportError, match="left OpenVINOExecutionProvider for CPUExecutionProvider"
    ) as caught:
        drained(Elsewhere(wrong, Path(OPENVINO or "")).answers(model(), path, threads=1))
    assert "\n" not in str(caught.value)


@needs_openvino
def test_products_that_openvino_leaves_to_the_processor_are_an_error(tmp_path: Path) -> None:
    """ONNX Runtime's own operators among others: a part of the graph on each side is slower than either."""
    path, _ = pixels(tmp_path)
    mixed = model(2)
    first, second = mixed.graph.node
    scale = numpy_helper.from_array(np.array(1 / 127, np.float32), "scale")
    zero = numpy_helper.from_array(np.array(127, np.uint8), "zero")
    matrix = numpy_helper.from_array(np.eye(SIDE, dtype=np.int8), "stored")
    mixed.graph.initializer.extend((scale, zero, matrix))
    second.CopyFrom(helper.make_node("QuantizeLinear", [first.output[0], "scale", "zero"], ["tokens"]))
    mixed.graph.node.append(
        helper.make_node(
            "MatMulIntegerToFloat",
            ["tokens", "stored", "scale", "scale"],
            ["logits"],
            domain="com.microsoft",
        )
    )
    mixed.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(
        ExportError, match="OpenVINOExecutionProvider left 1 products to CPUExecutionProvider"
    ):
        drained(Elsewhere(target("openvino"), Path(OPENVINO or "")).answers(mixed, path, threads=1))

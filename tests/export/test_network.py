"""Graphs that were made elsewhere as the beginning of an export."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from vit_edge.checkpoint import load_checkpoint
from vit_edge.errors import CheckpointError, ExportError
from vit_edge.export import Export, Options, Source, export_module, run
from vit_edge.export.images import Runner
from vit_edge.export.network import INPUT, OUTPUT, OnnxNetwork, TorchNetwork
from vit_edge.export.passes import QuantizeDynamic
from vit_edge.runtime import Classifier
from vit_edge.runtime.labels import Labels

from ..conftest import DIGITS

SIZE = (32, 32)


def exported(
    module: nn.Module,
    path: Path,
    *,
    opset: int = 18,
    batch: int | None = None,
    names: tuple[str, str] = ("image", "scores"),
) -> Path:
    """Export as someone else would: torch's exporter, other names, weights in the same file."""
    example = torch.zeros(batch or 2, 3, *SIZE)
    torch.onnx.export(
        module.eval(),
        (example,),
        str(path),
        dynamo=True,
        opset_version=opset,
        input_names=[names[0]],
        output_names=[names[1]],
        dynamic_shapes=None if batch else ({0: torch.export.Dim("n")},),
        external_data=False,
        verbose=False,
    )
    return path


@pytest.fixture(scope="module")
def elsewhere(digits_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = load_checkpoint(digits_checkpoint).model
    return exported(model, tmp_path_factory.mktemp("elsewhere") / "digits.onnx")


def pixels(count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 3, *SIZE)).astype(np.float32)


def test_a_graph_made_elsewhere_gets_our_names_and_keeps_its_answers(
    elsewhere: Path, digits_checkpoint: Path
) -> None:
    """All that follows goes by those names, and the file's own answers are the reference."""
    network = OnnxNetwork(elsewhere)
    graph = network.graph(size=SIZE, opset=20, batch=None)
    assert [value.name for value in graph.graph.input] == [INPUT]
    assert [value.name for value in graph.graph.output] == [OUTPUT]
    expected = network.logits(pixels())
    np.testing.assert_allclose(Runner(graph)(pixels()), expected, atol=1e-5)
    module = TorchNetwork(load_checkpoint(digits_checkpoint).model)
    np.testing.assert_allclose(expected, module.logits(pixels()), atol=1e-4)
    assert (network.size, network.batch, network.reference) == (SIZE, None, "the float graph")


def test_names_that_are_taken_inside_the_graph_make_room(digits_checkpoint: Path, tmp_path: Path) -> None:
    """A stranger's graph may call anything `logits`."""
    path = exported(
        load_checkpoint(digits_checkpoint).model, tmp_path / "names.onnx", names=("logits", "pixels")
    )
    network = OnnxNetwork(path)
    graph = network.graph(size=SIZE, opset=20, batch=None)
    onnx.checker.check_model(graph)
    assert (graph.graph.input[0].name, graph.graph.output[0].name) == (INPUT, OUTPUT)
    np.testing.assert_allclose(Runner(graph)(pixels()), network.logits(pixels()), atol=1e-5)


@pytest.mark.slow
def test_it_becomes_a_verified_int8_file(
    elsewhere: Path, digits_checkpoint: Path, digits_images: Path, tmp_path: Path
) -> None:
    """The whole way, with the float file's own answers as the reference in the proof."""
    preprocessing = load_checkpoint(digits_checkpoint).preprocessing
    assert preprocessing is not None
    network = OnnxNetwork(elsewhere)
    *_, result = run(
        network,
        labels=Labels.of(DIGITS),
        preprocessing=preprocessing,
        output=tmp_path / "model.onnx",
        source=Source(elsewhere.name, network.sha256, {}),
        calibrate=digits_images / "calibrate",
        check=digits_images / "test",
        options=Options(precision="int8", min_speedup=0, budget_s=5),
    )
    assert isinstance(result, Export)
    assert result.comparison.agreement >= 0.98
    with Classifier(result.path) as classifier:
        assert classifier.metadata.proof["reference"] == "the float graph"
        assert classifier.metadata.source["name"] == "digits.onnx"
        assert any(step.startswith("FuseAttention") for step in classifier.metadata.recipe["steps"])


def test_an_old_operator_set_is_brought_up(tmp_path: Path) -> None:
    """Files of years ago are still around; what cannot be brought up is refused with the reason."""
    weight = numpy_helper.from_array(
        np.random.default_rng(0).normal(size=(3 * 32 * 32, 4)).astype(np.float32), "w"
    )
    shape = numpy_helper.from_array(np.array([0, -1], np.int64), "shape")
    graph = helper.make_graph(
        [
            helper.make_node("Reshape", ["x", "shape"], ["flat"]),
            helper.make_node("MatMul", ["flat", "w"], ["y"]),
        ],
        "old",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, *SIZE]),
            # As files of old had it: weights are inputs as well.
            helper.make_tensor_value_info("w", TensorProto.FLOAT, list(weight.dims)),
            helper.make_tensor_value_info("shape", TensorProto.INT64, [2]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [weight, shape],
    )
    path = tmp_path / "old.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=3), path)
    network = OnnxNetwork(path)
    model = network.graph(size=SIZE, opset=20, batch=None)
    assert [entry.version for entry in model.opset_import] == [17]
    assert len(model.graph.input) == 1
    np.testing.assert_allclose(Runner(model)(pixels()), network.logits(pixels()), atol=1e-5)


def test_a_fixed_batch_is_told(digits_checkpoint: Path, tmp_path: Path) -> None:
    """A batch of one that was baked in cannot be undone here."""
    network = OnnxNetwork(exported(load_checkpoint(digits_checkpoint).model, tmp_path / "one.onnx", batch=1))
    assert network.batch == 1
    with pytest.raises(ExportError, match=r"takes batches of 1 only; give --batch 1, or export it anew"):
        network.graph(size=SIZE, opset=20, batch=None)
    graph = network.graph(size=SIZE, opset=20, batch=1)
    assert graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
    assert network.logits(pixels(1)).shape == (1, 10)


def test_another_size_is_told(elsewhere: Path) -> None:
    """The preprocessing belongs to the file, and only its user knows it."""
    with pytest.raises(ExportError, match="takes images of 32x32 pixels and the preprocessing gives 64x64"):
        OnnxNetwork(elsewhere).graph(size=(64, 64), opset=20, batch=None)


def test_what_is_no_float_classifier_is_refused(elsewhere: Path, tmp_path: Path) -> None:
    """Each with the next step, before any work is done."""
    with pytest.raises(CheckpointError, match="cannot be read"):
        OnnxNetwork(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_bytes(b"no model at all")
    with pytest.raises(CheckpointError, match="is no ONNX model"):
        OnnxNetwork(tmp_path / "text.onnx")
    network = OnnxNetwork(elsewhere)
    quantized = QuantizeDynamic()(network.graph(size=SIZE, opset=20, batch=None))
    onnx.save(quantized, tmp_path / "int8.onnx")
    with pytest.raises(CheckpointError, match="is quantized already"):
        OnnxNetwork(tmp_path / "int8.onnx")
    double = onnx.load(elsewhere)
    double.graph.output.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, ["n", 10]))
    double.graph.node.append(helper.make_node("Identity", [double.graph.output[0].name], ["more"]))
    onnx.save(double, tmp_path / "double.onnx")
    with pytest.raises(CheckpointError, match="expected one input and one output"):
        OnnxNetwork(tmp_path / "double.onnx")
    bytes_ = onnx.load(elsewhere)
    bytes_.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    cast = helper.make_node("Cast", [bytes_.graph.input[0].name], ["as_float"], to=TensorProto.FLOAT)
    for node in bytes_.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = "as_float" if name == bytes_.graph.input[0].name else name
    bytes_.graph.node.insert(0, cast)
    onnx.save(bytes_, tmp_path / "bytes.onnx")
    with pytest.raises(CheckpointError, match=r"expected an input \(batch, 3, height, width\) float32"):
        OnnxNetwork(tmp_path / "bytes.onnx")


def test_one_call_makes_one_file(tmp_path: Path) -> None:
    """Several targets need several names, which `run` gives."""
    from vit_edge.errors import OptionError

    with pytest.raises(OptionError, match="one call makes one file"):
        export_module(
            nn.Identity(),
            tmp_path / "model.onnx",
            labels=DIGITS,
            preprocessing="resize=32,crop=32,interpolation=bicubic,mean=0.5,std=0.5",
            options=Options(targets=("cpu", "openvino")),
        )

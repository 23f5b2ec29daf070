"""The traced graph, run by ONNX Runtime beside the module that it came from."""

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vit_edge.errors import ExportError
from vit_edge.export.images import Runner
from vit_edge.export.limits import IR_VERSIONS, MAX_BYTES, OPSETS, oldest_onnxruntime
from vit_edge.export.network import INPUT, OUTPUT
from vit_edge.export.passes import FixBatch
from vit_edge.export.trace import trace
from vit_edge.models import ViT, ViTConfig
from vit_edge.reference import torch_logits

from .networks import small_vit

CONFIG = ViTConfig((16, 16), patch_size=8, width=32, depth=1, heads=2, mlp_width=64, classes=7)
SIZE = (16, 16)


@pytest.fixture(scope="module")
def model() -> ViT:
    return small_vit(0.2, CONFIG)


@pytest.fixture(scope="module")
def graph(model: ViT) -> onnx.ModelProto:
    return trace(model, size=SIZE, opset=20)


def pixels(count: int) -> NDArray[np.float32]:
    return np.random.default_rng(count).normal(size=(count, 3, *SIZE)).astype(np.float32)


@pytest.mark.parametrize("count", [1, 2, 5, 32])
def test_any_number_of_images_is_taken_at_once(model: ViT, graph: onnx.ModelProto, count: int) -> None:
    """Exporters bake a batch of 1 into a reshape, which only shows at the second image."""
    batch = pixels(count)
    answers = Runner(graph)(batch)
    assert answers.shape == (count, CONFIG.classes)
    np.testing.assert_allclose(answers, torch_logits(model, batch), atol=1e-5)


@pytest.mark.parametrize("count", [1, 3])
def test_a_fixed_batch_is_written_into_the_graph(model: ViT, graph: onnx.ModelProto, count: int) -> None:
    """Some accelerators take only shapes that are known beforehand."""
    graph = FixBatch(count)(graph)
    for value in (*graph.graph.input, *graph.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_value == count
    batch = pixels(count)
    np.testing.assert_allclose(Runner(graph)(batch), torch_logits(model, batch), atol=1e-5)


@pytest.mark.parametrize("opset", OPSETS)
def test_every_opset_loads_and_gives_the_same_answers(model: ViT, opset: int) -> None:
    """An older device takes an older opset, and the exporter converts between them by itself."""
    graph = trace(model, size=SIZE, opset=opset)
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", opset)]
    assert graph.ir_version == IR_VERSIONS[opset]
    assert oldest_onnxruntime(graph) >= "1.12"
    onnx.checker.check_model(graph, full_check=True)
    batch = pixels(2)
    np.testing.assert_allclose(Runner(graph)(batch), torch_logits(model, batch), atol=1e-5)


def test_an_opset_that_cannot_be_written_is_refused(model: ViT) -> None:
    """The exporter would write its own default instead and only warn."""
    for opset in (16, 24):
        with pytest.raises(ExportError, match=f"an opset from 17 to 23, got {opset}"):
            trace(model, size=SIZE, opset=opset)


def test_input_and_output_have_names_that_mean_something(graph: onnx.ModelProto) -> None:
    """The file is read by other programs too."""
    assert [value.name for value in graph.graph.input] == [INPUT] == ["pixels"]
    assert [value.name for value in graph.graph.output] == [OUTPUT] == ["logits"]


def test_the_graph_tells_nothing_of_the_machine_that_made_it(graph: onnx.ModelProto) -> None:
    """The exporter notes stack traces with the paths of the maker's home folder in every node."""
    data = graph.SerializeToString()
    structure = onnx.ModelProto.FromString(data)
    for tensor in structure.graph.initializer:
        tensor.raw_data = b""
    # Weights are random bytes; the rest is all text that there is.
    text = structure.SerializeToString()
    for trace_of_origin in (
        str(Path(__file__).parents[2]),
        str(Path.home()),
        "site-packages",
        ".py",
        "pkg.torch",
    ):
        assert trace_of_origin.encode() not in text, trace_of_origin
    assert not re.search(rb"(?:/[\w.-]+){3,}", text)
    assert not any(node.doc_string or node.metadata_props for node in graph.graph.node)
    assert not graph.doc_string
    assert not graph.graph.value_info


def test_one_file_holds_the_weights(graph: onnx.ModelProto) -> None:
    """The exporter puts them into a second file by itself when they are large, and the two get separated."""
    assert not any(tensor.external_data for tensor in graph.graph.initializer)
    assert graph.ByteSize() > sum(parameter.numel() * 4 for parameter in ViT(CONFIG).parameters())


def test_the_modules_modes_are_as_they_were() -> None:
    """An export in the middle of a training must not end the dropout, nor thaw what was frozen."""
    model = ViT(CONFIG)
    model.train()
    model.blocks.eval()
    before = [part.training for part in model.modules()]
    graph = trace(model, size=SIZE, opset=20)
    assert [part.training for part in model.modules()] == before
    assert {True, False} == set(before)
    np.testing.assert_allclose(Runner(graph)(pixels(2)), torch_logits(model, pixels(2)), atol=1e-5)
    assert [part.training for part in model.modules()] == before


def test_dropout_is_neither_in_the_graph_nor_in_torchs_answers() -> None:
    """A module comes from its training as it is, and its answers must not be random."""
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(768, 4)).train()
    graph = trace(model, size=SIZE, opset=20)
    first, second = torch_logits(model, pixels(2)), torch_logits(model, pixels(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(Runner(graph)(pixels(2)), first, atol=1e-5)
    assert model.training


class Wrapped(nn.Module):
    """Answers as transformers does: an object with the logits in it, or a tuple with them in front."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.head = nn.Linear(3, 5)

    def forward(self, images: Tensor) -> Any:
        logits = self.head(images.mean((2, 3)))
        if self.kind == "tuple":
            return logits, images
        from transformers.modeling_outputs import ImageClassifierOutput

        return ImageClassifierOutput(logits=logits, hidden_states=(images,))


@pytest.mark.parametrize("kind", ["tuple", "object"])
def test_logits_are_found_in_what_other_libraries_answer(kind: str) -> None:
    """Transformers gives an object and older code a tuple; the graph has one output all the same."""
    model = Wrapped(kind).eval()
    graph = trace(model, size=SIZE, opset=20)
    assert [value.name for value in graph.graph.output] == [OUTPUT]
    with torch.inference_mode():
        expected = model.head(torch.from_numpy(pixels(2)).mean((2, 3))).numpy()
    np.testing.assert_allclose(Runner(graph)(pixels(2)), expected, atol=1e-5)
    np.testing.assert_allclose(torch_logits(model, pixels(2)), expected, atol=1e-5)


class Deciding(nn.Module):
    """Takes another way for bright images, which no graph without control flow can."""

    def forward(self, images: Tensor) -> Tensor:
        means = images.mean((2, 3))
        return means if means.sum() > 0 else -means


def test_a_module_that_cannot_be_traced_is_one_sentence(capfd: pytest.CaptureFixture[str]) -> None:
    """The exporter's own message is a page, of which the reason is one line, and it prints programs beside it."""
    with pytest.raises(ExportError) as caught:
        trace(Deciding(), size=SIZE, opset=20)
    sentence = str(caught.value)
    assert sentence.startswith("torch could not trace Deciding (")
    assert "shape (batch, 3, 16, 16)" in sentence
    assert "data-dependent" in sentence
    assert sentence.isprintable()
    assert len(sentence) < 500
    assert capfd.readouterr() == ("", "")


def test_a_module_of_another_input_size_is_one_sentence(model: ViT) -> None:
    """The usual slip: preprocessing for 224 pixels given with a network for 16."""
    with pytest.raises(
        ExportError, match=r"could not trace ViT \(expected pixels of shape \(batch, 3, 16, 16\)"
    ):
        trace(model, size=(24, 24), opset=20)


def test_a_module_too_large_for_one_file_is_told_before_the_work() -> None:
    """ONNX stops at 2 GiB, and protobuf's own error comes after minutes and names no size."""
    with torch.device("meta"):
        large = nn.Sequential(nn.Flatten(), nn.Linear(768, 1_000_000, bias=False))
    assert sum(parameter.numel() for parameter in large.parameters()) * 4 > MAX_BYTES
    with pytest.raises(ExportError, match=r"weights take 2\.9 GiB in float32, .* less than 2 GiB"):
        trace(large, size=SIZE, opset=20)


def test_the_exporter_keeps_quiet(model: ViT, capfd: pytest.CaptureFixture[str]) -> None:
    """It warns of its own internals, on the terminal where the user looks for answers."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trace(model, size=SIZE, opset=20)
    assert capfd.readouterr() == ("", "")

"""Graphs of older operator sets, which write norms and GELUs in single operators, are rewritten like newer ones."""

import math
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from vit_edge.export.graph import copy, named
from vit_edge.export.images import Runner
from vit_edge.export.massive import channels
from vit_edge.export.network import OnnxNetwork
from vit_edge.export.passes import FuseNorms, MergeTokens, MigrateScales, Pass, RawPixels, Simplify
from vit_edge.reference import torch_logits

from .networks import (
    DEPTH,
    REWRITES,
    SIZE,
    answers,
    images,
    operators,
    rewritten,
    timm_vit,
    torchvision_vit,
    traced,
    transformers_vit,
)
from .test_merge_tokens import ByHand, roughened

NORMS = 2 * DEPTH + 1


def normed_first() -> nn.Module:
    """A network whose first block norms what a norm gave, as CLIP's does."""
    return timm_vit(norm_first=True)


def exported_long_ago(module: nn.Module, path: Path) -> Path:
    """Export with torch's older exporter at opset 14, which had neither LayerNormalization nor Gelu."""
    with warnings.catch_warnings():
        # It says that it is old, and that the traced sizes are fixed.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (torch.zeros(2, 3, SIZE, SIZE),),
            str(path),
            dynamo=False,
            opset_version=14,
            input_names=["image"],
            output_names=["scores"],
            dynamic_axes={"image": {0: "n"}, "scores": {0: "n"}},
        )
    return path


@pytest.fixture(scope="module")
def module() -> nn.Module:
    torch.manual_seed(0)
    return roughened(timm_vit())


@pytest.fixture(scope="module")
def old(module: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    path = exported_long_ago(module, tmp_path_factory.mktemp("old") / "vit.onnx")
    return named(OnnxNetwork(path).graph(size=(SIZE, SIZE), opset=20, batch=None))


@pytest.mark.parametrize(
    "first", [(Simplify(), FuseNorms()), (FuseNorms(), Simplify())], ids=["simplified", "as exported"]
)
def test_a_graph_of_an_old_operator_set_is_rewritten_whole(
    module: nn.Module, old: onnx.ModelProto, first: tuple[Pass, ...]
) -> None:
    """Its norms are found, its attention is fused, and its last block computes the class token alone.

    Newer simplifiers fuse some norms too, older ones none, and a simplifier that fails is passed over.
    """
    assert operators(old)["LayerNormalization"] == operators(old)["Gelu"] == 0
    assert operators(old)["ReduceMean"] == 2 * NORMS
    pixels, model = images(), old
    for rewrite in (*first, *REWRITES):
        model = named(rewrite(model))
        np.testing.assert_allclose(answers(model, pixels), torch_logits(module, pixels), atol=1e-5)
    found = operators(model)
    assert found["LayerNormalization"] == NORMS
    assert found["ReduceMean"] == found["Sqrt"] == found["Pow"] == found["Softmax"] == 0
    assert (found["Attention"], found["MultiHeadAttention"]) == (DEPTH - 1, 1)
    assert token_counts(model, "Erf") == [17] * (DEPTH - 1) + [1]


def token_counts(model: onnx.ModelProto, op_type: str) -> list[int]:
    """Give the number of tokens that each node of a type computes."""
    watched = copy(model)
    names = [node.output[0] for node in model.graph.node if node.op_type == op_type]
    counts = []
    for name in names:
        del watched.graph.output[:]
        watched.graph.output.append(onnx.ValueInfoProto(name=name))
        counts.append(answers(watched, images(2)).shape[1])
    return counts


def decomposed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Write every norm and GELU in single operators, with the axes of means as an input."""
    result = copy(model)
    constants = {"axes": np.array([-1]), "two": 2, "one": 1, "root2": math.sqrt(2), "half": 0.5}
    nodes: list[onnx.NodeProto] = []

    def then(op_type: str, *inputs: str, output: str = "") -> str:
        nodes.append(helper.make_node(op_type, inputs, [output or f"single_{len(nodes)}"]))
        return str(nodes[-1].output[0])

    for node in model.graph.node:
        source = node.input[0]
        if node.op_type == "LayerNormalization":
            epsilon = f"epsilon_{len(nodes)}"
            constants[epsilon] = helper.get_node_attr_value(node, "epsilon")
            centred = then("Sub", source, then("ReduceMean", source, "axes"))
            variance = then("ReduceMean", then("Pow", centred, "two"), "axes")
            unit = then("Div", centred, then("Sqrt", then("Add", variance, epsilon)))
            then("Add", then("Mul", unit, node.input[1]), node.input[2], output=node.output[0])
        elif node.op_type == "Gelu":
            total = then("Add", then("Erf", then("Div", source, "root2")), "one")
            then("Mul", then("Mul", source, total), "half", output=node.output[0])
        else:
            nodes.append(node)
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    for name, value in constants.items():
        array = np.asarray(value, np.int64 if name == "axes" else np.float32)
        result.graph.initializer.append(numpy_helper.from_array(array, name))
    return named(result)


@pytest.mark.parametrize("build", [timm_vit, torchvision_vit, transformers_vit])
def test_the_pass_is_what_finds_the_norms(build: Callable[[], nn.Module]) -> None:
    """No other rewrite looks into a mean over channels, and so the last block would stay whole."""
    torch.manual_seed(0)
    module = roughened(build())
    graph = traced(module)
    single = decomposed(graph)
    assert operators(single)["ReduceMean"] == 2 * operators(graph)["LayerNormalization"] == 2 * NORMS
    without, fused = rewritten(single), rewritten(single, FuseNorms())
    assert token_counts(without, "Erf") == [17] * DEPTH
    assert token_counts(fused, "Erf") == [17] * (DEPTH - 1) + [1]
    assert operators(fused)["LayerNormalization"] == NORMS
    np.testing.assert_allclose(answers(fused, images()), torch_logits(module, images()), atol=1e-5)


def test_scales_migrate_into_fused_norms(module: nn.Module, old: onnx.ModelProto) -> None:
    """They are folded into the norm in front of a product, which has to be one operator for that."""
    model, pixels = rewritten(old, Simplify(), FuseNorms()), images()
    maxima = {layer.linear.input: layer.maxima for layer in channels(model, [pixels])}
    migrated = named(MigrateScales(0.9, maxima)(model))
    np.testing.assert_allclose(answers(migrated, pixels), torch_logits(module, pixels), atol=1e-4)
    norms = [
        [node for node in one.graph.node if node.op_type == "LayerNormalization"] for one in (model, migrated)
    ]
    changed = [one.input[1] != other.input[1] for one, other in zip(*norms, strict=True)]
    assert sum(changed) >= 2 * (DEPTH - 1)


def test_tokens_merge_in_a_graph_of_an_old_operator_set(module: nn.Module, old: onnx.ModelProto) -> None:
    """Its GELUs, in five operators each, treat every token by itself."""
    sites, pixels = ((0, 5), (1, 4)), images()
    merged = named(MergeTokens(sites)(rewritten(old, Simplify(), FuseNorms())))
    assert np.abs(answers(merged, pixels) - ByHand(module)(pixels, sites)).max() < 1e-4


def test_raw_pixels_fit_a_graph_of_an_old_operator_set(module: nn.Module, old: onnx.ModelProto) -> None:
    """Whichever way a graph was written, a camera's bytes can be its input."""
    model = named(RawPixels((0.5,) * 3, (0.5,) * 3)(rewritten(old, Simplify(), FuseNorms())))
    pixels = np.random.default_rng(0).integers(256, size=(3, SIZE, SIZE, 3), dtype=np.uint8)
    planes = (pixels.astype(np.float32) / 127.5 - 1).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(answers(model, pixels), torch_logits(module, planes), atol=1e-4)


@pytest.mark.parametrize("build", [torchvision_vit, normed_first], ids=["torchvision", "normed first"])
def test_every_norm_of_other_networks_is_found(build: Callable[[], nn.Module], tmp_path: Path) -> None:
    """A norm of a norm must read the new one, not that which it replaced."""
    torch.manual_seed(0)
    module = roughened(build())
    network = OnnxNetwork(exported_long_ago(module, tmp_path / "vit.onnx"))
    model = named(network.graph(size=(SIZE, SIZE), opset=20, batch=None))
    decomposed = operators(model)["ReduceMean"]
    fused = FuseNorms()(model)
    assert decomposed >= 2 * NORMS
    assert operators(fused)["LayerNormalization"] == decomposed / 2
    np.testing.assert_allclose(answers(fused, images()), torch_logits(module, images()), atol=1e-5)


Change = Callable[[list[onnx.NodeProto], dict[str, NDArray[np.float32]]], None]


def norm(change: Change = lambda nodes, constants: None, *, opset: int = 17) -> onnx.ModelProto:
    """Give a graph of one decomposed norm of (batch, 5, 8), changed as said."""
    noise = np.random.default_rng(0)
    constants = {
        "two": np.array(2, np.float32),
        "epsilon": np.array(1e-3, np.float32),
        "gain": noise.normal(size=8).astype(np.float32),
        "shift": noise.normal(size=8).astype(np.float32),
    }
    nodes = [
        helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=[-1], name="mean"),
        helper.make_node("Sub", ["pixels", "mean"], ["centred"], name="centred"),
        helper.make_node("Pow", ["centred", "two"], ["squares"], name="squares"),
        helper.make_node("ReduceMean", ["squares"], ["variance"], axes=[-1], name="variance"),
        helper.make_node("Add", ["variance", "epsilon"], ["total"], name="total"),
        helper.make_node("Sqrt", ["total"], ["root"], name="root"),
        helper.make_node("Div", ["centred", "root"], ["unit"], name="unit"),
        helper.make_node("Mul", ["unit", "gain"], ["scaled"], name="scaled"),
        helper.make_node("Add", ["scaled", "shift"], ["logits"], name="logits"),
    ]
    change(nodes, constants)
    graph = helper.make_graph(
        nodes,
        "norm",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 5, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def tokens() -> NDArray[np.float32]:
    return 3 + np.random.default_rng(1).normal(size=(2, 5, 8)).astype(np.float32)


def product(nodes: list[onnx.NodeProto], constants: dict[str, NDArray[np.float32]]) -> None:
    """Square by a product, and give sums and products their factors the other way round."""
    nodes[2].CopyFrom(helper.make_node("Mul", ["centred", "centred"], ["squares"]))
    for node in (nodes[4], nodes[7], nodes[8]):
        node.input[:] = list(node.input)[::-1]
    del constants["two"]


def twice(nodes: list[onnx.NodeProto], constants: dict[str, NDArray[np.float32]]) -> None:
    """Take the mean off twice, over an axis counted from the front."""
    nodes.insert(0, helper.make_node("ReduceMean", ["pixels"], ["again"], axes=[2]))
    nodes.insert(1, helper.make_node("Sub", ["pixels", "again"], ["other"]))
    nodes[4].input[0] = "other"


def bare(nodes: list[onnx.NodeProto], constants: dict[str, NDArray[np.float32]]) -> None:
    """Leave out gain and shift."""
    del nodes[7:]
    nodes[6].output[0] = "logits"


def wide(nodes: list[onnx.NodeProto], constants: dict[str, NDArray[np.float32]]) -> None:
    """Store the gain as (1, 1, channels), and one shift for all."""
    constants["gain"], constants["shift"] = constants["gain"][None, None], constants["shift"][3]


def axes_given(nodes: list[onnx.NodeProto], constants: dict[str, NDArray[np.float32]]) -> None:
    """Give axes as an input, as from opset 18 on."""
    constants["axes"] = np.array([-1])
    for node in (nodes[0], nodes[3]):
        del node.attribute[:]
        node.input.append("axes")


@pytest.mark.parametrize("change", [lambda nodes, constants: None, product, twice, bare, wide])
def test_a_norm_is_found_however_it_is_written(change: Change) -> None:
    """Exporters differ in how they square, in what they repeat, and in the shapes of the constants."""
    check(norm(change))


def test_axes_may_be_an_input() -> None:
    """They are from opset 18 on; a graph brought up to it keeps its single operators."""
    check(norm(axes_given, opset=18))


def check(model: onnx.ModelProto) -> None:
    before = model.SerializeToString()
    fused = FuseNorms()(model)
    assert model.SerializeToString() == before
    assert [node.op_type for node in fused.graph.node] == ["LayerNormalization"]
    assert [output.name for output in fused.graph.output] == ["logits"]
    np.testing.assert_allclose(Runner(fused)(tokens()), Runner(model)(tokens()), atol=1e-5)


def over_tokens(nodes: list[onnx.NodeProto], constants: dict[str, NDArray[np.float32]]) -> None:
    for node in (nodes[0], nodes[3]):
        node.attribute[0].ints[:] = [1]


def cubed(nodes: list[onnx.NodeProto], constants: dict[str, NDArray[np.float32]]) -> None:
    constants["two"] = np.array(4, np.float32)


def not_centred(nodes: list[onnx.NodeProto], constants: dict[str, NDArray[np.float32]]) -> None:
    nodes[2].input[0] = "pixels"


def varying_epsilon(nodes: list[onnx.NodeProto], constants: dict[str, NDArray[np.float32]]) -> None:
    constants["epsilon"] = np.linspace(0.1, 1, 5, dtype=np.float32)[:, None]


@pytest.mark.parametrize("change", [over_tokens, cubed, not_centred, varying_epsilon])
def test_what_only_looks_like_a_norm_stays(change: Change) -> None:
    """A wrong norm would be found out by its answers, and cost the step for all others."""
    model = norm(change)
    assert operators(FuseNorms()(model)) == operators(model)


def test_gains_of_tokens_stay_outside() -> None:
    """A factor for each token is none for each channel."""

    def change(nodes: list[onnx.NodeProto], constants: dict[str, NDArray[np.float32]]) -> None:
        constants["gain"] = np.arange(1, 6, dtype=np.float32)[:, None]

    model = norm(change)
    fused = FuseNorms()(model)
    assert [node.op_type for node in fused.graph.node] == ["LayerNormalization", "Mul", "Add"]
    np.testing.assert_allclose(Runner(fused)(tokens()), Runner(model)(tokens()), atol=1e-5)


def test_a_norm_that_is_read_before_its_gain_ends_there() -> None:
    """What reads it in the middle needs it as it is there."""

    def change(nodes: list[onnx.NodeProto], constants: dict[str, NDArray[np.float32]]) -> None:
        nodes[8].input[1] = "unit"

    model = norm(change)
    fused = FuseNorms()(model)
    assert [node.op_type for node in fused.graph.node] == ["LayerNormalization", "Mul", "Add"]
    np.testing.assert_allclose(Runner(fused)(tokens()), Runner(model)(tokens()), atol=1e-5)


def test_a_graph_too_old_for_the_operator_stays() -> None:
    """It would be no valid graph with it."""
    model = norm(opset=16)
    assert operators(FuseNorms()(model)) == operators(model)

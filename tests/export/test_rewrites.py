"""Exact rewrites find their patterns by structure, in the graphs of any library, and change no answer."""

import numpy as np
import onnx
import pytest
import timm
import torch
from torch import nn

from vit_edge.export.graph import MASSIVE_SUFFIX, linears, named
from vit_edge.export.limits import oldest_onnxruntime
from vit_edge.export.massive import channels
from vit_edge.export.passes import (
    MigrateScales,
    QuantizeDynamic,
    Simplify,
    SplitChannels,
    SplitGemm,
    Unflatten,
)
from vit_edge.export.trace import trace
from vit_edge.reference import torch_logits

from .networks import (
    CLASSES,
    DEPTH,
    REWRITES,
    SIZE,
    anonymous,
    answers,
    images,
    operators,
    rewritten,
    timm_vit,
    torchvision_vit,
    traced,
    transformers_vit,
)


@pytest.fixture(
    scope="module",
    params=[timm_vit, torchvision_vit, transformers_vit],
    ids=["timm", "torchvision", "transformers"],
)
def module(request: pytest.FixtureRequest) -> nn.Module:
    """A ViT of each library, with no weight left at zero, where a mistake would not show."""
    torch.manual_seed(0)
    built: nn.Module = request.param()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return built.eval()


@pytest.fixture(scope="module")
def graph(module: nn.Module) -> onnx.ModelProto:
    return traced(module)


@pytest.mark.parametrize("simplify", [True, False], ids=["simplified", "as traced"])
def test_every_attention_is_fused_and_the_last_block_is_narrowed(
    module: nn.Module, graph: onnx.ModelProto, simplify: bool
) -> None:
    """Each library writes attention in its own way, and onnxsim changes it once more."""
    model = anonymous(graph)
    pixels = images()
    expected = torch_logits(module, pixels)
    for rewrite in (*((Simplify(),) if simplify else ()), *REWRITES):
        model = named(rewrite(model))
        assert np.abs(answers(model, pixels) - expected).max() < 1e-4, rewrite
    found = operators(model)
    assert found["Attention"] == DEPTH - 1
    assert found["MultiHeadAttention"] == 1
    assert found["Softmax"] == found["Squeeze"] == found["Where"] == 0
    # The patches become tokens once; nothing is laid out anew after that.
    assert found["Reshape"] == found["Transpose"] == 1


def test_a_rewritten_graph_takes_any_batch(module: nn.Module, graph: onnx.ModelProto) -> None:
    """A reshape that bakes the batch in would only show on the device."""
    model = rewritten(graph)
    for count in (1, 2, 5):
        pixels = images(count)
        assert np.abs(answers(model, pixels) - torch_logits(module, pixels)).max() < 1e-4


def test_a_rewrite_leaves_its_argument_alone(graph: onnx.ModelProto) -> None:
    """The pipeline goes back to the graph before a step that did harm."""
    model = graph
    for rewrite in REWRITES:
        before = model.SerializeToString()
        result = named(rewrite(model))
        assert model.SerializeToString() == before
        model = result


class Pooled(nn.Module):
    """A ViT whose head reads the mean of all tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.body = timm.create_model(
            "vit_tiny_patch16_224",
            img_size=SIZE,
            patch_size=8,
            embed_dim=32,
            depth=2,
            num_heads=2,
            num_classes=CLASSES,
            global_pool="avg",
        )

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.body(pixels)  # type: ignore[no-any-return]


def test_the_last_block_stays_whole_where_all_tokens_reach_the_head() -> None:
    """Dropping tokens that are pooled later would be wrong, not fast."""
    torch.manual_seed(0)
    module = Pooled().eval()
    model = rewritten(traced(module))
    assert operators(model)["Attention"] == 2
    assert np.abs(answers(model, images()) - torch_logits(module, images())).max() < 1e-4


class Masked(nn.Module):
    """Attention in which no token sees a later one."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(3 * SIZE, 3 * 32)
        self.head = nn.Linear(32, CLASSES)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        rows = pixels.permute(0, 2, 1, 3).flatten(2)
        query, key, value = self.qkv(rows).unflatten(2, (3, 2, 16)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.head(mixed.transpose(1, 2).flatten(2)[:, -1])  # type: ignore[no-any-return]


def test_attention_under_a_real_mask_is_not_fused() -> None:
    """The fused operator would let every token see every other."""
    torch.manual_seed(0)
    module = Masked().eval()
    model = rewritten(traced(module))
    assert operators(model)["Attention"] == 0
    assert np.abs(answers(model, images()) - torch_logits(module, images())).max() < 1e-4


def test_split_channels_are_exact_and_stay_in_float() -> None:
    """Quantizing the product of the massive channels would undo what it was split off for."""
    torch.manual_seed(0)
    module = timm_vit().eval()
    model = named(Unflatten()(SplitGemm()(traced(module))))
    chosen = [linear.node for linear in linears(model)][3]
    split = named(SplitChannels(((chosen, (0, 7)),))(model))
    assert np.abs(answers(split, images()) - torch_logits(module, images())).max() < 1e-5
    quantized = QuantizeDynamic()(split)
    products = [
        node
        for node in quantized.graph.node
        if node.op_type == "MatMul" and node.name.endswith(MASSIVE_SUFFIX)
    ]
    assert len(products) == 1


def test_a_planted_massive_channel_is_found_in_the_rewritten_graph() -> None:
    """It is found by what the images make of the graph: its place and its name are nobody's business."""
    torch.manual_seed(0)
    module = timm_vit().eval()
    with torch.no_grad():
        # One channel behind the MLP's activation grows; the weights that read it shrink, and the answers stay.
        module.blocks[1].mlp.fc1.bias[11] += 300.0  # type: ignore[index,union-attr]
        module.blocks[1].mlp.fc2.weight[:, 11] *= 1e-3  # type: ignore[index,union-attr]
    model = rewritten(traced(module))
    worst = max(channels(model, [images()]), key=lambda layer: layer.ratio)
    assert worst.massive == (11,)


def test_migrated_scales_change_no_answer_and_narrow_the_inputs(
    module: nn.Module, graph: onnx.ModelProto
) -> None:
    """They are folded into norms and values, so that the float graph must answer as before."""
    model = rewritten(graph)
    pixels = images(8)
    before = {layer.linear.input: layer.maxima for layer in channels(model, [pixels])}
    migrated = named(MigrateScales(0.9, before)(model))
    assert np.abs(answers(migrated, pixels) - torch_logits(module, pixels)).max() < 1e-4
    after = {layer.linear.input: layer.maxima for layer in channels(migrated, [pixels])}
    spread = {name: np.log(maxima).std() for name, maxima in before.items()}
    narrowed = [name for name, maxima in after.items() if np.log(maxima).std() < 0.5 * spread[name]]
    # Two norms a block but for the last one's first, whose output is also narrowed to a token, and its attention.
    assert len(narrowed) >= 2 * (DEPTH - 1)


def test_scales_do_not_migrate_past_a_second_reader(graph: onnx.ModelProto) -> None:
    """Where something else reads the norm's output, scaling it would change that reader's input."""
    model = rewritten(graph)
    norms = [node.output[0] for node in model.graph.node if node.op_type == "LayerNormalization"]
    model.graph.output.append(onnx.ValueInfoProto(name=norms[0]))
    pixels = images()
    before = {layer.linear.input: layer.maxima for layer in channels(model, [pixels])}
    migrated = MigrateScales(0.9, before)(model)
    read = [node for graph in (model, migrated) for node in graph.graph.node if node.output[0] == norms[0]]
    assert read[0].input[1:] == read[1].input[1:]


def test_the_oldest_runtime_is_that_of_the_newest_operator(module: nn.Module) -> None:
    """A device told that its runtime is new enough must not fail on an operator of ONNX Runtime's own."""
    model = named(trace(module, size=(SIZE, SIZE), opset=17))
    assert oldest_onnxruntime(model) == "1.12"
    model = rewritten(model)
    assert oldest_onnxruntime(model) == "1.14"

"""Merged graphs answer as token merging written out by hand."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from vit_edge.checkpoint.names import to_timm_names
from vit_edge.export.graph import linears, named
from vit_edge.export.passes import (
    ClassTokenOnly,
    FuseAttention,
    MergeTokens,
    QuantizeDynamic,
    Simplify,
    SplitChannels,
    SplitGemm,
    Unflatten,
)
from vit_edge.export.schedule import Sites, format_schedule
from vit_edge.models import ViT, ViTConfig

from .networks import (
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

HEADS, PATCH, TOKENS = 2, 8, 17


def our_vit() -> nn.Module:
    return ViT(ViTConfig((SIZE, SIZE), PATCH, width=32, depth=4, heads=HEADS, mlp_width=64, classes=5))


def roughened(module: nn.Module) -> nn.Module:
    """Leave no weight at zero, and tokens different enough for their order to be the same in any arithmetic."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    return module.eval()


@pytest.fixture(
    scope="module",
    params=[our_vit, timm_vit, torchvision_vit, transformers_vit],
    ids=["ours", "timm", "torchvision", "transformers"],
)
def module(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return roughened(request.param())


@pytest.fixture(scope="module")
def graph(module: nn.Module) -> onnx.ModelProto:
    return rewritten(traced(module))


@pytest.fixture(scope="module")
def ours() -> onnx.ModelProto:
    torch.manual_seed(0)
    return rewritten(traced(roughened(our_vit())))


Array = NDArray[np.float64]


class ByHand:
    """A ViT with merged tokens, one image and one token at a time, from the paper and its weights alone."""

    def __init__(self, module: nn.Module, *, proportional: bool = True, weighted: bool = True) -> None:
        tensors: Mapping[str, Any] = to_timm_names(module.state_dict()).tensors
        self.weights = {name: tensor.double().numpy() for name, tensor in tensors.items()}
        self.depth = sum(name.endswith("attn.proj.bias") for name in self.weights)
        self.proportional, self.weighted = proportional, weighted

    def __call__(self, pixels: NDArray[np.float32], sites: Sites) -> Array:
        return np.stack([self.answer(image.astype(np.float64), dict(sites)) for image in pixels])

    def linear(self, name: str, values: Array) -> Array:
        result: Array = values @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]
        return result

    def norm(self, name: str, values: Array) -> Array:
        centred = values - values.mean(axis=-1, keepdims=True)
        unit = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6)
        result: Array = unit * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]
        return result

    def answer(self, image: Array, sites: Mapping[int, int]) -> Array:
        side = SIZE // PATCH
        patches = image.reshape(3, side, PATCH, side, PATCH).transpose(1, 3, 0, 2, 4).reshape(side * side, -1)
        kernel = self.weights["patch_embed.proj.weight"]
        embedded = patches @ kernel.reshape(len(kernel), -1).T + self.weights["patch_embed.proj.bias"]
        tokens = np.concatenate([self.weights["cls_token"][0], embedded]) + self.weights["pos_embed"][0]
        sizes = np.ones(len(tokens))
        for block in range(self.depth):
            name = f"blocks.{block}"
            query, key, value = self.heads(
                self.linear(f"{name}.attn.qkv", self.norm(f"{name}.norm1", tokens))
            )
            scores = query @ key.transpose(0, 2, 1) / math.sqrt(key.shape[-1])
            if self.proportional:
                scores = scores + np.log(sizes)
            shares = np.exp(scores)
            mixed = (shares / shares.sum(axis=-1, keepdims=True)) @ value
            tokens = tokens + self.linear(f"{name}.attn.proj", np.concatenate(list(mixed), axis=-1))
            if sites.get(block):
                tokens, sizes = self.merge(tokens, sizes, key.mean(axis=0), sites[block])
            hidden = self.linear(f"{name}.mlp.fc1", self.norm(f"{name}.norm2", tokens))
            gelu = hidden * 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
            tokens = tokens + self.linear(f"{name}.mlp.fc2", gelu)
        return self.linear("head", self.norm("norm", tokens[0]))

    def heads(self, merged: Array) -> Array:
        return merged.reshape(len(merged), 3, HEADS, -1).transpose(1, 2, 0, 3)

    def merge(self, tokens: Array, sizes: Array, metric: Array, count: int) -> tuple[Array, Array]:
        pairs = []
        for source in range(2, len(tokens), 2):
            alike = {
                target: metric[source]
                @ metric[target]
                / np.linalg.norm(metric[source])
                / np.linalg.norm(metric[target])
                for target in range(1, len(tokens), 2)
            }
            target = max(alike, key=lambda place: alike[place])
            pairs.append((alike[target], source, target))
        groups = {place: [place] for place in range(len(tokens))}
        for _, source, target in sorted(pairs, reverse=True)[:count]:
            groups[target].extend(groups.pop(source))
        ordered = sorted(groups, key=lambda place: (place % 2, place))
        merged = [
            np.average(tokens[groups[place]], axis=0, weights=sizes[groups[place]] if self.weighted else None)
            for place in ordered
        ]
        return np.stack(merged), np.array([sizes[groups[place]].sum() for place in ordered])


@pytest.mark.parametrize("sites", [((0, 5),), ((0, 8),), ((1, 3),), ((0, 5), (1, 4))], ids=format_schedule)
def test_merged_graphs_answer_as_the_paper_says(
    module: nn.Module, graph: onnx.ModelProto, sites: Sites
) -> None:
    """Written a second time from the paper, with loops; 8 of 17 is every token that may go, the class token not."""
    pixels = images(3)
    merged = named(MergeTokens(sites)(anonymous(graph)))
    expected = ByHand(module)(pixels, sites)
    assert np.abs(ByHand(module)(pixels, ()) - answers(graph, pixels)).max() < 1e-4
    assert np.abs(answers(merged, pixels) - expected).max() < 1e-4
    assert np.abs(answers(graph, pixels) - expected).max() > 1e-2


def test_a_batch_is_merged_image_by_image(graph: onnx.ModelProto) -> None:
    """The places of merged tokens differ from image to image."""
    merged = MergeTokens(((0, 5), (1, 4)))(graph)
    pixels = images(3)
    apart = np.concatenate([answers(merged, pixels[i : i + 1]) for i in range(3)])
    assert np.abs(answers(merged, pixels) - apart).max() < 1e-5


@pytest.mark.parametrize("ignored", ["proportional", "weighted"])
def test_sizes_count_in_attention_and_in_the_mean(
    module: nn.Module, graph: onnx.ModelProto, ignored: str
) -> None:
    """Merged tokens that count as one patch would be heard too little."""
    pixels, sites = images(3), ((0, 7), (1, 4))
    careless = ByHand(module, **{ignored: False})(pixels, sites)
    assert np.abs(answers(MergeTokens(sites)(graph), pixels) - careless).max() > 1e-3


def test_sizes_ride_in_a_channel_that_attention_can_spare() -> None:
    """Quantized, the fused operator takes no sizes; a head that uses fewer channels than it has can carry them."""
    torch.manual_seed(0)
    module: Any = roughened(our_vit())
    with torch.no_grad():
        for block in module.blocks:
            # In each head a mixture of the other channels takes the place of one: what it says is said already.
            for head in block.attn.qkv.weight[:32].unflatten(0, (HEADS, -1)):
                head[3] = head[5] - 0.5 * head[11]
            for head in block.attn.qkv.bias[:32].unflatten(0, (HEADS, -1)):
                head[3] = head[5] - 0.5 * head[11]
    pixels, sites = images(3), ((0, 7), (2, 4))
    graph = rewritten(traced(module))
    merged = MergeTokens(sites, fused=True)(graph)
    assert operators(merged)["Attention"] == operators(graph)["Attention"]
    assert np.abs(answers(merged, pixels) - ByHand(module)(pixels, sites)).max() < 1e-4


def test_making_room_for_sizes_harms_less_than_leaving_them_out(
    module: nn.Module, graph: onnx.ModelProto
) -> None:
    """Where a head has no channel to spare, the direction in which scores vary least gives way."""
    pixels, sites = images(8), ((0, 7), (1, 4))
    exact = ByHand(module)(pixels, sites)
    fused = answers(MergeTokens(sites, fused=True)(graph), pixels)
    without = ByHand(module, proportional=False)(pixels, sites)
    assert np.abs(fused - exact).mean() < 0.5 * np.abs(without - exact).mean()


def test_merging_equal_tokens_changes_no_answer() -> None:
    """Two equal keys draw twice the attention of one, which is what the logarithm of the size makes up for."""
    torch.manual_seed(0)
    module: Any = roughened(our_vit())
    with torch.no_grad():
        module.pos_embed.zero_()
    colour = np.array([0.3, -1.0, 0.7], np.float32)
    plain = np.broadcast_to(colour[:, None, None], (2, 3, SIZE, SIZE)).copy()
    graph = rewritten(traced(module))
    merged = MergeTokens(((0, 8), (1, 4), (2, 2)))(graph)
    assert np.abs(answers(merged, plain) - answers(graph, plain)).max() < 1e-4


def test_merging_none_is_the_identity(ours: onnx.ModelProto) -> None:
    """A search compares schedules with none at all."""
    assert MergeTokens(())(ours) == MergeTokens(((1, 0),))(ours) == ours


def test_a_graph_before_other_rewrites_is_merged_alike(module: nn.Module, graph: onnx.ModelProto) -> None:
    """The rewrite for the class token is left out where it does not pay, and simplifiers change the pattern."""
    model = traced(module)
    for rewrite in (Simplify(), SplitGemm(), Unflatten(), FuseAttention(), Unflatten()):
        model = named(rewrite(model))
    sites, pixels = ((0, 5), (1, 4)), images(3)
    expected = answers(MergeTokens(sites)(graph), pixels)
    assert np.abs(answers(MergeTokens(sites)(model), pixels) - expected).max() < 1e-4
    assert np.abs(answers(MergeTokens(sites)(named(ClassTokenOnly()(model))), pixels) - expected).max() < 1e-4


def test_split_channels_stand_in_no_ones_way(ours: onnx.ModelProto) -> None:
    """Massive channels are looked for before tokens are merged, in any layer, attention's output among them."""
    chosen = tuple((linear.node, (0, 7)) for linear in linears(ours) if linear.splits)
    split = named(SplitChannels(chosen)(ours))
    sites, pixels = ((0, 5), (1, 4)), images(3)
    merged = answers(MergeTokens(sites)(split), pixels)
    assert np.abs(merged - answers(MergeTokens(sites)(ours), pixels)).max() < 1e-4


@pytest.mark.parametrize("fused", [False, True])
def test_a_merged_graph_is_quantized_whole(ours: onnx.ModelProto, fused: bool) -> None:
    """Attention behind a merge is no fused operator any more, and its products must not fall back to float."""
    merged = named(MergeTokens(((0, 5), (1, 4)), fused=fused)(ours))
    quantized = QuantizeDynamic()(merged)
    pixels = images(3)
    assert not list(linears(quantized))
    assert operators(quantized)["QAttention"] == operators(merged)["Attention"]
    assert operators(quantized)["MatMulInteger"] == sum(linear.splits for linear in linears(merged))
    difference = answers(quantized, pixels) - answers(merged, pixels)
    assert np.abs(difference).max() < 0.1 * np.abs(answers(merged, pixels)).max()


def test_a_layer_keeps_its_name_where_its_operator_changes(ours: onnx.ModelProto) -> None:
    """Which layers stay in float is decided before, by name."""
    attention = [node.name for node in ours.graph.node if node.op_type == "Attention"][1]
    merged = named(MergeTokens(((0, 5),))(ours))
    assert [node.op_type for node in merged.graph.node if node.name == attention] == ["MatMul"]
    assert attention in {linear.node for linear in linears(QuantizeDynamic((attention,))(merged))}


def test_the_argument_stays_as_it_was(ours: onnx.ModelProto) -> None:
    """A search merges the same graph again and again."""
    before = ours.SerializeToString()
    MergeTokens(((0, 5),))(ours)
    assert ours.SerializeToString() == before

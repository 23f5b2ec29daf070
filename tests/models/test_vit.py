"""The network itself: its function, its names, its gradients, its graph."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed
from torch.nn import functional

from vit_edge.errors import ImageError
from vit_edge.models import CATALOG, ViT, ViTConfig, resample_positions
from vit_edge.models.vit import StochasticDepth, by_hand

SMALL = ViTConfig((32, 48), 8, 64, 2, 4, 128, 5)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_tiny_patch32_384", "vit_mini_patch4_28"])
def test_the_formula_counts_the_parameters_that_the_network_has(name: str) -> None:
    """`vit-edge models` prints the formula's count without building the network."""
    model = ViT(CATALOG[name])
    assert sum(parameter.numel() for parameter in model.parameters()) == CATALOG[name].parameters
    without_bias = replace(SMALL, qkv_bias=False)
    assert sum(p.numel() for p in ViT(without_bias).parameters()) == without_bias.parameters


@pytest.mark.parametrize("qkv_bias", [True, False])
def test_random_weights_of_timm_give_timms_logits(qkv_bias: bool) -> None:
    """The same names in the same order and the same function, for oblong images too."""
    torch.manual_seed(0)
    theirs = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=(32, 48),
        patch_size=8,
        embed_dim=64,
        depth=2,
        num_heads=4,
        mlp_ratio=2,
        num_classes=5,
        qkv_bias=qkv_bias,
    ).eval()
    for parameter in theirs.parameters():  # biases and the like start at zero, which would hide a mistake
        torch.nn.init.normal_(parameter, std=0.2)
    ours = ViT(replace(SMALL, qkv_bias=qkv_bias)).eval()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict(), strict=True)
    pixels = torch.randn(3, 3, 32, 48)
    with torch.inference_mode():
        torch.testing.assert_close(ours(pixels), theirs(pixels), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", [(1, 3, 48, 32), (1, 1, 32, 48), (3, 32, 48)])
def test_pixels_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    """A wrong size must not end in a message about tensors that do not add up."""
    with pytest.raises(
        ImageError, match=r"expected pixels of shape \(batch, 3, 32, 48\), got \(.*\); resize"
    ):
        ViT(SMALL)(torch.zeros(shape))


def test_a_network_learns_from_scratch() -> None:
    """The random weights it starts from let gradients through to every parameter."""
    torch.manual_seed(0)
    model = ViT(SMALL)
    pixels, targets = torch.randn(20, 3, 32, 48), torch.arange(20) % 5
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(50):
        loss = functional.cross_entropy(model(pixels), targets)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] < 2.0  # ln 5 = 1.61: it starts without an opinion
    assert losses[-1] < 0.1


@pytest.mark.parametrize(("old", "new"), [((14, 14), (24, 24)), ((14, 14), (7, 7)), ((4, 6), (5, 3))])
def test_positions_are_resampled_as_timm_does(old: tuple[int, int], new: tuple[int, int]) -> None:
    """A checkpoint then answers at another image size as it does in timm."""
    positions = torch.randn(1, 1 + old[0] * old[1], 16)
    expected = resample_abs_pos_embed(positions, list(new), list(old))
    torch.testing.assert_close(resample_positions(positions, old, new), expected, atol=1e-6, rtol=0)


def test_positions_of_the_same_grid_are_left_as_they_are() -> None:
    """No rounding where there is nothing to do; a grid of the same count turned round is another grid."""
    positions = torch.randn(1, 1 + 24, 16)
    assert resample_positions(positions, (4, 6), (4, 6)) is positions
    assert not torch.equal(resample_positions(positions, (4, 6), (6, 4)), positions)


def test_an_exported_graph_answers_like_torch_at_any_batch(tmp_path: Path) -> None:
    """The exporter traces one batch; nothing in the network may freeze its size into the graph."""
    torch.manual_seed(0)
    model = ViT(SMALL).eval()
    path = tmp_path / "model.onnx"
    torch.onnx.export(
        model,
        (torch.zeros(2, 3, 32, 48),),
        path,
        dynamo=True,
        input_names=["pixels"],
        output_names=["logits"],
        dynamic_shapes={"pixels": {0: torch.export.Dim("batch")}},
        external_data=False,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", 3, 32, 48]
    for batch in (1, 2, 5):
        pixels = torch.randn(batch, 3, 32, 48)
        (logits,) = session.run(None, {"pixels": pixels.numpy()})
        with torch.inference_mode():
            np.testing.assert_allclose(logits, model(pixels).numpy(), atol=1e-4, rtol=0)


def test_branches_are_left_out_by_the_factors_that_are_set() -> None:
    """Whoever trains draws the chance; a network at work leaves nothing out."""
    config = ViTConfig((16, 16), patch_size=8, width=32, depth=1, heads=2, mlp_width=64, classes=7)
    model, pixels = ViT(config).train(), torch.randn(2, 3, 16, 16)
    whole = model(pixels)
    for branch in (module for module in model.modules() if isinstance(module, StochasticDepth)):
        branch.factors = torch.tensor([1.0, 0.0]).reshape(2, 1, 1)
    skipped = model(pixels)
    torch.testing.assert_close(skipped[0], whole[0])
    bare = model.norm(torch.cat([model.cls_token, model.patch_embed(pixels[1:])], dim=1) + model.pos_embed)
    torch.testing.assert_close(skipped[1], model.head(bare[0, 0]))
    torch.testing.assert_close(model.eval()(pixels), whole)


def test_attention_learns_what_the_fused_one_learns() -> None:
    """While training on a processor few tokens are computed by the formula, to the same answers and gradients."""
    torch.manual_seed(0)
    model, images = ViT(SMALL), torch.randn(4, 3, 32, 48)
    weight = model.get_parameter("blocks.0.attn.qkv.weight")
    found = []
    for training in (False, True):
        answers = model.train(training)(images)
        (gradient,) = torch.autograd.grad(answers.square().sum(), weight)
        found.append((answers, gradient))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


def test_attention_in_bf16_learns_what_it_learns_in_float32() -> None:
    """While training on a processor it is computed another way there, to the same answers and gradients."""
    torch.manual_seed(0)
    model = ViT(SMALL).train()
    images, targets = torch.randn(4, 3, 32, 48), torch.arange(4)
    found = []
    for half in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            logits = model(images)
        functional.cross_entropy(logits.float(), targets).backward()  # type: ignore[no-untyped-call]
        gradient = model.get_parameter("blocks.0.attn.qkv.weight").grad
        assert gradient is not None
        found.append((logits.float().detach(), gradient.clone()))
    for one, two in zip(*found, strict=True):
        assert float((one - two).norm() / one.norm()) < 0.02
    q, k, v = torch.randn(3, 2, 4, 65, 32)
    torch.testing.assert_close(by_hand(q, k, v), functional.scaled_dot_product_attention(q, k, v))

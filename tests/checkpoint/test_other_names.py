"""Weights of torchvision and of Google's JAX code, each compared with a library that runs them itself."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from torch.nn import functional
from torchvision.models import VisionTransformer

from vit_edge.checkpoint import load_checkpoint
from vit_edge.errors import CheckpointError

from .peers import SIDE, assert_same_logits, fine_tune


def torchvision_vit(**changes: Any) -> Any:
    """Give a small ViT built and fine-tuned by torchvision."""
    torch.manual_seed(0)
    sizes = {
        "image_size": SIDE,
        "patch_size": 8,
        "num_layers": 2,
        "num_heads": 4,
        "hidden_dim": 64,
        "mlp_dim": 96,
    }
    model = VisionTransformer(**sizes, num_classes=10, **changes)
    fine_tune(model, lambda pixels, classes: functional.cross_entropy(model(pixels), classes))
    return model


def test_torchvisions_weights_give_torchvisions_logits(tmp_path: Path) -> None:
    """Its attention keeps the three projections in one tensor, under other names."""
    theirs = torchvision_vit()
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    assert_same_logits(load_checkpoint(tmp_path / "weights.pth", heads=4), theirs)


def test_torchvisions_older_and_replaced_names_are_recognised(tmp_path: Path) -> None:
    """The MLP's names changed once, and tutorials replace the whole head by a linear layer."""
    theirs = torchvision_vit()
    state = {
        name.replace("mlp.0.", "mlp.linear_1.")
        .replace("mlp.3.", "mlp.linear_2.")
        .replace("heads.head.", "heads."): value
        for name, value in theirs.state_dict().items()
    }
    torch.save(state, tmp_path / "weights.pth")
    assert_same_logits(load_checkpoint(tmp_path / "weights.pth", heads=4), theirs)


def test_a_layer_before_torchvisions_head_is_refused(tmp_path: Path) -> None:
    """It carries a tanh that no name tells."""
    torch.save(torchvision_vit(representation_size=32).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"has a layer before the head \(pre_logits\)"):
        load_checkpoint(tmp_path / "weights.pth", heads=4)


def google_weights() -> dict[str, NDArray[np.float32]]:
    """Give random weights in the layout of Google's published .npz files."""
    random = np.random.default_rng(0)
    width, heads, mlp = 64, 4, 256

    def array(*shape: int) -> NDArray[np.float32]:
        return random.normal(0, 0.1, shape).astype(np.float32)

    weights = {
        "cls": array(1, 1, width),
        "embedding/kernel": array(8, 8, 3, width),
        "embedding/bias": array(width),
        "Transformer/posembed_input/pos_embedding": array(1, 17, width),
        "Transformer/encoder_norm/scale": array(width),
        "Transformer/encoder_norm/bias": array(width),
        "head/kernel": array(width, 10),
        "head/bias": array(10),
    }
    for layer in range(2):
        block = f"Transformer/encoderblock_{layer}"
        attention = f"{block}/MultiHeadDotProductAttention_1"
        for part in ("query", "key", "value"):
            weights[f"{attention}/{part}/kernel"] = array(width, heads, width // heads)
            weights[f"{attention}/{part}/bias"] = array(heads, width // heads)
        weights[f"{attention}/out/kernel"] = array(heads, width // heads, width)
        weights[f"{attention}/out/bias"] = array(width)
        for norm in ("LayerNorm_0", "LayerNorm_2"):
            weights[f"{block}/{norm}/scale"] = array(width)
            weights[f"{block}/{norm}/bias"] = array(width)
        weights[f"{block}/MlpBlock_3/Dense_0/kernel"] = array(width, mlp)
        weights[f"{block}/MlpBlock_3/Dense_0/bias"] = array(mlp)
        weights[f"{block}/MlpBlock_3/Dense_1/kernel"] = array(mlp, width)
        weights[f"{block}/MlpBlock_3/Dense_1/bias"] = array(width)
    return weights


def test_googles_npz_gives_the_logits_of_timms_own_loader(tmp_path: Path) -> None:
    """The original weights of the paper; their layout even tells the number of heads."""
    path = tmp_path / "weights.npz"
    np.savez(path, **google_weights())  # type: ignore[arg-type]
    theirs = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=SIDE,
        patch_size=8,
        embed_dim=64,
        depth=2,
        num_heads=4,
        num_classes=10,
    ).eval()
    theirs.load_pretrained(str(path))
    ours = load_checkpoint(path)
    assert ours.config.heads == 4
    assert_same_logits(ours, theirs)
    with pytest.raises(CheckpointError, match="has 4 attention heads, but 8 were given"):
        load_checkpoint(path, heads=8)


def test_googles_layer_before_the_head_is_refused(tmp_path: Path) -> None:
    """Left out, the head would read what it was not trained on."""
    weights = {**google_weights(), "pre_logits/kernel": np.eye(64, dtype=np.float32)}
    np.savez(tmp_path / "weights.npz", **weights)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="has a layer before the head"):
        load_checkpoint(tmp_path / "weights.npz")


def test_names_of_no_known_library_are_shown(tmp_path: Path) -> None:
    """The user sees at once that it is the wrong file."""
    torch.save({"conv1.weight": torch.zeros(3), "bn1.bias": torch.zeros(3)}, tmp_path / "resnet.pth")
    with pytest.raises(CheckpointError, match=r"Google's code, got bn1\.bias, conv1\.weight; give"):
        load_checkpoint(tmp_path / "resnet.pth")

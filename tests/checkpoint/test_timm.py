"""Models of timm: the shared real one, and ones fine-tuned and saved by timm itself."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data import create_transform, resolve_model_data_config
from timm.layers import SwiGLU
from timm.models import save_for_hf
from torch import nn
from torch.nn import functional
from torchvision.transforms import CenterCrop, Resize

from vit_edge.checkpoint import load_checkpoint
from vit_edge.checkpoint.timm_config import _PLAIN
from vit_edge.errors import CheckpointError
from vit_edge.runtime.labels import Label, Labels
from vit_edge.runtime.preprocess import Preprocessing, preprocess

from ..shared import SHARED, needs_shared
from .peers import NAMES, SIDE, assert_same_logits, fine_tune, photo

SIZES: dict[str, Any] = {"img_size": SIDE, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 4}


@pytest.fixture(scope="module")
def tuned() -> Any:
    """A small ViT built and fine-tuned by timm."""
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=10, **SIZES)
    fine_tune(model, lambda pixels, classes: functional.cross_entropy(model(pixels), classes))
    return model


@needs_shared
def test_the_shared_weights_give_timms_logits_on_real_images() -> None:
    """The product's main proof: a real pretrained model, strictly loaded, answers as in timm."""
    path = SHARED / "models/vit_tiny_patch16_224.safetensors"
    ours = load_checkpoint(path)
    assert (ours.labels, ours.preprocessing) == (None, None)  # a bare state dict tells neither
    theirs = timm.create_model("vit_tiny_patch16_224").eval()
    theirs.load_state_dict(load_file(path), strict=True)
    how = Preprocessing.parse("resize=248,crop=224,interpolation=bicubic,mean=0.5,std=0.5")
    images = sorted((SHARED / "data/imagenet_val800").glob("*/*.JPEG"))[::20]
    assert len(images) == 40
    arrays = [np.asarray(Image.open(image).convert("RGB")) for image in images]
    pixels = torch.from_numpy(np.stack([preprocess(array, how) for array in arrays]))
    with torch.inference_mode():
        torch.testing.assert_close(ours.model(pixels), theirs(pixels), atol=1e-4, rtol=0)
    assert not ours.model.training


@pytest.mark.parametrize("safe", [True, False])
def test_a_folder_saved_by_timm_is_loaded_with_its_labels(tuned: Any, tmp_path: Path, safe: bool) -> None:
    """What timm wrote beside the weights spares the user every option."""
    save_for_hf(tuned, str(tmp_path), safe_serialization=safe, model_config={"label_names": NAMES})
    ours = load_checkpoint(tmp_path)
    assert_same_logits(ours, tuned)
    assert ours.labels == Labels.of(NAMES)
    assert (ours.config.heads, ours.config.norm_eps) == (4, 1e-6)
    # The file inside is as good as its folder.
    name = "model.safetensors" if safe else "pytorch_model.bin"
    inside = load_checkpoint(tmp_path / name)
    assert (inside.labels, inside.preprocessing) == (ours.labels, ours.preprocessing)
    assert inside.sha256 == ours.sha256


@pytest.mark.parametrize(
    "data",
    [
        {"crop_pct": 0.9, "interpolation": "bicubic"},
        {
            "crop_pct": 0.875,
            "interpolation": "bilinear",
            "mean": (0.485, 0.456, 0.406),
            "std": (0.2, 0.3, 0.4),
        },
        {"crop_pct": 1.0, "crop_mode": "squash", "interpolation": "lanczos"},
        {"crop_pct": 0.7, "crop_mode": "squash"},
    ],
)
def test_the_preprocessing_is_what_timms_own_transform_does(
    tuned: Any, tmp_path: Path, data: dict[str, Any]
) -> None:
    """A pixel's shift here would cost accuracy on the device, where nothing could tell why."""
    save_for_hf(tuned, str(tmp_path), safe_serialization=True, data_config=data)
    ours = load_checkpoint(tmp_path).preprocessing
    assert ours is not None
    saved = json.loads((tmp_path / "config.json").read_text())["pretrained_cfg"]
    theirs = create_transform(**resolve_model_data_config(tuned, pretrained_cfg=saved), is_training=False)
    (resize,) = (step for step in theirs.transforms if isinstance(step, Resize))
    (crop,) = (step for step in theirs.transforms if isinstance(step, CenterCrop))
    assert ours.resize == (tuple(resize.size) if isinstance(resize.size, tuple | list) else resize.size)
    assert ours.crop == tuple(crop.size)
    assert ours.interpolation == resize.interpolation.value
    expected = theirs(Image.fromarray(photo())).numpy()
    level = 1 / 255 / min(ours.std)
    assert np.abs(preprocess(photo(), ours) - expected).max() < 1.01 * level  # one grey level of rounding


def test_a_name_with_a_description_is_the_classs_id(tuned: Any, tmp_path: Path) -> None:
    """ImageNet's timm models name classes by synset and describe them in words: folders match by the id."""
    ids = [f"n0000000{place}" for place in range(10)]
    names = {"label_names": ids, "label_descriptions": dict(zip(ids, NAMES, strict=True))}
    save_for_hf(tuned, str(tmp_path), safe_serialization=True, model_config=names)
    labels = load_checkpoint(tmp_path).labels
    assert labels is not None
    assert labels[3] == Label("three", "n00000003")


@pytest.mark.parametrize("kind", ["pth", "wrapped", "averaged", "parallel", "compiled", "safetensors", "npz"])
def test_a_state_dict_is_recognised_by_its_shapes(tuned: Any, tmp_path: Path, kind: str) -> None:
    """Training scripts save it bare, wrapped, averaged, or from a wrapper module; it is the same network."""
    state = tuned.state_dict()
    path = tmp_path / f"weights.{kind if kind in ('safetensors', 'npz') else 'pth'}"
    if kind == "safetensors":
        save_file(state, path)
    elif kind == "npz":
        np.savez(path, **{name: value.numpy() for name, value in state.items()})
    elif kind == "parallel":
        torch.save({"epoch": 3, "state_dict": nn.DataParallel(tuned).state_dict()}, path)
    elif kind == "compiled":
        torch.save({f"_orig_mod.{name}": value for name, value in state.items()}, path)
    elif kind == "averaged":
        old = {name: torch.zeros_like(value) for name, value in state.items()}
        torch.save({"model": old, "model_ema": state, "epoch": 3}, path)
    else:
        torch.save({"model": {"state_dict": state}} if kind == "wrapped" else state, path)
    ours = load_checkpoint(path, heads=4)
    assert_same_logits(ours, tuned)
    assert (ours.labels, ours.preprocessing) == (None, None)


def test_heads_that_no_shape_tells_are_asked_for(tuned: Any, tmp_path: Path) -> None:
    """Any number that divides the width would load, and all but one would answer wrongly."""
    torch.save(tuned.state_dict(), tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"width 64, depth 2 and MLP 256.* give it with --heads N"):
        load_checkpoint(tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="expected heads to divide the width of 64, got 3"):
        load_checkpoint(tmp_path / "weights.pth", heads=3)


def test_heads_that_contradict_the_config_are_refused(tuned: Any, tmp_path: Path) -> None:
    """A leftover option must not change what the network computes."""
    save_for_hf(tuned, str(tmp_path), safe_serialization=True)
    with pytest.raises(CheckpointError, match="has 4 attention heads, but 2 were given"):
        load_checkpoint(tmp_path, heads=2)


def test_heads_that_timm_did_not_record_are_the_architectures(tmp_path: Path) -> None:
    """The config holds only what was changed: here the depth, so that the sizes are no named ones."""
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=10, img_size=32, patch_size=8, depth=1)
    fine_tune(theirs, lambda pixels, classes: functional.cross_entropy(theirs(pixels), classes))
    save_for_hf(theirs, str(tmp_path), safe_serialization=True)
    assert_same_logits(load_checkpoint(tmp_path), theirs)


def test_another_image_size_resamples_as_timm_does_and_drops_the_preprocessing(
    tuned: Any, tmp_path: Path
) -> None:
    """Positions move with the grid; the saved crop belongs to the old size, and no new one is invented."""
    save_for_hf(tuned, str(tmp_path), safe_serialization=True, model_config={"label_names": NAMES})
    ours = load_checkpoint(tmp_path, image_size=48)
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=10, **{**SIZES, "img_size": 48}).eval()
    state = timm.models.vision_transformer.checkpoint_filter_fn(tuned.state_dict(), theirs)
    theirs.load_state_dict(state)
    pixels = torch.randn(2, 3, 48, 48)
    with torch.inference_mode():
        torch.testing.assert_close(ours.model(pixels), theirs(pixels), atol=1e-4, rtol=0)
    assert ours.config.image_size == (48, 48)
    assert (ours.labels, ours.preprocessing) == (Labels.of(NAMES), None)
    with pytest.raises(CheckpointError, match="patch of 8 pixels divides, got 50x50"):
        load_checkpoint(tmp_path, image_size=50)


def test_a_distillation_token_answers_as_in_timm(tmp_path: Path) -> None:
    """The two heads' answers are averaged, and both tokens keep their positions at another image size."""
    sizes = {**SIZES, "num_classes": 10}
    theirs = timm.create_model("deit_tiny_distilled_patch16_224", **sizes).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    ours = load_checkpoint(tmp_path / "weights.pth", heads=4)
    assert ours.config.distilled
    assert ours.config.parameters == sum(parameter.numel() for parameter in theirs.parameters())
    assert_same_logits(ours, theirs)
    larger = timm.create_model("deit_tiny_distilled_patch16_224", **{**sizes, "img_size": 48}).eval()
    larger.load_state_dict(timm.models.deit.checkpoint_filter_fn(theirs.state_dict(), larger))
    pixels = torch.randn(2, 3, 48, 48)
    with torch.inference_mode():
        answers = load_checkpoint(tmp_path / "weights.pth", heads=4, image_size=48).model(pixels)
        torch.testing.assert_close(answers, larger(pixels), atol=1e-4, rtol=0)


def test_an_oblong_model_needs_the_size_that_its_config_tells(tmp_path: Path) -> None:
    """4x6 patches and 6x4 are the same number of positions."""
    theirs = timm.create_model(
        "vit_tiny_patch16_224", num_classes=10, **{**SIZES, "img_size": (32, 48)}
    ).eval()
    save_for_hf(theirs, str(tmp_path), safe_serialization=True, data_config={"crop_mode": "squash"})
    ours = load_checkpoint(tmp_path)
    assert ours.config.image_size == (32, 48)
    assert ours.preprocessing is not None
    assert ours.preprocessing.crop == (32, 48)
    (tmp_path / "model.safetensors").rename(tmp_path / "bare.safetensors")
    with pytest.raises(CheckpointError, match="a square of patches, got 25 positions"):
        load_checkpoint(tmp_path / "bare.safetensors", heads=4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reg_tokens": 2}, r"has register tokens \(reg_token\), which is not supported"),
        ({"init_values": 0.1}, "has layer scale"),
        ({"pre_norm": True}, "has a norm before the encoder"),
        ({"qk_norm": True}, "has norms of queries and keys"),
        ({"global_pool": "avg"}, "has average pooling with a norm after it"),
        ({"global_pool": "map"}, "has attention pooling"),
        ({"class_token": False, "global_pool": "avg", "fc_norm": False}, "has no class token"),
        ({"num_classes": 0}, "has no head, so it does not classify"),
        ({"in_chans": 1}, "expected weights for RGB images, got 1 channels"),
        ({"no_embed_class": True}, "a square of patches, got 16 positions"),
        ({"mlp_layer": SwiGLU}, "has gated MLPs"),
    ],
)
def test_a_state_dict_of_another_kind_of_vit_is_refused_by_name(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    """Dropping what is not understood would give a network that runs and answers wrongly."""
    theirs = timm.create_model("vit_tiny_patch16_224", **{**SIZES, "num_classes": 10, **change})
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "weights.pth", heads=4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_relpos_small_patch16_224", r"has relative positions \(blocks\.0\.attn\.rel_pos\."),
        ("vit_tiny_r_s16_p8_224", "has convolutions before the patches"),
        ("deit3_small_patch16_224", "has layer scale"),
        ("resnet18", "expected the names of a ViT"),
    ],
)
def test_a_state_dict_of_a_related_network_is_refused_by_name(
    tmp_path: Path, name: str, message: str
) -> None:
    """Each shares most of the plain ViT's names; some have several such parts, and any one is enough."""
    weights = timm.create_model(name, num_classes=2).state_dict()
    if "relpos" in name:
        weights = {key: value for key, value in weights.items() if ".ls" not in key and "fc_norm" not in key}
    torch.save(weights, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "weights.pth")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"global_pool": "avg", "fc_norm": False}, "it pools by 'avg', which is not supported"),
        ({"act_layer": "gelu_tanh"}, "it was built with act_layer='gelu_tanh', which is not supported"),
    ],
)
def test_a_difference_that_leaves_no_trace_in_the_weights_is_found_in_the_config(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    """These state dicts look exactly like the plain ViT's."""
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=10, **SIZES, **change)
    save_for_hf(theirs, str(tmp_path), safe_serialization=True)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path)


def test_every_architecture_that_is_let_through_is_the_plain_vit_in_timm() -> None:
    """The name in a config vouches for the function where state dicts cannot."""
    names = [name for name in timm.list_models("*") if _PLAIN.fullmatch(name)]
    assert len(names) > 15
    with torch.device("meta"):
        for name in names:
            model = timm.create_model(name, depth=1, img_size=224)
            assert type(model) is timm.models.vision_transformer.VisionTransformer, name
            assert type(model.blocks[0]).__name__ == "Block", name
            assert isinstance(model.blocks[0].mlp.act, nn.GELU), name
            assert model.blocks[0].mlp.act.approximate == "none", name
            assert model.norm.eps == 1e-6, name
            assert model.global_pool == "token", name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"architecture": "deit3_small_patch16_224"},
            "its architecture deit3_small_patch16_224 is not supported",
        ),
        ({"label_names": {"0": "a", "2": "b"}}, "its label_names leave out places"),
        ({"label_names": ["a", "b"]}, "expected 10 labels, one for each output, got 2"),
        ({"model_args": 3}, "its config files are damaged"),
        ({"model_args": {"img_size": 64}}, "images of 64x64, which make 64 patches, but its weights .* 16"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(
    tuned: Any, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    """Configs are edited by hand and copied between models."""
    save_for_hf(tuned, str(tmp_path), safe_serialization=True)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"crop_mode": "border"},
            "its crop mode 'border' pads images, which is not supported; give --preprocess",
        ),
        ({"interpolation": "nearest"}, "its preprocessing is not supported: expected interpolation"),
    ],
)
def test_a_preprocessing_that_cannot_be_had_is_refused_unless_another_is_given(
    tuned: Any, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    """The user may know what fits; nothing is put in its place silently."""
    save_for_hf(tuned, str(tmp_path), safe_serialization=True)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config["pretrained_cfg"] |= change
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path)
    given = Preprocessing.parse("resize=32x32,crop=32,interpolation=bicubic,mean=0.5,std=0.5")
    assert load_checkpoint(tmp_path, preprocessing=given).preprocessing == given


def test_a_preprocessing_without_all_its_numbers_counts_as_absent(tuned: Any, tmp_path: Path) -> None:
    """The missing ones are not filled with ImageNet's."""
    save_for_hf(tuned, str(tmp_path), safe_serialization=True)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    del config["pretrained_cfg"]["mean"]
    path.write_text(json.dumps(config))
    assert load_checkpoint(tmp_path).preprocessing is None

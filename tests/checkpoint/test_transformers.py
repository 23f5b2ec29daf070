"""Models of transformers, fine-tuned and saved by transformers itself."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor, ViTModel

from vit_edge.checkpoint import load_checkpoint
from vit_edge.errors import CheckpointError
from vit_edge.runtime.labels import Labels
from vit_edge.runtime.preprocess import preprocess

from .peers import NAMES, SIDE, assert_same_logits, fine_tune, photo

SIZES: dict[str, Any] = {
    "image_size": SIDE,
    "patch_size": 8,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "num_labels": 10,
}
SQUASH = ViTImageProcessor(size={"height": SIDE, "width": SIDE})


def tune(**changes: Any) -> Any:
    """Give a small ViT built and fine-tuned by transformers."""
    torch.manual_seed(0)
    model = ViTForImageClassification(ViTConfig(**{**SIZES, **changes}))
    fine_tune(model, lambda pixels, classes: model(pixel_values=pixels, labels=classes).loss)
    return model


@pytest.fixture(scope="module")
def tuned() -> Any:
    """A small ViT with names for its classes."""
    return tune(id2label=dict(enumerate(NAMES)), label2id={name: place for place, name in enumerate(NAMES)})


def logits(model: Any) -> Any:
    """Give the function from pixels to logits."""

    def run(pixels: Tensor) -> Any:
        return model(pixel_values=pixels).logits

    return run


def test_a_folder_of_save_pretrained_is_loaded_with_its_labels(tuned: Any, tmp_path: Path) -> None:
    """The commonest way to fine-tune a ViT ends in such a folder; nothing more should have to be said."""
    tuned.save_pretrained(tmp_path)
    SQUASH.save_pretrained(tmp_path)
    ours = load_checkpoint(tmp_path)
    assert_same_logits(ours, logits(tuned))
    assert ours.labels == Labels.of(NAMES)
    assert ours.preprocessing is not None
    assert (ours.config.heads, ours.config.mlp_width, ours.config.norm_eps) == (4, 96, 1e-12)
    inside = load_checkpoint(tmp_path / "model.safetensors")
    assert (inside.labels, inside.preprocessing) == (ours.labels, ours.preprocessing)


def test_weights_spread_over_several_files_are_joined(tuned: Any, tmp_path: Path) -> None:
    """Large models are saved so."""
    tuned.save_pretrained(tmp_path, max_shard_size="50KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert_same_logits(load_checkpoint(tmp_path), logits(tuned))
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("model-00001", "../model-00001"))
    with pytest.raises(CheckpointError, match="points outside its folder"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("kind", ["old names", "new names", "pth"])
def test_a_state_dict_of_either_version_is_recognised(tuned: Any, tmp_path: Path, kind: str) -> None:
    """Version 5 renamed the modules in memory; its files, and all older ones, keep the names of version 4."""
    path = tmp_path / "weights.safetensors"
    state = tuned.state_dict()
    assert "vit.layers.0.attention.q_proj.weight" in state
    if kind == "old names":
        tuned.save_pretrained(tmp_path)
        (tmp_path / "model.safetensors").rename(path)
        assert b"vit.encoder.layer.0.attention.attention.query.weight" in path.read_bytes()
    elif kind == "new names":
        save_file(state, path)
    else:
        torch.save(state, path)
    ours = load_checkpoint(path, heads=4)
    assert_same_logits(ours, logits(tuned))
    assert (ours.labels, ours.preprocessing) == (None, None)


@pytest.mark.parametrize("change", [{"qkv_bias": False}, {"layer_norm_eps": 0.05}])
def test_a_config_decides_what_shapes_cannot(tmp_path: Path, change: dict[str, Any]) -> None:
    """An epsilon as large as this one moves the logits, and is nowhere in the weights."""
    theirs = tune(**change)
    theirs.save_pretrained(tmp_path)
    assert_same_logits(load_checkpoint(tmp_path), logits(theirs))


def test_transformers_own_placeholders_are_no_labels(tmp_path: Path) -> None:
    """LABEL_7 would be shown to people as an answer."""
    tune().save_pretrained(tmp_path)
    assert "LABEL_7" in (tmp_path / "config.json").read_text()
    assert load_checkpoint(tmp_path).labels is None
    assert load_checkpoint(tmp_path, labels=Labels.of(NAMES)).labels == Labels.of(NAMES)


@pytest.mark.parametrize(
    "options",
    [
        {"size": {"height": SIDE, "width": SIDE}},
        {"size": {"height": SIDE, "width": SIDE}, "resample": 3, "image_mean": [0.485, 0.456, 0.406]},
        {"size": {"shortest_edge": 36}, "do_center_crop": True, "crop_size": SIDE},
        {
            "size": {"height": 40, "width": 36},
            "do_center_crop": True,
            "crop_size": {"height": SIDE, "width": SIDE},
        },
        {"size": {"height": SIDE, "width": SIDE}, "do_normalize": False},
        {"size": {"height": SIDE, "width": SIDE}, "do_rescale": False, "image_mean": 99.0, "image_std": 50.0},
        {
            "size": {"height": SIDE, "width": SIDE},
            "rescale_factor": 1 / 127.5,
            "image_mean": 1.0,
            "image_std": 1.5,
        },
    ],
)
def test_the_preprocessing_is_what_transformers_own_processor_does(
    tuned: Any, tmp_path: Path, options: dict[str, Any]
) -> None:
    """Rescaling and normalising are two steps there and one here; the pixels must be the same."""
    if "image_mean" in options and not isinstance(options["image_mean"], list):
        options = {
            **options,
            "image_mean": [options["image_mean"]] * 3,
            "image_std": [options["image_std"]] * 3,
        }
    processor = ViTImageProcessor(**options)
    tuned.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    ours = load_checkpoint(tmp_path).preprocessing
    assert ours is not None
    assert ours.crop == (SIDE, SIDE)
    expected = processor(Image.fromarray(photo()), return_tensors="pt")["pixel_values"][0].numpy()
    level = 1 / 255 / min(ours.std)
    assert np.abs(preprocess(photo(), ours) - expected).max() < 1.01 * level  # one grey level of rounding


def test_a_mean_that_is_scaled_by_1_over_255_is_kept_to_the_last_digit(tuned: Any, tmp_path: Path) -> None:
    """Folding must not turn 0.485 into 0.48500000000000004, which would differ from what a user gives."""
    tuned.save_pretrained(tmp_path)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    size = {"height": SIDE, "width": SIDE}
    ViTImageProcessor(size=size, image_mean=mean, image_std=std).save_pretrained(tmp_path)
    ours = load_checkpoint(tmp_path).preprocessing
    assert ours is not None
    assert (ours.resize, list(ours.mean), list(ours.std)) == ((SIDE, SIDE), mean, std)
    assert ours.interpolation == "bilinear"


def test_a_processor_of_an_old_version_has_the_classs_defaults(tuned: Any, tmp_path: Path) -> None:
    """Such a file, from before version 4.25, lies beside the best known ViT weights."""
    tuned.save_pretrained(tmp_path)
    old = {
        "do_normalize": True,
        "do_resize": True,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "size": SIDE,
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(old))
    theirs = ViTImageProcessor.from_pretrained(tmp_path)
    assert (theirs.size["height"], theirs.size["width"], int(theirs.resample)) == (SIDE, SIDE, 2)
    ours = load_checkpoint(tmp_path).preprocessing
    assert str(ours) == f"resize={SIDE}x{SIDE},crop={SIDE},interpolation=bilinear,mean=0.5,std=0.5"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"do_resize": False}, "does not resize"),
        ({"size": {"shortest_edge": SIDE}}, "resizes without a crop"),
        (
            {"size": {"shortest_edge": SIDE, "longest_edge": 64}},
            "resizes to {.*longest_edge.*}, which is not",
        ),
        ({"resample": 0}, "its filter of Pillow's number 0 is not supported"),
        (
            {"image_processor_type": "CLIPImageProcessor"},
            "its image processor CLIPImageProcessor is not supported",
        ),
        ({"do_center_crop": True, "crop_size": 64}, "expected a crop within the resized image"),
        ({"size": {"height": 64, "width": 64}}, "crops to 64x64, but the network takes 32x32"),
    ],
)
def test_a_preprocessing_that_cannot_be_had_is_refused(
    tuned: Any, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    """A near miss would run and cost accuracy."""
    tuned.save_pretrained(tmp_path)
    SQUASH.save_pretrained(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | options))
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "gelu_new"}, "its hidden_act 'gelu_new' is not supported"),
        ({"model_type": "deit"}, "its model_type 'deit' is not supported"),
        ({"problem_type": "multi_label_classification"}, "gives several labels to an image"),
        ({"id2label": {"0": "a", "2": "b"}}, "its id2label leaves out places"),
        ({"id2label": {"0": "a", "1": "b"}}, "expected 10 labels, one for each output, got 2"),
        ({"num_hidden_layers": 3}, "its config says depth 3, but its weights have 2"),
        ({"num_attention_heads": 5}, "expected heads to divide the width of 64, got 5"),
        ({"image_size": "big"}, "expected the image size in its config in pixels"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(
    tuned: Any, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    """These weights would load, and answer wrongly."""
    tuned.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path)


def test_a_model_without_a_head_is_refused(tmp_path: Path) -> None:
    """What is published for pretraining does not classify yet."""
    ViTModel(ViTConfig(**SIZES)).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="has no head"):
        load_checkpoint(tmp_path)

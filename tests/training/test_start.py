"""What a run starts from: heads, tokens, positions and preprocessing of a checkpoint."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vit_edge.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from vit_edge.errors import ModelError, TrainingError
from vit_edge.models import ViT
from vit_edge.runtime.labels import Label, Labels
from vit_edge.runtime.preprocess import Preprocessing
from vit_edge.training import new_model, open_start, start_from, start_new

from .test_fit import CONFIG, LABELS, PREPROCESSING


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A checkpoint of blue, green, red that takes 8x8 images."""
    save_checkpoint(tmp_path / "one.safetensors", network(), labels=LABELS, preprocessing=PREPROCESSING)
    return tmp_path / "one.safetensors"


def network() -> ViT:
    model = new_model(CONFIG, seed=3)
    torch.nn.init.normal_(model.head.bias, generator=torch.Generator().manual_seed(0))
    return model


def opened(file: Path) -> Checkpoint:
    return open_start(str(file), image_size=None, mean=None, std=None)[0]


def same_trunk(one: ViT, two: ViT) -> bool:
    theirs = two.state_dict()
    return all(
        torch.equal(value, theirs[name])
        for name, value in one.state_dict().items()
        if not name.startswith(("head", "pos_embed"))
    )


def test_rows_of_a_kept_head_follow_the_labels(file: Path) -> None:
    """Folders are in the order of the alphabet, heads in that of whoever trained them."""
    start = start_from(opened(file), Labels.of(["red", "blue", "green"]), PREPROCESSING, seed=0)
    assert torch.equal(start.model.head.weight, network().head.weight[[2, 0, 1]])
    assert torch.equal(start.model.head.bias, network().head.bias[[2, 0, 1]])
    assert same_trunk(start.model, network())
    assert start.told.endswith("knows all 3 classes: its head goes on")


def test_some_of_the_classes_keep_their_rows(file: Path) -> None:
    """Ten of a thousand classes are a common wish, and their answers are known already."""
    start = start_from(opened(file), Labels.of(["green", "red"]), PREPROCESSING, seed=0)
    assert torch.equal(start.model.head.weight, network().head.weight[[1, 2]])
    assert start.model.config.classes == 2


def test_classes_are_found_by_their_ids_too(tmp_path: Path) -> None:
    """ImageNet's folders are called by ids such as n01440764."""
    labels = Labels(
        (Label("tench", "n01440764"), Label("goldfish", "n01443537"), Label("shark", "n01484850"))
    )
    path = tmp_path / "ids.safetensors"
    save_checkpoint(path, network(), labels=labels, preprocessing=PREPROCESSING)
    start = start_from(opened(path), Labels.of(["n01484850", "n01440764"]), PREPROCESSING, seed=0)
    assert torch.equal(start.model.head.weight, network().head.weight[[2, 0]])


def test_one_unknown_class_makes_the_head_new(file: Path) -> None:
    """A head that is half old would favour the classes that it knows."""
    labels = Labels.of(["blue", "green", "red", "sky"])
    start, again, other = (start_from(opened(file), labels, PREPROCESSING, seed=seed) for seed in (1, 1, 2))
    assert start.told.endswith("was trained on 3 other classes: it gets a new head for 4")
    assert start.model.head.weight.shape == (4, 16)
    assert not torch.equal(start.model.head.weight[:3], network().head.weight)
    assert torch.equal(start.model.head.weight, again.model.head.weight)
    assert not torch.equal(start.model.head.weight, other.model.head.weight)
    assert same_trunk(start.model, network())


def test_a_checkpoint_that_names_no_classes_gets_a_new_head(file: Path) -> None:
    """As many classes are not the same classes."""
    start = start_from(replace(opened(file), labels=None), LABELS, PREPROCESSING, seed=0)
    assert start.told.endswith("was trained on classes that it does not name: it gets a new head for 3")
    assert not torch.equal(start.model.head.weight, network().head.weight)


def test_a_distillation_token_begins_as_the_class_token(file: Path) -> None:
    """So the network answers at once as it did, and the token learns from there."""
    start = start_from(opened(file), LABELS, PREPROCESSING, seed=0, distilled=True)
    model, old = start.model, network()
    assert model.config.distilled
    assert torch.equal(model.dist_token, old.cls_token)
    assert torch.equal(model.pos_embed, torch.cat([old.pos_embed[:, :1], old.pos_embed], dim=1))
    assert torch.equal(model.head_dist.weight, model.head.weight)
    assert same_trunk(old, model)
    # Two tokens that are alike get the same answer, and the rest sees one token more.
    answers = model.train()(torch.zeros(2, 3, 8, 8))
    torch.testing.assert_close(answers[:, 0], answers[:, 1])
    kept = start_from(replace(opened(file), model=model), LABELS, PREPROCESSING, seed=0)
    assert torch.equal(kept.model.dist_token, old.cls_token)


def test_another_size_resamples_the_positions(file: Path) -> None:
    """A network that saw 2x2 patches sees 4x4, in the same places."""
    checkpoint, preprocessing = open_start(str(file), image_size=16, mean=None, std=None)
    expected = load_checkpoint(file, image_size=16).model.pos_embed
    assert preprocessing == replace(PREPROCESSING, resize=16, crop=(16, 16))
    start = start_from(checkpoint, LABELS, preprocessing, seed=0)
    assert start.model.config.image_size == (16, 16)
    assert start.model.pos_embed.shape == (1, 17, 16)
    assert torch.equal(start.model.pos_embed, expected)
    assert torch.equal(start.model.pos_embed[:, :1], network().pos_embed[:, :1])
    assert same_trunk(start.model, network())
    with pytest.raises(TrainingError, match="takes images of 8x8 and the preprocessing gives 16x16"):
        start_from(opened(file), LABELS, preprocessing, seed=0)


def test_the_preprocessing_is_the_checkpoint_s_or_asked_for(file: Path, tmp_path: Path) -> None:
    """Features of a network mean nothing on colours of another scale."""
    assert open_start(str(file), image_size=None, mean=None, std=None)[1] == PREPROCESSING
    with pytest.raises(TrainingError, match="says itself how its images were normalised; leave out --mean"):
        open_start(str(file), image_size=None, mean="0.5", std="0.5")
    from safetensors.torch import save_file

    bare = tmp_path / "bare.safetensors"
    save_file({name: value.contiguous() for name, value in network().state_dict().items()}, bare)
    for given in ((None, None), ("0.5", None)):
        with pytest.raises(TrainingError, match="does not say how its images were normalised; give --mean"):
            open_start(str(bare), image_size=None, mean=given[0], std=given[1], heads=2)
    _, preprocessing = open_start(str(bare), image_size=None, mean="0.4/0.5/0.6", std="0.25", heads=2)
    expected = "resize=8,crop=8,interpolation=bicubic,mean=0.4/0.5/0.6,std=0.25"
    assert preprocessing == Preprocessing.parse(expected)
    with pytest.raises(ModelError, match="expected std to be one number or three"):
        open_start(str(bare), image_size=None, mean="0.5", std="loud", heads=2)


def test_a_new_network_says_how_large_it_is() -> None:
    """The first line of a run tells what is trained."""
    start = start_new(CONFIG, PREPROCESSING, seed=0)
    assert start.told == f"a new network of {CONFIG.parameters:,} weights"
    assert torch.equal(start.model.head.weight, new_model(CONFIG, seed=0).head.weight)

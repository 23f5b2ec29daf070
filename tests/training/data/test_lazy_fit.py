"""A run on images that are not in memory: read by workers, in an order that suits shards, and the same as ever."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vit_edge.errors import TrainingError
from vit_edge.models import ViTConfig
from vit_edge.runtime.labels import Labels
from vit_edge.runtime.preprocess import Preprocessing
from vit_edge.training import Epoch, ImageSet, Recipe, fit, new_model, open_run
from vit_edge.training.batches import batches
from vit_edge.training.chance import BUFFER, order
from vit_edge.training.data import LazySet, Prepared, open_data, prepare
from vit_edge.training.recipe import Policy

from ...drain import drained
from .conftest import PREPROCESSING, pack_folder, write_cifar

CONFIG = ViTConfig((8, 8), patch_size=4, width=16, depth=1, heads=2, mlp_width=32, classes=3)
LABELS = Labels.of(["blue", "green", "red"])
RECIPE = Recipe(epochs=2, batch_size=8, learning_rate=3e-3)


def prepared(data: Path | str, memory_limit: int, *, recipe: Recipe = RECIPE) -> Prepared:
    found = open_data(data, share=0.25)
    return drained(prepare(found, PREPROCESSING, whole=recipe.crops, memory_limit=memory_limit))[1]


def trained(sets: Prepared, run: Path, workers: int) -> list[Epoch]:
    model = new_model(CONFIG, seed=0)
    return list(
        fit(
            model,
            sets.training,
            sets.validation,
            labels=LABELS,
            recipe=RECIPE,
            run=open_run(run),
            workers=workers,
        )
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_images_that_are_read_anew_train_the_same_network(folder: Path, tmp_path: Path, workers: int) -> None:
    """How much memory a machine has must not decide what is learned."""
    held = trained(prepared(folder, 2**30), tmp_path / "held", 0)
    lazy = trained(prepared(folder, 0), tmp_path / "lazy", workers)
    assert [epoch.loss for epoch in lazy] == [epoch.loss for epoch in held]
    assert [epoch.val_loss for epoch in lazy] == pytest.approx([epoch.val_loss for epoch in held], rel=1e-6)


@pytest.mark.parametrize("augment", ["trivial", "none", "shift"])
def test_crops_are_of_whole_images_whatever_memory_there_is(folder: Path, augment: Policy) -> None:
    """Random crops of what was cropped already would show the network less of each picture, on large machines only."""
    recipe = replace(RECIPE, augment=augment, crop_scale=0.6)
    much, little = (prepared(folder, limit, recipe=recipe) for limit in (2**30, 0))
    assert isinstance(much.validation, ImageSet)
    assert isinstance(much.training, ImageSet) == (augment == "shift")
    for one, other in zip(
        batches(much.training, recipe, epochs=[2]), batches(little.training, recipe, epochs=[2]), strict=True
    ):
        torch.testing.assert_close(one.images, other.images, rtol=0, atol=0)
    assert much.training.example(0)[0].shape == ((8, 8, 3) if augment == "shift" else (10, 12, 3))


def test_images_of_the_network_s_size_are_kept_for_crops_too(tmp_path: Path) -> None:
    """Nothing lies outside of them, and nothing need be read again; by a note of an earlier run as well."""
    write_cifar(tmp_path / "cifar")
    recipe = replace(RECIPE, augment="trivial", crop_scale=0.6)
    at_32 = Preprocessing.parse("resize=32,crop=32,interpolation=bicubic,mean=0.5,std=0.5")
    found = open_data(tmp_path / "cifar")
    for _ in range(2):
        kept = drained(prepare(found, at_32, whole=True))[1].training
        assert isinstance(kept, ImageSet)
    lazy = drained(prepare(found, at_32, whole=True, memory_limit=0))[1].training
    for one, other in zip(batches(kept, recipe, epochs=[1]), batches(lazy, recipe, epochs=[1]), strict=True):
        torch.testing.assert_close(one.images, other.images, rtol=0, atol=0)
    # What is enlarged before the middle is taken has an outside.
    at_40 = replace(at_32, resize=40)
    assert isinstance(drained(prepare(found, at_40, whole=True))[1].training, LazySet)


def test_classes_are_gathered_once(folder: Path) -> None:
    """A part of a collection gathers the classes of all its images each time, and a million images ask for it each."""
    training = prepared(folder, 0).training
    assert training.targets is training.targets
    assert training.example(3)[1] == training.targets[3]


def test_shards_train_with_workers(folder: Path, tmp_path: Path) -> None:
    """The whole way from tar files to a network that has learnt."""
    pack_folder(folder, "s{}.tar", count=3)
    epochs = trained(prepared(f"{folder.parent}/s{{0..2}}.tar", 0), tmp_path / "run", 2)
    assert epochs[-1].val_accuracy > 0.5


def test_the_order_of_shards_is_whole_and_close_to_the_stream() -> None:
    """Every image once, read from a few files at a time, in another order in every epoch."""
    shards = np.repeat(np.arange(40), 1000)
    places = order(7, 1, len(shards), shards=shards)
    assert sorted(places.tolist()) == list(range(40_000))
    # A batch comes from the buffer's few shards of forty, not from all.
    reach = [len(set(shards[places[start : start + 512]].tolist())) for start in range(0, 40_000, 512)]
    assert max(reach) <= BUFFER // 1000 + 3
    # Within them it is mixed.
    assert min(reach[8:-8]) >= 4
    assert np.mean(np.diff(places) == 1) < 0.01
    first = [int(shards[order(7, epoch, len(shards), shards=shards)[0]]) for epoch in range(1, 9)]
    assert len(set(first)) > 3
    np.testing.assert_array_equal(places, order(7, 1, len(shards), shards=shards))


def test_shards_without_images_of_a_part_are_no_trouble() -> None:
    """A share that is set aside leaves gaps."""
    shards = np.array([3, 3, 9, 9, 9, 1])
    assert sorted(order(0, 1, 6, shards=shards).tolist()) == list(range(6))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_breaks_during_a_run_is_one_sentence(folder: Path, workers: int) -> None:
    """Someone tidied up; with which file, and how to go on."""
    sets = prepared(folder, 0)
    for image in folder.glob("red/*.png"):
        image.unlink()
    with pytest.raises(TrainingError) as caught:
        list(batches(sets.training, RECIPE, epochs=[1], workers=workers))
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"{folder}/red/")
    assert "does not exist" in text
    assert text.endswith("it could be read when the run began; mend it, then go on with --resume")

"""The training loop, on pictures that a tiny network learns in seconds."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vit_edge.checkpoint import load_checkpoint
from vit_edge.data import class_folders, labelled_images
from vit_edge.errors import TrainingError
from vit_edge.models import ViT, ViTConfig
from vit_edge.runtime.image import read_image
from vit_edge.runtime.labels import Labels
from vit_edge.runtime.preprocess import Preprocessing, preprocess
from vit_edge.training import (
    BEST,
    METRICS,
    Epoch,
    ImageSet,
    Recipe,
    Step,
    decode,
    evaluate,
    fit,
    gather,
    new_model,
    open_run,
)
from vit_edge.training.learner import to_network
from vit_edge.training.optimizer import parameter_groups

from .pictures import paint

CONFIG = ViTConfig((8, 8), patch_size=4, width=16, depth=2, heads=2, mlp_width=32, classes=3)
PREPROCESSING = Preprocessing(8, (8, 8), "bicubic", (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
LABELS = Labels.of(["blue", "green", "red"])
RECIPE = Recipe(epochs=4, batch_size=8, learning_rate=3e-3)
TIMES = ("images_per_second", "seconds_left")


def painted(folder: Path, *, seed: int = 0) -> ImageSet:
    paint(folder, seed=seed)
    samples = labelled_images(folder, class_folders(folder))
    return gather(decode(samples, PREPROCESSING), len(samples), PREPROCESSING)


@pytest.fixture
def sets(tmp_path: Path) -> tuple[ImageSet, ImageSet]:
    return painted(tmp_path / "training"), painted(tmp_path / "validation", seed=1)


def trained(sets: tuple[ImageSet, ImageSet], run: Path, recipe: Recipe = RECIPE) -> tuple[ViT, list[Epoch]]:
    model = new_model(CONFIG, seed=recipe.seed)
    return model, list(fit(model, *sets, labels=LABELS, recipe=recipe, run=open_run(run)))


def weights(model: ViT) -> dict[str, NDArray[np.float32]]:
    return {name: value.numpy().copy() for name, value in model.state_dict().items()}


def test_a_network_learns_and_its_best_epoch_is_kept(sets: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    """The checkpoint is what export takes: network, labels, preprocessing, at the accuracy that was told."""
    _, epochs = trained(sets, tmp_path / "run")
    assert epochs[-1].loss < epochs[0].loss
    best = [epoch for epoch in epochs if epoch.best][-1]
    assert best.val_accuracy == max(epoch.val_accuracy for epoch in epochs) >= 0.9
    checkpoint = load_checkpoint(tmp_path / "run" / BEST)
    assert checkpoint.labels == LABELS
    assert checkpoint.preprocessing == PREPROCESSING
    assert checkpoint.config == CONFIG
    assert evaluate(checkpoint.model, sets[1]) == (best.val_loss, best.val_accuracy)


def test_the_accuracy_is_that_of_the_runtime(sets: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    """The number at the end of training has to be the number on the device, from the files themselves."""
    model, epochs = trained(sets, tmp_path / "run")
    samples = labelled_images(tmp_path / "validation", LABELS)
    with torch.inference_mode():
        answers = [
            int(model(torch.from_numpy(preprocess(read_image(sample.path), PREPROCESSING))[None]).argmax())
            for sample in samples
        ]
    right = sum(answer == sample.target for answer, sample in zip(answers, samples, strict=True))
    assert epochs[-1].val_accuracy == right / len(samples)


def test_the_same_seed_gives_the_same_weights_bit_for_bit(
    sets: tuple[ImageSet, ImageSet], tmp_path: Path
) -> None:
    """Whoever changes one option has to see what that option did, and nothing else."""
    first, told = trained(sets, tmp_path / "a")
    torch.rand(7)  # chance used elsewhere must not matter
    second, told_again = trained(sets, tmp_path / "b")
    assert all(np.array_equal(weights(second)[name], value) for name, value in weights(first).items())
    plain = [{key: value for key, value in asdict(e).items() if key not in TIMES} for e in told]
    assert plain == [{key: value for key, value in asdict(e).items() if key not in TIMES} for e in told_again]


@pytest.mark.parametrize("what", ["weights", "order"])
def test_another_seed_gives_other_weights(sets: tuple[ImageSet, ImageSet], tmp_path: Path, what: str) -> None:
    """The seed has to reach the first weights and the order of the images alike."""
    if what == "weights":
        first, second = new_model(CONFIG, seed=0), new_model(CONFIG, seed=1)
    else:
        first, second = new_model(CONFIG, seed=0), new_model(CONFIG, seed=0)
        for model, seed in ((first, 0), (second, 1)):
            recipe = Recipe(epochs=1, batch_size=8, seed=seed, shift=0, zoom=0)
            list(fit(model, *sets, labels=LABELS, recipe=recipe, run=open_run(tmp_path / str(seed))))
    assert not np.array_equal(first.head.weight.detach(), second.head.weight.detach())


def test_training_leaves_the_chance_of_others_alone(sets: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    """A library that seeds the whole process changes experiments that it has no part in."""
    before = torch.get_rng_state()
    trained(sets, tmp_path / "run", Recipe(epochs=1, batch_size=8))
    assert torch.equal(before, torch.get_rng_state())


def test_metrics_are_a_line_an_epoch_and_start_anew(sets: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    """Two runs in one file would draw one crooked curve."""
    trained(sets, tmp_path / "run")
    model = new_model(CONFIG, seed=0)
    run = open_run(tmp_path / "run", force=True)
    epochs = list(fit(model, *sets, labels=LABELS, recipe=Recipe(epochs=2, batch_size=8), run=run))
    lines = (run / METRICS).read_text().splitlines()
    assert [json.loads(line) for line in lines] == [asdict(epoch) for epoch in epochs]
    assert [epoch.epoch for epoch in epochs] == [1, 2]
    assert epochs[-1].seconds_left == 0 < epochs[0].seconds_left
    assert all(epoch.images_per_second > 0 for epoch in epochs)


def test_a_forced_run_keeps_the_old_checkpoint_until_it_has_its_own(
    sets: tuple[ImageSet, ImageSet], tmp_path: Path
) -> None:
    """A run that fails at once must not cost the user the one that worked."""
    trained(sets, tmp_path / "run")
    before = (tmp_path / "run" / BEST).read_bytes()
    run = open_run(tmp_path / "run", force=True)
    recipe = Recipe(epochs=1, batch_size=4, learning_rate=1e6, warmup=0)
    with pytest.raises(TrainingError):
        list(fit(new_model(CONFIG, seed=0), *sets, labels=LABELS, recipe=recipe, run=run))
    assert (run / BEST).read_bytes() == before


def test_a_later_epoch_that_is_worse_is_not_kept(sets: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    """The file is the best of the run, not the last."""
    recipe = Recipe(epochs=6, batch_size=8, learning_rate=0.1, warmup=0.8)
    _, epochs = trained(sets, tmp_path / "run", recipe)
    best = max(epochs, key=lambda epoch: (epoch.val_accuracy, -epoch.val_loss))
    assert not epochs[-1].best or best is epochs[-1]
    model = load_checkpoint(tmp_path / "run" / BEST).model
    assert evaluate(model, sets[1]) == (best.val_loss, best.val_accuracy)


@pytest.mark.parametrize("rate", [1e5, 1e6])
def test_a_loss_that_is_no_number_stops_with_step_and_cause(
    sets: tuple[ImageSet, ImageSet], tmp_path: Path, rate: float
) -> None:
    """Hours of training on NaN help nobody, and a checkpoint of it would be exported."""
    recipe = Recipe(epochs=3, batch_size=8, learning_rate=rate)
    expected = (
        r"became (nan|inf) at step \d of 9 \(epoch 1\): at a learning rate of .* lower the rate with --lr"
    )
    with pytest.raises(TrainingError, match=expected):
        trained(sets, tmp_path / "run", recipe)
    assert not (tmp_path / "run" / BEST).exists()


@pytest.mark.parametrize("clip_norm", [0.01, 1e6])
def test_the_gradient_is_clipped_as_a_whole(
    sets: tuple[ImageSet, ImageSet], tmp_path: Path, clip_norm: float
) -> None:
    """One bad batch must not throw the weights; one that is fine is left alone."""
    model, norms = new_model(CONFIG, seed=0), list[float]()

    def look(step: Step) -> None:
        grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        norms.append(float(torch.stack([grad.norm() for grad in grads]).norm()))

    recipe = replace(RECIPE, epochs=1, clip_norm=clip_norm)
    list(fit(model, *sets, labels=LABELS, recipe=recipe, run=open_run(tmp_path / "run"), on_step=look))
    assert len(norms) == 3
    if clip_norm < 1:
        assert norms == pytest.approx([0.01] * 3, rel=1e-3)
    else:
        assert min(norms) > 0.1


@pytest.mark.parametrize("distilled", [False, True])
def test_what_sets_places_does_not_decay(distilled: bool) -> None:
    """Decay of norms and biases costs accuracy; of matrices it is what AdamW is for."""
    model = new_model(replace(CONFIG, distilled=distilled), seed=0)
    groups = parameter_groups(model, RECIPE)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    still = {names[id(one)] for group in groups if group["weight_decay"] == 0 for one in group["params"]}
    moving = {names[id(one)] for group in groups if group["weight_decay"] == 0.05 for one in group["params"]}
    assert {"cls_token", "pos_embed", "norm.weight", "head.bias", "blocks.0.norm1.bias"} <= still
    assert {"head.weight", "patch_embed.proj.weight", "blocks.1.attn.qkv.weight"} <= moving
    if distilled:
        assert {"dist_token", "head_dist.bias"} <= still
        assert "head_dist.weight" in moving
    assert len(still) + len(moving) == len(names)


def test_training_pixels_are_normalised_like_the_runtime_s(sets: tuple[ImageSet, ImageSet]) -> None:
    """Learning from other numbers than the device will see loses accuracy unseen."""
    pixels = torch.from_numpy(sets[0].pixels).permute(0, 3, 1, 2)
    expected = np.stack(
        [preprocess(pixels, PREPROCESSING) for pixels in sets[0].pixels]  # already cropped: normalised only
    )
    np.testing.assert_allclose(to_network(pixels, PREPROCESSING).numpy(), expected, rtol=0, atol=1e-6)


def test_sets_of_two_preprocessings_are_refused(sets: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    """The checkpoint can hold one only."""
    other = ImageSet(
        sets[1].pixels, sets[1].targets, Preprocessing.parse(f"{PREPROCESSING}".replace("0.4", "0.3"))
    )
    with pytest.raises(ValueError, match="expected one preprocessing for both sets"):
        trained((sets[0], other), tmp_path / "run")


def test_the_loss_counts_every_image_once(sets: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    """A last batch that is smaller must not weigh more; at a rate near 0 the loss is that of the start."""
    recipe = Recipe(epochs=1, batch_size=23, learning_rate=1e-12, shift=0, zoom=0, label_smoothing=0)
    model = new_model(CONFIG, seed=0)
    expected, _ = evaluate(model, sets[0])
    (epoch,) = fit(model, *sets, labels=LABELS, recipe=recipe, run=open_run(tmp_path / "run"))
    assert math.isclose(epoch.loss, expected, rel_tol=1e-5)

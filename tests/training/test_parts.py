"""The parts of training: recipe, schedule, split, images, changes to images, the run's folder."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vit_edge.data import Sample, class_folders, labelled_images
from vit_edge.errors import DataError, OptionError, TrainingError
from vit_edge.runtime.image import read_image
from vit_edge.runtime.labels import Labels
from vit_edge.runtime.preprocess import Preprocessing, crop_pixels
from vit_edge.training import (
    BEST,
    Recipe,
    check_apart,
    check_classes,
    check_memory,
    decode,
    gather,
    open_run,
    split,
)
from vit_edge.training.augment import Augment, shifted
from vit_edge.training.batches import part
from vit_edge.training.chance import order, uniform
from vit_edge.training.mixing import draw, mixed
from vit_edge.training.recipe import learning_rate
from vit_edge.training.run import LAST, STATE

from .pictures import paint

PREPROCESSING = Preprocessing.parse("resize=8,crop=8,interpolation=bicubic,mean=0.5,std=0.5")
LABELS = Labels.of(["blue", "green", "red"])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"epochs": 0}, "the number of epochs to be at least 1, got 0"),
        ({"batch_size": -1}, "the batch size to be at least 1, got -1"),
        ({"learning_rate": 0}, "the learning rate to be above 0, got 0"),
        ({"learning_rate": float("nan")}, "the learning rate to be a finite number, got nan"),
        ({"weight_decay": -0.1}, r"the weight decay to be 0 or more, got -0\.1"),
        ({"learning_rate": 1e300}, "the learning rate to be at most 1e\\+06, got 1e\\+300"),
        ({"warmup": 1}, "the warmup to be from 0 to below 1, got 1"),
        ({"seed": -1}, "the seed to be 0 or more, got -1"),
        ({"weight_bits": 4}, "the weight bits to be 7 or 8, got 4"),
        ({"seed": 2**63}, "the seed to be below"),
    ],
)
def test_a_number_out_of_range_is_refused(values: dict[str, float], expected: str) -> None:
    """Each would end in a traceback from deep inside torch."""
    with pytest.raises(OptionError, match=expected):
        Recipe(**values)  # type: ignore[arg-type]


def test_the_rate_rises_in_a_line_and_falls_to_nearly_nothing() -> None:
    """A first step at the full rate breaks a fresh ViT; a last one at the full rate leaves it unsettled."""
    recipe = Recipe(learning_rate=2.0, warmup=0.1)
    rates = [learning_rate(step, steps=100, recipe=recipe) for step in range(100)]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) * 0.2)
    assert max(rates) == rates[9] == rates[10] == 2.0
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert rates[-1] < 0.001
    assert learning_rate(0, steps=1, recipe=recipe) == 2.0


def samples(counts: list[int]) -> tuple[Sample, ...]:
    return tuple(
        Sample(Path(f"{target}/{index}.png"), target)
        for target, count in enumerate(counts)
        for index in range(count)
    )


def test_a_split_takes_the_share_of_every_class() -> None:
    """A rare class that is missing from the validation would not count there."""
    training, validation = split(samples([100, 20, 4, 2]), LABELS, share=0.1)
    assert [sum(s.target == target for s in validation) for target in range(4)] == [10, 2, 1, 1]
    assert sorted([*training, *validation], key=str) == sorted(samples([100, 20, 4, 2]), key=str)


def test_a_large_share_leaves_an_image_to_train_on() -> None:
    """Rounding up would leave the network a class that it has never seen."""
    training, _ = split(samples([2, 3]), LABELS, share=0.99)
    assert [s.target for s in training] == [0, 1]


def test_a_seed_decides_the_split() -> None:
    """The same seed must set the same images aside, another one others."""
    everything = samples([50, 50])
    assert split(everything, LABELS, share=0.2, seed=3) == split(everything, LABELS, share=0.2, seed=3)
    assert split(everything, LABELS, share=0.2, seed=3) != split(everything, LABELS, share=0.2, seed=4)


def test_a_class_with_one_image_is_named() -> None:
    """It cannot be learned and tested at once."""
    with pytest.raises(DataError, match="the class 'green' has one image, too few"):
        split(samples([3, 1]), LABELS, share=0.1)


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_a_share_of_nothing_or_all_is_refused(share: float) -> None:
    """Either side would be empty."""
    with pytest.raises(OptionError, match="the validation share to be between 0 and 1"):
        split(samples([3, 3]), LABELS, share=share)


def test_pixels_are_those_of_the_runtime(tmp_path: Path) -> None:
    """There is one implementation of reading and cropping, and training uses it."""
    paint(tmp_path / "data", each=2)
    found = labelled_images(tmp_path / "data", LABELS)
    images = gather(decode(found, PREPROCESSING), len(found), PREPROCESSING)
    for sample, pixels, target in zip(found, images.pixels, images.targets, strict=True):
        np.testing.assert_array_equal(pixels, crop_pixels(read_image(sample.path), PREPROCESSING))
        assert target == sample.target


def broken_folder(folder: Path, count: int) -> tuple[Sample, ...]:
    paint(folder, each=count + 1)
    for index in range(count):
        (folder / "red" / f"{index}.png").write_bytes(b"no image")
    return labelled_images(folder, class_folders(folder))


def test_broken_images_are_all_found_and_named_before_training(tmp_path: Path) -> None:
    """One at a time would take as many runs to mend."""
    found = broken_folder(tmp_path / "two", 2)
    with pytest.raises(
        DataError, match=r"2 of 9 images cannot be read \(.*red/0\.png.*; .*red/1\.png"
    ) as error:
        gather(decode(found, PREPROCESSING), len(found), PREPROCESSING)
    assert "--skip-broken" in str(error.value)
    assert "\n" not in str(error.value)
    found = broken_folder(tmp_path / "many", 7)
    with pytest.raises(DataError, match=r"7 of 24 .*4\.png.*; and 2 more\)") as error:
        gather(decode(found, PREPROCESSING), len(found), PREPROCESSING)
    assert "5.png" not in str(error.value)


def test_broken_images_are_left_out_by_choice(tmp_path: Path) -> None:
    """What is left keeps its own classes."""
    found = broken_folder(tmp_path / "data", 2)
    images = gather(decode(found, PREPROCESSING), len(found), PREPROCESSING, skip_broken=True)
    assert images.targets.tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert len(images.pixels) == 7
    np.testing.assert_array_equal(images.pixels[-1], crop_pixels(read_image(found[-1].path), PREPROCESSING))


def test_a_class_without_images_is_named(tmp_path: Path) -> None:
    """Skipping broken images can leave a class empty, which nothing later would notice."""
    paint(tmp_path / "data", each=2)
    for path in (tmp_path / "data" / "green").iterdir():
        path.write_bytes(b"")
    found = labelled_images(tmp_path / "data", LABELS)
    images = gather(decode(found, PREPROCESSING), len(found), PREPROCESSING, skip_broken=True)
    with pytest.raises(
        DataError, match="no readable validation image of 'green'; add some, or remove the class"
    ):
        check_classes(images, LABELS, "validation")


def test_a_set_that_would_not_fit_is_refused_before_reading() -> None:
    """A machine that swaps looks dead."""
    large = Preprocessing.parse("resize=224,crop=224,interpolation=bicubic,mean=0.5,std=0.5")
    check_memory(28_000, large)
    with pytest.raises(DataError, match=r"30,000 images of 224x224 take 4\.2 GiB .* at most 28,532 images"):
        check_memory(30_000, large)


def test_images_to_learn_and_to_validate_are_kept_apart(tmp_path: Path) -> None:
    """An accuracy on learned images is a lie; a link to the same file is the same file."""
    paint(tmp_path / "data", each=1)
    (tmp_path / "link").symlink_to(tmp_path / "data")
    learned, linked = (labelled_images(tmp_path / name, LABELS) for name in ("data", "link"))
    with pytest.raises(DataError, match=r"3 validation images are training images too, among them .*0\.png"):
        check_apart(learned, linked)
    check_apart(learned[:2], linked[2:])


def ramp() -> torch.Tensor:
    """(64, 1, 16, 16): brightness grows from left to right, the same for each."""
    return torch.linspace(-1, 1, 16).expand(64, 1, 16, 16).contiguous()


def moved(*, shift: float, zoom: float, flip: bool) -> torch.Tensor:
    recipe = Recipe(shift=shift, zoom=zoom, flip=flip)
    return shifted(ramp(), recipe=recipe, epoch=1, places=np.arange(64))


def test_no_change_gives_the_images_back() -> None:
    """Resampling by itself must not blur."""
    changed = moved(shift=0, zoom=0, flip=False)
    torch.testing.assert_close(changed, ramp(), rtol=0, atol=1e-5)


def test_images_move_by_no_more_than_the_shift() -> None:
    """A tenth of 16 pixels is 1.6 of them; the ramp tells by how much each moved."""
    changed = moved(shift=0.1, zoom=0, flip=False)
    pixels = (changed - ramp())[:, 0, :, 8] * 15 / 2
    assert pixels.abs().max() <= 1.6 + 1e-4
    assert pixels.max() > 1.3
    assert pixels.min() < -1.3


def test_images_grow_and_shrink_by_no_more_than_the_zoom() -> None:
    """The slope of the ramp is the zoom, the same up and across."""
    changed = moved(shift=0, zoom=0.2, flip=False)
    slope = (changed[:, 0, :, 9] - changed[:, 0, :, 6]) / (ramp()[:, 0, :, 9] - ramp()[:, 0, :, 6])
    assert 1.15 < slope.max() <= 1.2 + 1e-4
    assert 0.8 - 1e-4 <= slope.min() < 0.85


def test_half_of_the_images_are_mirrored_and_only_by_choice() -> None:
    """A mirrored digit is another sign, so it is off unless asked for."""
    seen = {}
    for flip in (False, True):
        changed = moved(shift=0, zoom=0, flip=flip)
        seen[flip] = int((changed[:, 0, 0, 0] > 0).sum())
    assert seen[False] == 0
    assert 16 < seen[True] < 48


def changed_alone(recipe: Recipe) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Change 60 copies of a picture of the network's size: give it and them, (copies, 3, height, width) int64."""
    image = np.random.default_rng(0).integers(256, size=(8, 8, 3), dtype=np.uint8)
    augment = Augment(recipe, PREPROCESSING, cropped=True)
    copies = [augment(image, epoch=1, place=place).numpy() for place in range(60)]
    return image.transpose(2, 0, 1).astype(np.int64), np.stack(copies).astype(np.int64)


def test_each_change_is_made_by_itself() -> None:
    """An option that does nothing is believed to have been tried."""
    for recipe in (Recipe(augment="trivial"), Recipe(augment="rand")):
        plain, copies = changed_alone(recipe)
        assert np.mean([(copy != plain).any() for copy in copies]) > 0.5
    plain, copies = changed_alone(Recipe(augment="none"))
    assert (copies == plain).all()


def test_a_larger_magnitude_changes_more() -> None:
    """Otherwise it is a number that nobody listens to."""
    moved_by = []
    for magnitude in (1, 9, 27):
        plain, copies = changed_alone(Recipe(augment="rand", magnitude=magnitude))
        moved_by.append(np.abs(copies - plain).mean())
    assert 1.2 * moved_by[0] < moved_by[1]
    assert 1.2 * moved_by[1] < moved_by[2]


def test_erasing_fills_a_rectangle_of_its_share_of_images() -> None:
    """Zhong et al. 2020; with the mean, which the network sees as nothing."""
    plain, copies = changed_alone(Recipe(augment="none", erasing=0.5))
    fill = np.array([round(255 * mean) for mean in PREPROCESSING.mean])
    erased = 0
    for copy in copies:
        rows, columns = np.nonzero((copy != plain).any(axis=0))
        if len(rows):
            erased += 1
            window = copy[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert (window == fill[:, None, None]).all()
    assert 15 < erased < 45


def test_half_of_the_images_are_mirrored_without_shifts_too() -> None:
    """The other policies mirror by torchvision, and nothing else of the picture moves."""
    plain, copies = changed_alone(Recipe(augment="none", flip=True))
    mirrored = [(copy == plain[:, :, ::-1]).all() for copy in copies]
    assert 15 < sum(mirrored) < 45
    assert all((copy == plain).all() for copy, other in zip(copies, mirrored, strict=True) if not other)


def test_an_image_is_changed_alike_whoever_loads_it() -> None:
    """A run that is resumed, or shared out among processes, has to see what it would have seen in one go."""
    recipe = Recipe(augment="trivial", flip=True, crop_scale=0.5, erasing=0.5)
    image = np.random.default_rng(0).integers(256, size=(24, 20, 3), dtype=np.uint8)
    augment = Augment(recipe, PREPROCESSING, cropped=False)
    before = torch.get_rng_state()
    first = [augment(image, epoch=1, place=place) for place in range(8)]
    torch.rand(3)
    again = [augment(image, epoch=1, place=place) for place in reversed(range(8))]
    assert all(torch.equal(one, two) for one, two in zip(first, reversed(again), strict=True))
    assert all(one.shape == (3, 8, 8) and one.dtype == torch.uint8 for one in first)
    assert len({one.numpy().tobytes() for one in first}) == 8
    assert not torch.equal(first[0], augment(image, epoch=2, place=0))
    torch.set_rng_state(before)
    augment(image, epoch=1, place=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_chance_is_even_and_apart() -> None:
    """Draws that repeat or lean would train on fewer images than there are."""
    places = np.arange(20_000)
    one, other = uniform(7, 1, 3, places=places), uniform(7, 1, 4, places=places)
    for draws in (one, other):
        assert abs(draws.mean() - 0.5) < 0.01
        assert 0 <= draws.min() < 0.001 < 0.999 < draws.max() < 1
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.02
    assert abs(np.corrcoef(one[:-1], one[1:])[0, 1]) < 0.02
    assert sorted(order(7, 1, 1000)) == list(range(1000))
    assert not np.array_equal(order(7, 1, 1000), order(7, 2, 1000))


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_images_are_mixed_by_the_share_that_the_loss_is(mixup: float, cutmix: float) -> None:
    """A share that is not the pixels' teaches the wrong answer; whole white and black images show it."""
    recipe = Recipe(mixup=mixup, cutmix=cutmix)
    mix = draw(recipe, step=3, first=0, count=64, size=(8, 8))
    assert mix is not None
    images = (torch.arange(64) % 2).float().reshape(-1, 1, 1, 1).expand(64, 3, 8, 8)
    result = mixed(images, mix)
    own = torch.where(images[:, 0, 0, 0] == 1, result.mean(dim=(1, 2, 3)), 1 - result.mean(dim=(1, 2, 3)))
    torch.testing.assert_close(own, mix.shares)
    assert torch.equal(mix.shares[::2], mix.shares[1::2])
    whole = (result.amax(dim=(1, 2, 3)) - result.amin(dim=(1, 2, 3)) == 0).float().mean()
    assert {(0.8, 0.0): whole == 1, (0.0, 1.0): whole < 0.4, (0.8, 1.0): 0.3 < whole < 0.9}[mixup, cutmix]
    part_of_it = draw(recipe, step=3, first=16, count=8, size=(8, 8))
    assert part_of_it is not None
    assert torch.equal(part_of_it.shares, mix.shares[16:24])


def test_a_batch_is_shared_out_in_pairs_and_whole() -> None:
    """Partners that are mixed stay together, and no image is lost or seen twice."""
    for count in (1, 2, 7, 10, 64):
        for world in (1, 2, 3, 8):
            parts = [part(count, rank=rank, world=world) for rank in range(world)]
            assert [place for low, high in parts for place in range(low, high)] == list(range(count))
            assert all(low % 2 == 0 or low == count for low, _ in parts)


def test_a_run_is_not_replaced_unless_forced(tmp_path: Path) -> None:
    """It may be the only copy of a day's work."""
    run = open_run(tmp_path / "deep" / "run")
    assert run.is_dir()
    assert open_run(run) == run
    (run / BEST).touch()
    with pytest.raises(TrainingError, match=r"best\.safetensors exists; .* --force"):
        open_run(run)
    assert open_run(run, force=True) == run


def test_a_run_without_a_state_is_not_gone_on_with(tmp_path: Path) -> None:
    """It would begin anew, and replace what another run has learnt."""
    run = open_run(tmp_path / "run", resume=True)
    (run / LAST).write_bytes(b"yesterday")
    with pytest.raises(
        TrainingError, match=r"run holds last\.safetensors and no state\.pt to go on from; .* --from"
    ):
        open_run(run, resume=True)
    assert open_run(run, resume=True, force=True) == run
    (run / STATE).write_bytes(b"a state")
    assert open_run(run, resume=True) == run


def test_a_run_that_cannot_be_made_is_refused_at_once(tmp_path: Path) -> None:
    """After the training it would be too late."""
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match=r"cannot make the folder .*file.*; choose another with -o"):
        open_run(tmp_path / "file" / "run")

"""What the recipe adds to the loop: averages, shares of the rate, frozen weights, teachers, quantizers."""

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from vit_edge.checkpoint import load_checkpoint
from vit_edge.errors import OptionError, TrainingError
from vit_edge.models.vit import StochasticDepth
from vit_edge.quantizers.simulate import ranges, set_ranges, simulate
from vit_edge.runtime.labels import Labels
from vit_edge.runtime.preprocess import Preprocessing
from vit_edge.training import BEST, ImageSet, Recipe, evaluate, fit, has_bf16, new_model, open_run
from vit_edge.training.average import Average
from vit_edge.training.depth import branches, drop
from vit_edge.training.grids import measure
from vit_edge.training.losses import losses
from vit_edge.training.memory import batch_that_fits, is_out_of_memory
from vit_edge.training.mixing import Mix
from vit_edge.training.optimizer import SHARE, optimizer_for, parameter_groups
from vit_edge.training.run import LAST
from vit_edge.training.teacher import Teacher, class_places

from .test_fit import CONFIG, LABELS, PREPROCESSING, painted

RECIPE = Recipe(epochs=2, batch_size=8, learning_rate=3e-3)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[ImageSet, ImageSet]:
    folder = tmp_path_factory.mktemp("pictures")
    return painted(folder / "training"), painted(folder / "validation", seed=1)


def test_the_average_follows_the_weights() -> None:
    """Early steps count for more, so that the first random weights are soon forgotten."""
    model = new_model(CONFIG, seed=0)
    average = Average(model, decay=0.9)
    expected = model.head.weight.detach().clone()
    for step in range(100):
        torch.nn.init.normal_(model.head.weight)
        average.update(model, step=step)
        kept = min(0.9, (1 + step) / (10 + step))
        expected = kept * expected + (1 - kept) * model.head.weight.detach()
    torch.testing.assert_close(average.model.head.weight, expected)
    assert not average.model.training


def test_the_average_is_what_is_validated_and_kept(sets: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    """The number that is told must belong to the file that is written."""
    model, recipe = new_model(CONFIG, seed=0), replace(RECIPE, ema=0.9)
    *_, epoch = fit(model, *sets, labels=LABELS, recipe=recipe, run=open_run(tmp_path / "run"))
    kept = load_checkpoint(tmp_path / "run" / LAST).model
    assert not torch.equal(kept.head.weight, model.head.weight)
    assert evaluate(kept, sets[1]) == (epoch.val_loss, epoch.val_accuracy)


def test_each_block_learns_at_a_share_of_the_next_ones_rate() -> None:
    """What was pretrained first is the most general, and is to move the least."""
    model = new_model(CONFIG, seed=0)
    groups = parameter_groups(model, replace(RECIPE, layer_decay=0.5))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    shares = {names[id(one)]: group[SHARE] for group in groups for one in group["params"]}
    assert {shares["head.weight"], shares["norm.bias"]} == {1.0}
    assert shares["blocks.1.attn.qkv.weight"] == 0.5
    assert shares["blocks.0.mlp.fc1.bias"] == 0.25
    assert {shares["patch_embed.proj.weight"], shares["pos_embed"], shares["cls_token"]} == {0.125}


def test_a_linear_probe_moves_the_head_alone(sets: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    """Frozen features are what one compares, and are cheap."""
    model, recipe = new_model(CONFIG, seed=0), replace(RECIPE, freeze=True, weight_decay=0.5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    list(fit(model, *sets, labels=LABELS, recipe=recipe, run=open_run(tmp_path / "run")))
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"head.weight", "head.bias"}
    assert sum(len(group["params"]) for group in optimizer_for(model, recipe).param_groups) == 2


def test_later_branches_are_left_out_more_often(sets: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    """The first block always works; the share of the last is the recipe's."""
    config = replace(CONFIG, depth=3)
    model, seen = new_model(config, seed=0), list[list[float]]()

    def look(step: object) -> None:
        branches = [module for module in model.modules() if isinstance(module, StochasticDepth)]
        seen.append([0.0 if b.factors is None else float((b.factors == 0).float().mean()) for b in branches])

    recipe = replace(RECIPE, drop_path=0.5, epochs=40, batch_size=24)
    list(fit(model, *sets, labels=LABELS, recipe=recipe, run=open_run(tmp_path / "run"), on_step=look))
    np.testing.assert_allclose(np.mean(seen, axis=0), [0, 0, 0.25, 0.25, 0.5, 0.5], atol=0.06)


def test_the_loss_of_mixed_images_is_the_mixed_loss() -> None:
    """Zhang et al. 2018: the share of the pixels is the share of the answer."""
    logits, targets = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    mix = Mix(torch.tensor([0.7, 0.7, 0.2, 0.2]), np.zeros((4, 4), np.int64))
    recipe = replace(RECIPE, label_smoothing=0.0)
    soft = torch.zeros(4, 3)
    for place, partner in enumerate((1, 0, 3, 2)):
        soft[place, targets[place]] += mix.shares[place]
        soft[place, targets[partner]] += 1 - mix.shares[place]
    expected = functional.cross_entropy(logits, soft, reduction="none")
    torch.testing.assert_close(losses(logits, targets, recipe=recipe, mix=mix), expected)


def test_smoothing_gives_all_classes_a_share() -> None:
    """Szegedy et al. 2016, section 7: the right class keeps what it does not give up, and its even share of that."""
    logits, targets = torch.tensor([[2.0, -1.0, 0.5, 0.0]]), torch.tensor([2])
    logs = [value - math.log(sum(map(math.exp, logits[0].tolist()))) for value in logits[0].tolist()]
    for smoothing in (0.0, 0.3):
        expected = -(1 - smoothing) * logs[2] - smoothing * sum(logs) / 4
        recipe = replace(RECIPE, label_smoothing=smoothing)
        assert float(losses(logits, targets, recipe=recipe)) == pytest.approx(expected, rel=1e-6)


def test_soft_distillation_is_the_divergence_at_its_temperature() -> None:
    """Hinton et al. 2015, section 2: softened, times T², beside the loss of the right answer."""
    student, teacher = [1.0, 0.0, -2.0], [0.5, 2.0, -1.0]

    def softened(logits: list[float], temperature: float) -> list[float]:
        powers = [math.exp(value / temperature) for value in logits]
        return [power / sum(powers) for power in powers]

    for temperature in (1.0, 4.0):
        mine, theirs = softened(student, temperature), softened(teacher, temperature)
        divergence = sum(p * math.log(p / q) for p, q in zip(theirs, mine, strict=True))
        plain = -math.log(softened(student, 1.0)[0])
        recipe = replace(RECIPE, distillation="soft", temperature=temperature, label_smoothing=0.0)
        assert recipe.distillation_weight == 0.5
        got = losses(
            torch.tensor([student]), torch.tensor([0]), recipe=recipe, teacher=torch.tensor([teacher])
        )
        assert float(got) == pytest.approx(0.5 * plain + 0.5 * temperature**2 * divergence, rel=1e-5)


@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_a_student_that_answers_like_its_teacher_has_no_more_to_learn_of_it(kind: str) -> None:
    """The teacher's part of the loss is least where the answers are the same."""
    teacher = 3 * torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    recipe = replace(RECIPE, distillation=kind, distillation_weight=1.0, label_smoothing=0.0)  # type: ignore[arg-type]
    targets = torch.zeros(5, dtype=torch.int64)

    def loss(logits: torch.Tensor) -> torch.Tensor:
        return losses(logits, targets, recipe=recipe, teacher=teacher).sum()

    same = loss(teacher if kind == "soft" else 50 * teacher)
    assert float(same) == pytest.approx(0, abs=1e-3)
    assert float(loss(-teacher)) > 1
    both = torch.stack([torch.randn(5, 4), teacher if kind == "soft" else 50 * teacher], dim=1)
    assert float(loss(both)) == pytest.approx(0, abs=1e-3)  # DeiT's own head learns of the teacher


def test_the_teacher_sees_the_student_s_picture_in_its_own_way() -> None:
    """Another mean, another size, other places of the classes: the answers are those of the runtime's preprocessing."""
    theirs = Preprocessing.parse("resize=16,crop=16,interpolation=bicubic,mean=0.1,std=0.7")
    seen: list[torch.Tensor] = []

    class Recording(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            seen.append(pixels)
            return torch.tensor([[10.0, 20.0, 30.0]]).expand(len(pixels), 3)

    places = class_places(Labels.of(["red", "blue", "green"]), LABELS)
    teacher = Teacher(Recording(), theirs, places)
    grey = torch.full((2, 3, 8, 8), (0.6 - 0.4) / 0.2)  # 0.6 in the first channel
    answers = teacher(grey, PREPROCESSING)
    assert answers.tolist() == [[20.0, 30.0, 10.0]] * 2
    assert seen[0].shape == (2, 3, 16, 16)
    torch.testing.assert_close(seen[0][:, 0], torch.full((2, 16, 16), (0.6 - 0.1) / 0.7))
    with pytest.raises(TrainingError, match="the teacher does not know 'green' of the student's 3 classes"):
        class_places(Labels.of(["red", "blue", "black"]), LABELS)


@pytest.mark.parametrize("distilled", [False, True])
def test_a_student_learns_of_a_teacher(
    sets: tuple[ImageSet, ImageSet], tmp_path: Path, distilled: bool
) -> None:
    """With all weight on the teacher, the right answers come through it alone."""
    wise = new_model(CONFIG, seed=5)
    list(fit(wise, *sets, labels=LABELS, recipe=replace(RECIPE, epochs=8), run=open_run(tmp_path / "wise")))
    assert evaluate(wise, sets[1])[1] >= 0.9
    places = torch.arange(3)
    student = new_model(replace(CONFIG, distilled=distilled), seed=1)
    recipe = replace(RECIPE, epochs=8, distillation="soft", distillation_weight=1.0)
    wrong = ImageSet(sets[0].pixels, np.zeros_like(sets[0].targets), PREPROCESSING)
    epochs = list(
        fit(
            student,
            wrong,
            sets[1],
            labels=LABELS,
            recipe=recipe,
            run=open_run(tmp_path / "run"),
            teacher=Teacher(wise.eval(), PREPROCESSING, places),
        )
    )
    # The token's head learns of the teacher, the class token's of nothing: the mean of both is still right mostly.
    assert epochs[-1].val_accuracy >= (0.6 if distilled else 0.9)
    assert load_checkpoint(tmp_path / "run" / BEST).config.distilled == distilled


def test_a_teacher_without_a_use_is_refused(sets: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    """It would cost time and teach nothing."""
    teacher = Teacher(new_model(CONFIG, seed=0), PREPROCESSING, torch.arange(3))
    with pytest.raises(OptionError, match="a teacher a kind of distillation"):
        list(
            fit(new_model(CONFIG, seed=0), *sets, labels=LABELS, recipe=RECIPE, run=tmp_path, teacher=teacher)
        )


def test_quantizers_are_in_place_while_training(sets: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    """What is validated is the network with its rounding; the checkpoint is a plain one."""
    model, recipe = new_model(CONFIG, seed=0), replace(RECIPE, quantize=True, ema=0.5)
    *_, epoch = fit(model, *sets, labels=LABELS, recipe=recipe, run=open_run(tmp_path / "run"))
    assert len(ranges(model)) == 4 * 2 + 1
    kept = load_checkpoint(tmp_path / "run" / LAST).model
    plain_loss, _ = evaluate(kept, sets[1])
    assert plain_loss != epoch.val_loss
    assert math.isclose(plain_loss, epoch.val_loss, rel_tol=0.05)


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_what_is_validated_has_the_grids_of_its_own_export(
    sets: tuple[ImageSet, ImageSet], tmp_path: Path, ema: float
) -> None:
    """Grids laid over what other weights spanned, an epoch ago or unaveraged, tell another accuracy."""
    recipe = replace(RECIPE, quantize=True, symmetric=True, weight_bits=7, ema=ema)
    model = new_model(CONFIG, seed=0)
    *_, epoch = fit(model, *sets, labels=LABELS, recipe=recipe, run=open_run(tmp_path / "run"))
    kept = load_checkpoint(tmp_path / "run" / LAST).model
    simulate(kept, symmetric=True, weight_bits=7)
    set_ranges(kept, measure(kept, sets[0]))
    assert evaluate(kept, sets[1]) == (epoch.val_loss, epoch.val_accuracy)


def test_bf16_is_for_devices_that_have_it(
    sets: tuple[ImageSet, ImageSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is emulated it is slower and no better; where it is there, weights stay in float32."""
    recipe = replace(RECIPE, precision="bf16")
    model = new_model(CONFIG, seed=0)
    if has_bf16(torch.device("cpu")):
        epochs = list(fit(model, *sets, labels=LABELS, recipe=recipe, run=open_run(tmp_path / "run")))
        assert epochs[-1].loss < epochs[0].loss
        assert model.head.weight.dtype == torch.float32
        probe = replace(recipe, freeze=True, augment="none")
        held = list(fit(model, *sets, labels=LABELS, recipe=probe, run=open_run(tmp_path / "probe")))
        # What is validated stays in float32, as on a device.
        assert evaluate(model, sets[1]) == pytest.approx((held[-1].val_loss, held[-1].val_accuracy), abs=1e-5)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    with pytest.raises(TrainingError, match="does not compute in bf16; train with --precision float32"):
        list(fit(model, *sets, labels=LABELS, recipe=recipe, run=tmp_path))


def test_short_memory_says_which_batch_would_fit(
    sets: tuple[ImageSet, ImageSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real allocator's words, at the edge: more images than a bound cannot be computed."""
    model = new_model(CONFIG, seed=0)
    real = model.patch_embed.forward

    def bounded(pixels: torch.Tensor) -> torch.Tensor:
        if len(pixels) > 5:
            torch.empty(1 << 60, dtype=torch.uint8)  # the processor's allocator refuses
        return real(pixels)

    monkeypatch.setattr(model.patch_embed, "forward", bounded)
    with pytest.raises(
        TrainingError, match=r"memory ran out on cpu with 16 images; about 4 images fit: give --batch"
    ):
        list(fit(model, *sets, labels=LABELS, recipe=replace(RECIPE, batch_size=16), run=tmp_path))
    assert batch_that_fits(model, 64, torch.device("cpu"), recipe=RECIPE) == 4
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_a_batch_that_fits_has_room_for_all_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tried without what a step holds besides, the batch that is advised would not fit either."""
    model, cpu = new_model(CONFIG, seed=0), torch.device("cpu")
    optimizer_for(model, replace(RECIPE, freeze=True))
    found = branches(model, replace(RECIPE, drop_path=0.5))
    drop(found, replace(RECIPE, drop_path=0.5), step=0, places=np.arange(9), device=cpu)
    room, seen, real = list[int](), list[tuple[bool, bool, int]](), model.head.forward
    empty_like = torch.empty_like

    def counted(like: torch.Tensor) -> torch.Tensor:
        room.append(like.numel())
        return empty_like(like)

    def looked(features: torch.Tensor) -> torch.Tensor:
        seen.append((model.training, torch.is_autocast_enabled("cpu"), sum(room)))
        return real(features)

    monkeypatch.setattr("vit_edge.training.memory.torch.empty_like", counted)
    monkeypatch.setattr(model.head, "forward", looked)
    taught = list[int]()
    recipe = replace(RECIPE, precision="bf16")
    assert (
        batch_that_fits(model, 9, cpu, recipe=recipe, beside=lambda images: taught.append(len(images))) == 4
    )
    assert taught == [4]
    assert seen == [(True, True, 2 * (model.head.weight.numel() + 3))]


@pytest.mark.parametrize("what", ["place", "hold", "measure"])
def test_memory_that_is_short_beside_the_steps_is_one_sentence(
    sets: tuple[ImageSet, ImageSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Before the first step as well: a traceback tells nobody what to make smaller."""
    model = new_model(CONFIG, seed=0)

    def refused(*arguments: object) -> torch.Tensor:
        return torch.empty(1 << 60, dtype=torch.uint8)  # the processor's allocator refuses

    recipes = {
        "place": (RECIPE, "bringing the network to cpu; train a smaller one"),
        "hold": (replace(RECIPE, freeze=True, augment="none"), "computing the features of 24 images on cpu"),
        "measure": (replace(RECIPE, quantize=True), "measuring activations on cpu"),
    }
    recipe, sentence = recipes[what]
    if what == "place":
        monkeypatch.setattr(model, "to", refused)
    else:
        monkeypatch.setattr(model.patch_embed, "forward", refused)
    with pytest.raises(TrainingError, match=f"memory ran out while {sentence}"):
        list(fit(model, *sets, labels=LABELS, recipe=recipe, run=tmp_path))


def test_a_validation_that_does_not_fit_is_answered_in_smaller_parts(
    sets: tuple[ImageSet, ImageSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch size that was made small for training must not fail at the end of the first epoch."""
    model = new_model(CONFIG, seed=0)
    expected = evaluate(model, sets[1])
    real, limit = model.patch_embed.forward, 5

    def bounded(pixels: torch.Tensor) -> torch.Tensor:
        if len(pixels) > limit:
            torch.empty(1 << 60, dtype=torch.uint8)  # the processor's allocator refuses
        return real(pixels)

    monkeypatch.setattr(model.patch_embed, "forward", bounded)
    assert evaluate(model, sets[1]) == pytest.approx(expected, rel=1e-6)
    limit = 0
    with pytest.raises(
        TrainingError, match="memory ran out on cpu with 1 validation images; train a smaller"
    ):
        evaluate(model, sets[1])


def test_what_is_no_number_is_traced_to_its_cause(sets: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    """A rate that is lowered in vain costs as many runs as there are patience."""
    broken = new_model(CONFIG, seed=0)
    torch.nn.init.constant_(broken.get_parameter("blocks.1.mlp.fc1.bias"), math.nan)
    expected = r"the loss became nan at step 1 of 6 \(epoch 1\): the weights blocks\.1\.mlp\.fc1\.bias hold"
    with pytest.raises(TrainingError, match=expected):
        list(fit(broken, *sets, labels=LABELS, recipe=RECIPE, run=tmp_path))
    teacher = Teacher(broken.eval(), PREPROCESSING, torch.arange(3))
    recipe = replace(RECIPE, distillation="soft")
    with pytest.raises(TrainingError, match="the teacher's answers are no numbers; give another"):
        list(
            fit(new_model(CONFIG, seed=0), *sets, labels=LABELS, recipe=recipe, run=tmp_path, teacher=teacher)
        )


@pytest.mark.parametrize("distilled", [False, True])
def test_frozen_features_are_computed_once(
    sets: tuple[ImageSet, ImageSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, distilled: bool
) -> None:
    """A linear probe without changes to images sees the same features in every epoch: the same head, far sooner."""
    config = replace(CONFIG, distilled=distilled)
    recipe = replace(RECIPE, epochs=5, freeze=True, augment="none", ema=0.9)
    looked: list[tuple[int, int]] = []
    model = new_model(config, seed=0)
    images = 0
    real = model.patch_embed.forward

    def counted(pixels: torch.Tensor) -> torch.Tensor:
        nonlocal images
        images += len(pixels)
        return real(pixels)

    monkeypatch.setattr(model.patch_embed, "forward", counted)
    run = open_run(tmp_path / "held")
    held = list(
        fit(
            model,
            *sets,
            labels=LABELS,
            recipe=recipe,
            run=run,
            on_features=lambda done, total: looked.append((done, total)),
        )
    )
    assert images == len(sets[0]) + len(sets[1]) == looked[-1][0] == looked[-1][1]
    monkeypatch.undo()
    plain = new_model(config, seed=0)
    monkeypatch.setattr("vit_edge.training.loop.can_hold", lambda model, images: False)
    expected = list(fit(plain, *sets, labels=LABELS, recipe=recipe, run=open_run(tmp_path / "plain")))
    torch.testing.assert_close(model.head.weight, plain.head.weight, rtol=0, atol=1e-5)
    for one, two in zip(held, expected, strict=True):
        assert (one.loss, one.val_loss) == pytest.approx((two.loss, two.val_loss), abs=1e-5)
        assert one.val_accuracy == two.val_accuracy
    told = evaluate(load_checkpoint(run / LAST).model, sets[1])
    assert told == pytest.approx((held[-1].val_loss, held[-1].val_accuracy), abs=1e-5)


_COMPILED = """
import sys
from dataclasses import replace
from pathlib import Path
from tests.training.test_learning import RECIPE, CONFIG, LABELS, fit, new_model, painted
from vit_edge.errors import TrainingError
folder = Path(sys.argv[1])
sets = painted(folder / "training"), painted(folder / "validation", seed=1)
try:
    list(fit(new_model(CONFIG, seed=0), *sets, labels=LABELS, recipe=replace(RECIPE, compile=True), run=folder))
except TrainingError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_machine_without_a_compiler_is_one_sentence(tmp_path: Path) -> None:
    """Torch finds out at the first step only, and says so in a hundred lines."""
    environment = {name: value for name, value in os.environ.items() if name != "CXX"}
    environment |= {
        "PATH": "",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"),
    }
    done = subprocess.run(
        [sys.executable, "-c", _COMPILED, str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
    )
    assert done.stdout.startswith("torch.compile failed ("), done.stderr[-2000:]
    assert done.stdout.count("\n") == 1
    assert "install a C++ compiler such as g++, or leave out --compile" in done.stdout


@pytest.mark.slow
# torch's compiler imports both, in an order of its own.
@pytest.mark.filterwarnings("ignore:.*[Dd]istutils")
def test_a_compiled_network_learns_the_same(sets: tuple[ImageSet, ImageSet], tmp_path: Path) -> None:
    """torch.compile is a matter of speed."""
    losses = []
    for compiled in (False, True):
        recipe = replace(RECIPE, compile=compiled, drop_path=0.2)
        run = open_run(tmp_path / str(compiled))
        losses.append(
            [e.loss for e in fit(new_model(CONFIG, seed=0), *sets, labels=LABELS, recipe=recipe, run=run)]
        )
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)

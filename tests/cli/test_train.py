"""``vit-edge train``, run as users run it: a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vit_edge import __version__
from vit_edge.checkpoint import load_checkpoint, save_checkpoint
from vit_edge.cli import main
from vit_edge.cli.train import _workers
from vit_edge.cli.train_start import open_teacher
from vit_edge.data import labelled_images
from vit_edge.errors import TrainingError
from vit_edge.models import ViT, named
from vit_edge.runtime.image import read_image
from vit_edge.runtime.labels import Labels
from vit_edge.runtime.preprocess import Preprocessing, preprocess
from vit_edge.training import Processes, has_bf16, new_model
from vit_edge.training.start import usual_preprocessing

from ..training.pictures import paint
from .command import call

# Every one of them trains a network in a process of its own.
pytestmark = pytest.mark.slow

SMALL = ("--image-size", "8", "--epochs", "6", "--batch-size", "8", "--augment", "shift", "--ema", "0.9")


class Refused(Protocol):
    def __call__(self, *arguments: object, status: int = 1) -> str: ...


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run what has to fail through the program's entry, and give its one sentence."""

    def run(*arguments: object, status: int = 1) -> str:
        monkeypatch.setattr("sys.argv", ["vit-edge", "train", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        assert (ended.value.code, shown.out) == (status, "")
        (line,) = [line for line in shown.err.splitlines() if line.startswith("error: ")]
        return line

    return run


def test_images_that_are_read_anew_have_more_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoding photos is more than changing what lies in memory, and shifting that takes no process at all."""
    monkeypatch.setattr("vit_edge.runtime.cores.usable_cores", lambda: 12)
    assert _workers(None, cropped=False, augment="trivial") == 6
    assert _workers(None, cropped=True, augment="trivial") == 2
    assert _workers(None, cropped=True, augment="shift") == 0
    assert _workers(3, cropped=False, augment="shift") == 3


def test_a_folder_becomes_a_checkpoint_that_knows_its_classes(tmp_path: Path) -> None:
    """This is the whole job: the file alone answers right on pictures that it has never seen."""
    data = paint(tmp_path / "data", each=16)
    done = call("train", data, "-o", tmp_path / "run", *SMALL)
    assert done.returncode == 0, done.stderr
    checkpoint = load_checkpoint(tmp_path / "run" / "best.safetensors")
    assert checkpoint.labels is not None
    assert checkpoint.preprocessing is not None
    assert [label.name for label in checkpoint.labels.items] == ["blue", "green", "red"]
    expected = "resize=8,crop=8,interpolation=bicubic,mean=0.5,std=0.5"
    assert checkpoint.preprocessing == Preprocessing.parse(expected)

    import torch

    unseen = labelled_images(paint(tmp_path / "unseen", seed=9), checkpoint.labels)
    pixels = np.stack([preprocess(read_image(sample.path), checkpoint.preprocessing) for sample in unseen])
    with torch.inference_mode():
        answers = checkpoint.model(torch.from_numpy(pixels)).argmax(dim=1).tolist()
    right = sum(answer == sample.target for answer, sample in zip(answers, unseen, strict=True))
    assert right >= 0.9 * len(unseen)


def test_the_answer_is_on_stdout_and_progress_on_stderr(tmp_path: Path) -> None:
    """A script reads the one and a person the other."""
    data = paint(tmp_path / "data", each=10)
    done = call("train", data, "-o", tmp_path / "run", *SMALL)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    epochs = [json.loads(line) for line in lines]
    best = [epoch for epoch in epochs if epoch["best"]][-1]
    assert done.stdout == (
        f"{tmp_path / 'run' / 'best.safetensors'}: {100 * best['val_accuracy']:.1f} % of 3 "
        f"validation images right (epoch {best['epoch']} of 6)\n"
    )
    assert "Reading training images: 27/27" in done.stderr
    assert "Training: 24/24 steps, epoch 6" in done.stderr
    assert "training a new network of " in done.stderr
    assert ("--precision bf16 is faster" in done.stderr) == has_bf16(torch.device("cpu"))
    quiet = call("train", data, "-o", tmp_path / "run", *SMALL, "--quiet", "--force")
    assert (quiet.returncode, quiet.stderr) == (0, "")
    # The same seed, a process of its own: the same numbers to the last digit.
    assert quiet.stdout == done.stdout
    again = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [epoch["loss"] for epoch in again] == [epoch["loss"] for epoch in epochs]


def test_options_reach_the_training(tmp_path: Path) -> None:
    """A validation folder, a colour scale of one's own, and broken images that are left out aloud."""
    data = paint(tmp_path / "data", each=4)
    (data / "red" / "0.png").write_bytes(b"no image")
    val = paint(tmp_path / "val", each=2, seed=1)
    colours = ("--mean", "0.4/0.5/0.6", "--std", "0.25")
    options = ("--val", val, *colours, "--skip-broken", "--flip", "--model", "vit_mini_patch4_28")
    done = call("train", data, "-o", tmp_path / "run", *SMALL, *options)
    assert done.returncode == 0, done.stderr
    assert "left out 1 training images that cannot be read" in done.stderr
    assert "of 6 validation images right" in done.stdout
    preprocessing = load_checkpoint(tmp_path / "run" / "best.safetensors").preprocessing
    assert preprocessing is not None
    assert preprocessing.mean == (0.4, 0.5, 0.6)
    assert preprocessing.std == (0.25, 0.25, 0.25)


def test_what_cannot_be_trained_on_is_one_sentence(tmp_path: Path, refused: Refused) -> None:
    """Each of these is met by people in their first hour."""
    data = paint(tmp_path / "data", each=2)
    run = tmp_path / "run"
    assert "there is no folder" in refused(tmp_path / "absent", "-o", run)
    assert "at least two class folders" in refused(paint(tmp_path / "one", names=("red",)), "-o", run)
    single = paint(tmp_path / "single", each=1)
    assert "the class 'blue' has one image" in refused(single, "-o", run)
    assert "did you mean vit_mini_patch4_32?" in refused(
        data, "-o", run, "--model", "vit_mini_patch4_23", status=2
    )
    assert "the patch of 4 pixels divides" in refused(data, "-o", run, "--image-size", 30, status=2)
    assert "expected std to be three numbers" in refused(data, "-o", run, "--std", "58", status=2)
    assert "number of epochs to be at least 1" in refused(data, "-o", run, "--epochs", 0, status=2)
    assert "are training images too" in refused(data, "-o", run, "--val", data)
    other = paint(tmp_path / "other", each=1, names=("red", "green"))
    assert "no readable validation image of 'blue'" in refused(data, "-o", run, "--val", other, *SMALL)
    (other / "purple").mkdir()
    (other / "red" / "0.png").rename(other / "purple" / "0.png")
    (other / "red").rmdir()
    assert "the folder 'purple'" in refused(data, "-o", run, "--val", other)
    (data / "red" / "0.png").write_bytes(b"")
    assert "1 of 6 images cannot be read" in refused(data, "-o", run, *SMALL)
    assert not (run / "best.safetensors").exists()


def test_all_broken_images_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Mended five at a time, a hundred would take twenty runs; the error itself stays a sentence."""
    data = paint(tmp_path / "data", each=8)
    broken = [data / "red" / f"{number}.png" for number in range(7)]
    for path in broken:
        path.write_bytes(b"")
    monkeypatch.setattr(
        "sys.argv", ["vit-edge", "train", str(data), "-o", str(tmp_path / "run"), "--image-size", "8"]
    )
    with pytest.raises(SystemExit):
        main()
    lines = capsys.readouterr().err.splitlines()
    told = [line for line in lines if " is empty (0 bytes)" in line and "error: " not in line]
    assert sorted(told) == [f"{path} is empty (0 bytes); copy or download it again" for path in broken]
    assert lines[-1].startswith("error: 7 of 24 images cannot be read (")
    assert "; and 2 more)" in lines[-1]


def test_a_run_that_is_there_is_refused_before_the_work(tmp_path: Path, refused: Refused) -> None:
    """Nobody wants to lose yesterday's training, nor to hear of it after an hour."""
    data = paint(tmp_path / "data", each=4)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "best.safetensors").write_bytes(b"yesterday")
    assert "--force" in refused(data, "-o", tmp_path / "run", *SMALL)
    assert (tmp_path / "run" / "best.safetensors").read_bytes() == b"yesterday"


@pytest.mark.parametrize(
    ("command", "absent", "extra"),
    [("train", "torch", "train"), ("train", "torchvision", "train"), ("demo", "sklearn", "demo")],
)
def test_a_missing_extra_is_named(tmp_path: Path, command: str, absent: str, extra: str) -> None:
    """Whoever installed for a device only reads what else the workshop needs."""
    words = ["vit-edge", command, *(["data"] if command == "train" else []), "-o", "out"]
    done = subprocess.run(
        [
            *(sys.executable, "-c"),
            f"import sys; sys.modules[{absent!r}] = None; sys.argv = {words!r}; "
            "from vit_edge.cli import main; main()",
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {absent}")
    assert f"vit-edge[{extra}]" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_rate_that_is_too_high_stops_with_the_step(tmp_path: Path, refused: Refused) -> None:
    """NaN would otherwise be trained, saved and exported."""
    data = paint(tmp_path / "data", each=16)
    sentence = refused(data, "-o", tmp_path / "run", *SMALL, "--lr", "1e6")
    assert "lower the rate with --lr" in sentence
    assert "step " in sentence


def test_a_run_leaves_all_that_one_looks_for(tmp_path: Path) -> None:
    """Checkpoints, what was asked for, numbers, curves and events, in one folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    data = paint(tmp_path / "data", each=6)
    run = tmp_path / "run"
    assert call("train", data, "-o", run, *SMALL).returncode == 0
    names = {path.name for path in run.iterdir()}
    expected = {
        "best.safetensors",
        "last.safetensors",
        "metrics.jsonl",
        "config.json",
        "curves.png",
        "state.pt",
    }
    assert names == expected | {"events"}
    config = json.loads((run / "config.json").read_text())
    assert (config["recipe"]["augment"], config["network"]["classes"]) == ("shift", 3)
    assert Preprocessing.parse(config["preprocessing"]).crop == (8, 8)
    assert (config["teacher"], config["val_share"], config["skip_broken"]) == (None, 0.1, False)
    assert config["versions"] == {"vit-edge": __version__, "torch": torch.__version__}
    assert min(read_image(run / "curves.png").shape[:2]) > 200
    events = EventAccumulator(str(run / "events"))
    events.Reload()
    told = [json.loads(line)["val_loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    logged = [event.value for event in events.Scalars("epoch/val_loss")]
    np.testing.assert_allclose(logged, told, rtol=1e-6)


def test_a_stopped_run_goes_on_by_the_same_command(tmp_path: Path) -> None:
    """Ctrl-C in the evening, --resume in the morning."""
    data = paint(tmp_path / "data", each=6)
    first = call("train", data, "-o", tmp_path / "run", *SMALL, "--resume")
    assert "holds no state to go on from: the run starts from its beginning" in first.stderr
    again = call("train", data, "-o", tmp_path / "run", *SMALL, "--resume")
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert "24/24" not in again.stderr  # nothing was left to do
    changed = call("train", data, "-o", tmp_path / "run", *SMALL, "--resume", "--lr", "0.5")
    assert changed.returncode == 1
    assert "began with learning_rate 0.001, not 0.5" in changed.stderr


def test_a_checkpoint_is_fine_tuned_with_its_head_or_a_new_one(tmp_path: Path) -> None:
    """The same classes go on, others begin anew, and either is said."""
    data = paint(tmp_path / "data", each=8)
    assert call("train", data, "-o", tmp_path / "first", *SMALL).returncode == 0
    best = tmp_path / "first" / "best.safetensors"
    once = ("--epochs", "1", "--batch-size", "8", "--augment", "shift")
    tuned = call(
        "train", data, "-o", tmp_path / "second", "--from", best, *once, "--lr", "1e-9", "--ema", "0"
    )
    assert "knows all 3 classes: its head goes on" in tuned.stderr, tuned.stderr
    before, after = (
        load_checkpoint(path / "best.safetensors").model for path in (best.parent, tmp_path / "second")
    )
    np.testing.assert_allclose(after.head.weight.detach(), before.head.weight.detach(), atol=1e-6)
    other = paint(tmp_path / "other", each=8, names=("red", "blue"))
    (other / "blue").rename(other / "sky")
    probe = call("train", other, "-o", tmp_path / "third", "--from", best, "--freeze", *once)
    assert "was trained on 3 other classes: it gets a new head for 2" in probe.stderr, probe.stderr
    kept = load_checkpoint(tmp_path / "third" / "last.safetensors").model
    assert kept.config.classes == 2
    name = "blocks.0.mlp.fc1.weight"
    np.testing.assert_array_equal(kept.state_dict()[name], before.state_dict()[name])


def test_a_linear_probe_changes_no_image_where_none_is_asked_for(tmp_path: Path) -> None:
    """`--augment none` changes nothing at all, so that a frozen network's features are computed once."""
    data = paint(tmp_path / "data", each=8)
    assert call("train", data, "-o", tmp_path / "first", *SMALL).returncode == 0
    best = tmp_path / "first" / "best.safetensors"
    options = ("--freeze", "--augment", "none", "--epochs", "3", "--batch-size", "8")
    done = call("train", data, "-o", tmp_path / "probe", "--from", best, *options)
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "probe" / "config.json").read_text())
    assert config["recipe"]["crop_scale"] == 1
    assert len((tmp_path / "probe" / "metrics.jsonl").read_text().splitlines()) == 3


def test_a_teacher_and_quantizers_are_an_option_away(tmp_path: Path) -> None:
    """Distillation and quantization-aware training are what a user adds to the same command."""
    data = paint(tmp_path / "data", each=8)
    assert call("train", data, "-o", tmp_path / "first", *SMALL).returncode == 0
    best = tmp_path / "first" / "best.safetensors"
    taught = call(
        "train",
        data,
        "-o",
        tmp_path / "student",
        *SMALL,
        "--teacher",
        best,
        "--distillation-token",
        *("--distillation", "hard"),
    )
    assert taught.returncode == 0, taught.stderr
    assert load_checkpoint(tmp_path / "student" / "best.safetensors").config.distilled
    once = ("--epochs", "2", "--batch-size", "8", "--augment", "shift")
    tuned = call(
        "train", data, "-o", tmp_path / "qat", "--from", best, "--qat", "--target", "tensorrt", *once
    )
    assert tuned.returncode == 0, tuned.stderr
    assert "bf16" not in tuned.stderr
    config = json.loads((tmp_path / "qat" / "config.json").read_text())
    recipe = config["recipe"]
    assert (recipe["quantize"], recipe["symmetric"], recipe["weight_bits"]) == (True, True, 8)
    if has_bf16(torch.device("cpu")):
        coarse = call(
            *("train", data, "-o", tmp_path / "qat", "--from", best, "--qat", "--precision", "bf16"),
            *(*once, "--force"),
        )
        assert coarse.returncode == 0, coarse.stderr
        assert "bf16 rounds about as coarsely as INT8" in coarse.stderr
    stranger = paint(tmp_path / "other", each=4, names=("red", "blue"))
    (stranger / "blue").rename(stranger / "sky")
    refused = call("train", stranger, "-o", tmp_path / "no", *SMALL, "--teacher", best)
    assert refused.returncode == 1
    assert "the teacher does not know 'sky'" in refused.stderr


def test_a_teacher_that_tells_nothing_of_itself_is_told_of(tmp_path: Path) -> None:
    """A bare state dict knows neither its classes nor what its images went through."""
    data = paint(tmp_path / "data", each=8)
    bare = tmp_path / "teacher.safetensors"
    save_file(new_model(named("vit_mini_patch4_32", classes=3), seed=0).state_dict(), bare)
    asked = ("train", data, "-o", tmp_path / "run", *SMALL, "--teacher", bare)
    refused = call(*asked)
    assert refused.returncode != 0
    assert (
        f"the teacher {bare} does not tell all; give --teacher-labels FILE (one a line, in the order of its outputs) "
        "and --teacher-preprocess resize=...,crop=32,"
    ) in refused.stderr
    labels = tmp_path / "labels.txt"
    labels.write_text("green\nred\nblue\n", encoding="utf-8")
    told = ("--teacher-labels", labels, "--teacher-preprocess")
    spec = "resize=32,crop=32,interpolation=bicubic,mean=0.4,std=0.3"
    done = call(*asked, *told, spec)
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["teacher"] == str(bare)
    broken = call(*asked, "--force", *told, "resize=32")
    assert broken.returncode != 0
    assert "Traceback" not in broken.stderr


def test_what_is_told_of_a_teacher_is_what_it_is_asked_with(tmp_path: Path) -> None:
    """Its classes stand in another order than the student's."""
    bare, labels = tmp_path / "teacher.safetensors", tmp_path / "labels.txt"
    save_file(new_model(named("vit_mini_patch4_32", classes=3), seed=0).state_dict(), bare)
    labels.write_text("sky\nred\nblue\n", encoding="utf-8")
    spec = "resize=32,crop=32,interpolation=bicubic,mean=0.4,std=0.3"
    teacher = open_teacher(str(bare), Labels.of(["blue", "red"]), Processes(), labels=labels, preprocess=spec)
    assert teacher.places.tolist() == [2, 1]
    assert teacher.preprocessing.mean == (0.4, 0.4, 0.4)


def test_a_teacher_that_does_not_fit_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is mostly the largest network of the run."""
    labels, preprocessing = Labels.of(["blue", "red"]), usual_preprocessing((8, 8), mean="0.5", std="0.5")
    model = new_model(named("vit_mini_patch4_32", classes=2, image_size=8), seed=0)
    save_checkpoint(tmp_path / "teacher.safetensors", model, labels=labels, preprocessing=preprocessing)
    # A real allocator's words.
    monkeypatch.setattr(ViT, "to", lambda *arguments: torch.empty(1 << 60, dtype=torch.uint8))
    with pytest.raises(
        TrainingError, match=r"memory ran out while bringing the teacher to .*; take a smaller"
    ):
        open_teacher(str(tmp_path / "teacher.safetensors"), labels, Processes())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--freeze",), "give one with --from"),
        (("--from", "x", "--model", "vit_mini_patch4_32"), "leave out --model"),
        (("--augment", "loud"), "expected the augment to be one of shift, trivial, rand, none, got 'loud'"),
        (("--precision", "float8"), "expected the precision to be one of float32, bf16"),
        (("--ema", "1"), "expected the ema to be from 0 to below 1"),
        (
            ("--teacher-labels", "x.txt"),
            "--teacher-labels and --teacher-preprocess tell of a teacher; name it",
        ),
        (("--target", "tensorrt"), "--target chooses the grids of quantization-aware training; give --qat"),
        (("--from", "x", "--qat", "--target", "coreml"), "coreml computes in float16"),
        (("--from", "x", "--qat", "--target", "toaster"), "expected a target from cpu, cpu-avx2"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    tmp_path: Path, refused: Refused, options: tuple[str, ...], sentence: str
) -> None:
    """Each is a wish that nothing could grant."""
    data = paint(tmp_path / "data", each=2)
    assert sentence in refused(data, "-o", tmp_path / "run", *options, status=2)

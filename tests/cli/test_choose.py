"""Torch's answers go to the device in a file: ``check --save-reference``, ``check --against`` it, and ``choose``."""

import json
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest

from vit_edge.checkpoint import load_checkpoint, save_checkpoint
from vit_edge.kept import KeptAnswers, image_digest
from vit_edge.runtime import Classifier
from vit_edge.runtime.capsule import KEY, read_capsule

from ..resealed import resealed, slow_down, swap_head
from .command import Entry, absent, call, environment, refused


@pytest.fixture(scope="module")
def reference(
    digits_model: Path, digits_checkpoint: Path, digits_images: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Give torch's answers for the images of the test, as the command keeps them."""
    path = tmp_path_factory.mktemp("reference") / "ref.npz"
    done = call(
        *("check", digits_model, "--against", digits_checkpoint, "--data", digits_images / "test", "--json"),
        *("--save-reference", path),
    )
    assert done.returncode == 0, done.stderr
    assert f"{path}: torch's answers for 120 images, 0.0" in done.stderr
    path.with_suffix(".json").write_text(done.stdout)
    return path


@pytest.fixture(scope="module")
def slow(digits_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a file with the same answers that takes longer for each."""
    return resealed(digits_model, tmp_path_factory.mktemp("slow") / "slow.onnx", slow_down)


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Entry:
    return Entry("choose", monkeypatch, capfd)


@pytest.fixture
def device(tmp_path: Path) -> dict[str, str]:
    """Give the environment of a machine without torch and all that comes with it."""
    (tmp_path / "hidden").mkdir()
    return environment(absent(tmp_path / "hidden", "torch", "onnx", "safetensors", "torchvision"))


def test_a_device_without_torch_measures_what_the_workshop_did(
    reference: Path, digits_model: Path, digits_images: Path, device: dict[str, str]
) -> None:
    """The same numbers, from the logits in a file."""
    arguments = ("check", digits_model, "--against", reference, "--data", digits_images / "test")
    done = call(*arguments, "--json", env=device)
    assert done.returncode == 0, done.stderr
    here, there = json.loads(done.stdout), json.loads(reference.with_suffix(".json").read_text())
    for key in ("images", "agreement", "flips", "reference_top1", "model_top1", "drop", "flipped", "lost"):
        assert here[key] == there[key], key
    assert here["drift"] == pytest.approx(there["drift"], rel=1e-3)
    assert (here["missing"], here["reference_images_per_s"]) == (0, None)
    assert here["model_images_per_s"] > 0
    done = call(*arguments, "--max-drift", "0.000001", env=device)
    assert done.returncode == 1
    assert "bound broken: logit drift" in done.stderr
    assert "images                     120\n" in done.stdout
    assert " torch," not in done.stdout.split("images per second")[1]


def test_images_without_classes_and_unknown_ones_are_measured_and_said(
    reference: Path, digits_model: Path, digits_images: Path, tmp_path: Path, device: dict[str, str]
) -> None:
    """A folder of pictures, under other names, with some that torch has never seen."""
    data = tmp_path / "pictures"
    data.mkdir()
    for place, path in enumerate(sorted((digits_images / "test" / "one").iterdir())):
        shutil.copy(path, data / f"picture{place}.png")
    for place, path in enumerate(sorted((digits_images / "train" / "two").iterdir())[:3]):
        shutil.copy(path, data / f"unknown{place}.png")
    done = call("check", digits_model, "--against", reference, "--data", data, env=device)
    assert done.returncode == 0, done.stderr
    assert "images                     12; 3 more were left out, unknown to the kept answers\n" in done.stdout
    assert "top-1" not in done.stdout
    for path in data.glob("picture*"):
        path.unlink()
    sentence = refused("check", digits_model, "--against", reference, "--data", data, "-q", env=device)
    assert sentence.startswith(
        "none of the 3 images is among the 124 whose answers of best.safetensors were kept"
    )


def test_the_answers_hold_the_pictures_of_the_capsule_too(
    reference: Path, digits_model: Path, digits_checkpoint: Path
) -> None:
    """So that variants can be compared on a device that has no images at all."""
    kept = KeptAnswers.load(reference)
    capsule = read_capsule(digits_model, "model")
    assert capsule is not None
    for picture in capsule.pictures:
        assert kept.logits[image_digest(picture.jpeg)] == pytest.approx(picture.logits, abs=1e-4)
    assert kept.sources == (load_checkpoint(digits_checkpoint).sha256,)
    assert len(kept.logits) == 120 + 4


def test_answers_of_another_checkpoint_are_refused(
    reference: Path, digits_model: Path, digits_checkpoint: Path, digits_images: Path, tmp_path: Path
) -> None:
    """The same labels and the same images, and weights that are others: the numbers would be of two networks."""
    other = tmp_path / "other.safetensors"
    checkpoint = load_checkpoint(digits_checkpoint)
    checkpoint.model.head.bias.data[0] += 1.0
    assert checkpoint.labels is not None
    assert checkpoint.preprocessing is not None
    save_checkpoint(other, checkpoint.model, labels=checkpoint.labels, preprocessing=checkpoint.preprocessing)
    source = json.dumps({"name": "other", "sha256": load_checkpoint(other).sha256})
    model = resealed(digits_model, tmp_path / "other.onnx", entries={"vit_edge.source": source})
    sentence = refused("check", model, "--against", reference, "--data", digits_images / "test", "-q")
    assert "are of different checkpoints" in sentence
    assert sentence.endswith("keep the answers of the one that the model was exported from")


def test_saving_is_refused_before_the_work_where_it_cannot_be(
    reference: Path, digits_model: Path, digits_checkpoint: Path, digits_images: Path, tmp_path: Path
) -> None:
    """Minutes of torch are not to end in a name that is taken."""
    data = ("--data", digits_images / "test", "-q")
    taken = refused(
        *("check", digits_model, "--against", digits_checkpoint, *data, "--save-reference", reference),
        status=2,
    )
    assert "exists; remove it, or give another name" in taken
    twice = refused(
        *("check", digits_model, "--against", reference, *data, "--save-reference", tmp_path / "x.npz"),
        status=2,
    )
    assert "holds answers that were kept before" in twice


def test_the_fastest_that_keeps_its_bounds_is_on_stdout(
    reference: Path,
    digits_model: Path,
    slow: Path,
    digits_images: Path,
    tmp_path: Path,
    device: dict[str, str],
) -> None:
    """`MODEL=$(vit-edge choose ...)` is what an installation script writes; a wrong graph is fast as well."""
    wrong = resealed(digits_model, tmp_path / "wrong.onnx", swap_head)
    files = (slow, wrong, digits_model)
    done = call("choose", *files, "--against", reference, "--data", digits_images / "test", env=device)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{digits_model}\n"
    assert f"> {digits_model}" in done.stderr
    assert f"  {slow}" in done.stderr
    assert "at least 98 % wanted" in done.stderr.split(str(wrong))[1].splitlines()[1]
    quiet = call(
        "choose", *files[1:], "--against", reference, "--data", digits_images / "test", "-q", env=device
    )
    assert (quiet.stdout, quiet.stderr) == (f"{digits_model}\n", "")


def test_json_has_every_file_with_its_numbers_and_the_reason(
    choose: Entry, reference: Path, digits_model: Path, slow: Path, digits_images: Path, tmp_path: Path
) -> None:
    """What cannot run here is a finding, and not the end of the comparison."""
    data = bytearray(digits_model.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "damaged.onnx").write_bytes(data)
    files = (tmp_path / "damaged.onnx", slow, digits_model)
    status, out, _ = choose(*files, "--against", reference, "--data", digits_images / "test", "--json")
    values: dict[str, Any] = json.loads(out)
    assert status == 0
    assert (values["chosen"], values["images"], values["missing"]) == (str(digits_model), 120, 0)
    damaged, slower, faster = values["models"]
    assert "was changed or damaged" in damaged["problem"]
    assert damaged["latency_ms"] is None
    assert slower["problem"] is None
    assert slower["latency_ms"] > faster["latency_ms"] > 0
    assert slower["agreement"] == faster["agreement"] > 0.9
    assert (faster["provider"], faster["images"]) == ("cpu", 120)
    assert faster["model_top1"] > 0.8


def test_without_images_the_pictures_in_the_files_are_the_judges(
    choose: Entry, reference: Path, digits_model: Path, slow: Path, tmp_path: Path
) -> None:
    """A device has no data set; with the files and the kept answers there is enough to tell a wrong one."""
    wrong = resealed(digits_model, tmp_path / "wrong.onnx", swap_head)
    status, out, err = choose(slow, wrong, digits_model, "--against", reference)
    assert (status, out) == (0, f"{digits_model}\n")
    assert "judged by the drift on the 4 pictures in the files; give --data for more" in err
    assert "logit drift" in err.split(str(wrong))[1].splitlines()[1]
    # So few pictures, with a narrow one among them: the share of equal answers counts where it is asked for.
    assert choose(wrong, "--against", reference, "--max-drift", "100")[0] == 0
    assert choose(wrong, "--against", reference, "--max-drift", "100", "--min-agreement", "0.9")[0] == 1
    bare = resealed(digits_model, tmp_path / "bare.onnx", entries={KEY: None})
    status, out, err = choose(bare, "--against", reference)
    assert (status, out) == (1, "")
    assert "none of the 0 images is among the 124" in err


def test_bounds_of_ones_own_count_and_where_none_is_left_that_is_status_1(
    choose: Entry, reference: Path, digits_model: Path, digits_images: Path
) -> None:
    """A script must not go on with a file that breaks what was asked for."""
    arguments = (digits_model, "--against", reference, "--data", digits_images / "test")
    status, out, err = choose(*arguments, "--max-drift", "0.000001")
    assert (status, out) == (1, "")
    assert "at most 1e-06 wanted" in err
    assert "no file keeps its bounds on this device" in err
    # Without bounds of one's own those count that the file was exported with.
    proof = json.dumps({"bounds": {"min_agreement": 0.0, "max_drift": 1e-6, "max_drop": 100.0}})
    strict = resealed(digits_model, digits_images / "strict.onnx", entries={"vit_edge.proof": proof})
    try:
        assert choose(strict, *arguments[1:])[0] == 1
        assert choose(strict, *arguments[1:], "--max-drift", "1")[0] == 0
    finally:
        strict.unlink()


def test_a_file_that_is_not_there_is_a_mistake_and_not_a_finding(
    choose: Entry, reference: Path, digits_model: Path, tmp_path: Path
) -> None:
    """A name typed wrong would silently be the slower file."""
    status, out, err = choose(digits_model, tmp_path / "absent.onnx", "--against", reference)
    assert (status, out) == (1, "")
    assert "there is no file" in err


def test_the_slow_file_answers_alike(digits_model: Path, slow: Path, digits_images: Path) -> None:
    """Otherwise the tests above would compare two things at once."""
    picture = next((digits_images / "test" / "four").iterdir())
    with Classifier(digits_model) as one, Classifier(slow) as other:
        pixels = one.pixels(picture)[None]
        assert one.logits(pixels) == pytest.approx(other.logits(pixels))
    assert len(onnx.load(slow).graph.node) > len(onnx.load(digits_model).graph.node)

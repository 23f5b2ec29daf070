"""``vit-edge check``: the command as it is typed, on a real file and its real checkpoint."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from vit_edge.checkpoint import load_checkpoint, save_checkpoint
from vit_edge.export import Options, Precision, export_module
from vit_edge.runtime.labels import Labels

from ..conftest import DIGITS
from ..shared import SHARED, needs_shared
from .command import Entry

pytestmark = pytest.mark.usefixtures("one_torch_thread")

KEYS = {
    "images",
    "reference_top1",
    "model_top1",
    "reference_top5",
    "model_top5",
    "drop",
    "agreement",
    "flips",
    "max_abs_drift",
}


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Entry:
    return Entry("check", monkeypatch, capfd)


def few(images: Path, folder: Path, *names: str) -> Path:
    """Copy three images of some classes."""
    for name in names:
        (folder / name).mkdir(parents=True)
        for path in sorted((images / "test" / name).iterdir())[:3]:
            shutil.copy(path, folder / name / path.name)
    return folder


def test_json_is_one_object_with_the_promised_keys(
    call: Entry, digits_model: Path, digits_checkpoint: Path, digits_images: Path
) -> None:
    """Shares are fractions and the drop is in points; scripts are built on both."""
    status, out, _ = call(
        digits_model, "--against", digits_checkpoint, "--data", digits_images / "test", "--json"
    )
    values = json.loads(out)
    assert status == 0
    assert values.keys() >= KEYS
    assert values["images"] == 120
    for key in ("reference_top1", "model_top1", "reference_top5", "model_top5", "agreement"):
        assert 0 <= values[key] <= 1
    assert values["model_top1"] > 0.8
    assert values["drop"] == pytest.approx(100 * (values["reference_top1"] - values["model_top1"]))
    low, high = values["drop_interval"]
    assert low <= values["drop"] <= high
    assert isinstance(values["flips"], int)
    assert len(values["flipped"]) == values["flips"]
    assert 0 < values["max_abs_drift"] < 5


def test_the_table_says_the_same_for_people(
    call: Entry, digits_model: Path, digits_checkpoint: Path, digits_images: Path
) -> None:
    """Answers on stdout, progress on stderr, and no progress where it isn't wanted."""
    arguments = (digits_model, "--against", digits_checkpoint, "--data", digits_images / "test")
    status, out, err = call(*arguments)
    assert status == 0
    for row in (
        "images ",
        "top-1 ",
        "top-5 ",
        "top-1 drop ",
        "agreement ",
        "logit drift ",
        "images per second ",
    ):
        assert f"\n{row}" in f"\n{out}"
    assert "95 % interval" in out
    assert "checking: 120/120 images" in err
    assert call(*arguments, "--quiet")[2] == ""


def test_a_broken_bound_is_status_1_and_the_report_is_there_all_the_same(
    call: Entry, digits_model: Path, digits_checkpoint: Path, digits_images: Path, tmp_path: Path
) -> None:
    """A pipeline stops on the status, and the person who looks into it needs the numbers."""
    data = few(digits_images, tmp_path / "data", "one", "two")
    arguments = (digits_model, "--against", digits_checkpoint, "--data", data, "--json")
    status, out, err = call(*arguments, "--max-drop", "-0.5")
    assert status == 1
    assert json.loads(out)["images"] == 6
    assert "bound broken: top-1 drop 0.00 points on 6 images, at most -0.5 wanted" in err
    assert call(*arguments, "--max-drift", "0.0000001", "-q")[0] == 1
    assert call(*arguments, "--max-drop", "0", "--min-agreement", "1")[0] == 0
    status, out, err = call(*arguments, "--min-agreement", "95")
    assert (status, out) == (2, "")


def test_folders_are_matched_by_name_and_never_by_place(
    call: Entry, digits_model: Path, digits_checkpoint: Path, digits_images: Path, tmp_path: Path
) -> None:
    """Sorted by name, eight comes first and is output 8: by place, each of these would be wrong."""
    data = few(digits_images, tmp_path / "data", "eight", "four", "zero")
    assert [DIGITS.index(path.name) for path in sorted(data.iterdir())] == [8, 4, 0]
    status, out, _ = call(digits_model, "--against", digits_checkpoint, "--data", data, "--json")
    assert status == 0
    assert json.loads(out)["model_top1"] >= 8 / 9
    # Letter case does not count.
    (data / "zero").rename(data / "ZERO")
    again = call(digits_model, "--against", digits_checkpoint, "--data", data, "--json")[1]
    assert json.loads(again)["model_top1"] == json.loads(out)["model_top1"]


def test_folders_are_matched_by_synset_id_too(
    call: Entry, digits_checkpoint: Path, digits_images: Path, tmp_path: Path
) -> None:
    """ImageNet's folders are ids, whose order is not that of every model's outputs."""
    ids = [f"n{9 - place:08}" for place in range(10)]
    checkpoint = load_checkpoint(digits_checkpoint)
    assert checkpoint.preprocessing is not None
    labels = Labels.of([f"{key} {name}" for key, name in zip(ids, DIGITS, strict=True)])
    export_module(
        checkpoint.model,
        tmp_path / "model.onnx",
        labels=labels,
        preprocessing=checkpoint.preprocessing,
        calibrate=digits_images / "calibrate",
        options=Options(precision="float32", samples=4, simplify=False),
    )
    data = few(digits_images, tmp_path / "data", "zero", "six")
    for name in ("zero", "six"):
        (data / name).rename(data / ids[DIGITS.index(name)])
    status, out, _ = call(
        tmp_path / "model.onnx",
        "--against",
        digits_checkpoint,
        "--data",
        data,
        "--json",
        "--min-agreement",
        1,
    )
    assert status == 0
    assert json.loads(out)["model_top1"] >= 5 / 6
    assert sorted(ids) == ids[::-1]


def test_a_folder_that_is_no_class_is_named(
    call: Entry, digits_model: Path, digits_checkpoint: Path, digits_images: Path, tmp_path: Path
) -> None:
    """Leaving it out unseen would measure other images than the user believes."""
    data = few(digits_images, tmp_path / "data", "one", "two")
    (data / "two").rename(data / "zwei")
    status, out, err = call(digits_model, "--against", digits_checkpoint, "--data", data)
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert "the folder 'zwei'" in err
    assert len(err.splitlines()) == 1


def test_a_bare_state_dict_takes_the_files_labels_and_preprocessing(
    call: Entry, digits_model: Path, digits_checkpoint: Path, digits_images: Path, tmp_path: Path
) -> None:
    """They were given at the export; asking again would only invite a difference."""
    save_file(load_file(digits_checkpoint), tmp_path / "bare.safetensors")
    data = few(digits_images, tmp_path / "data", "one", "two")
    status, out, err = call(
        digits_model, "--against", tmp_path / "bare.safetensors", "--heads", 2, "--data", data, "--json"
    )
    assert status == 0, err
    full = call(digits_model, "--against", digits_checkpoint, "--data", data, "--json")[1]
    kept = KEYS | {"drift", "flipped", "lost"}
    assert {k: v for k, v in json.loads(out).items() if k in kept} == {
        k: v for k, v in json.loads(full).items() if k in kept
    }


def test_a_checkpoint_that_means_something_else_is_refused(
    call: Entry, digits_model: Path, digits_checkpoint: Path, digits_images: Path, tmp_path: Path
) -> None:
    """Numbers that compare two different things look like any others."""
    checkpoint = load_checkpoint(digits_checkpoint)
    assert checkpoint.preprocessing is not None
    turned = tmp_path / "turned.safetensors"
    labels = Labels.of(DIGITS[::-1])
    save_checkpoint(turned, checkpoint.model, labels=labels, preprocessing=checkpoint.preprocessing)
    status, out, err = call(digits_model, "--against", turned, "--data", digits_images / "test")
    assert (status, out) == (1, "")
    assert "differ in label 0: 'nine' and 'zero'" in err


def test_what_is_not_there_is_one_sentence(
    call: Entry, digits_model: Path, digits_checkpoint: Path, digits_images: Path, tmp_path: Path
) -> None:
    """Paths are mistyped every day."""
    data = digits_images / "test"
    for arguments, sentence in (
        ((tmp_path / "no.onnx", "--against", digits_checkpoint, "--data", data), "there is no file"),
        ((digits_model, "--against", tmp_path / "no.pth", "--data", data), "no.pth"),
        ((digits_model, "--against", digits_checkpoint, "--data", tmp_path / "no"), "there is no folder"),
        ((digits_checkpoint, "--against", digits_checkpoint, "--data", data), "vit-edge export"),
    ):
        status, out, err = call(*arguments)
        assert (status, out) == (1, "")
        assert err.startswith("error: ")
        assert sentence in err
        assert len(err.splitlines()) == 1


def test_an_image_that_cannot_be_read_is_named(
    call: Entry, digits_model: Path, digits_checkpoint: Path, digits_images: Path, tmp_path: Path
) -> None:
    """A check on fewer images than there are is another check."""
    data = few(digits_images, tmp_path / "data", "one")
    (data / "one" / "broken.png").write_bytes(b"")
    status, out, err = call(digits_model, "--against", digits_checkpoint, "--data", data, "-q")
    assert (status, out) == (1, "")
    assert "broken.png" in err


@needs_shared
@pytest.mark.slow
def test_the_real_vit_tiny_is_the_same_in_float32_and_small_in_int8(call: Entry, tmp_path: Path) -> None:
    """All that was proven on digits holds for a real network on real photographs."""
    checkpoint = load_checkpoint(
        SHARED / "models" / "vit_tiny_patch16_224.safetensors",
        labels=Labels.read(SHARED / "data" / "imagenet1k_classes.txt"),
    )
    assert checkpoint.labels is not None
    data = tmp_path / "data"
    data.mkdir()
    for folder in sorted((SHARED / "data" / "imagenet_val800").iterdir())[::8]:
        (data / folder.name).symlink_to(folder, target_is_directory=True)
    steps: tuple[tuple[Precision, int], ...] = (("float32", 2), ("int8", 16))
    for precision, samples in steps:
        result = export_module(
            checkpoint.model,
            tmp_path / f"{precision}.onnx",
            labels=checkpoint.labels,
            preprocessing="resize=248,crop=224,interpolation=bicubic,mean=0.5,std=0.5",
            calibrate=SHARED / "data" / "calibration250",
            # Of 16 images a single one is 6 %, and the search that finds the best graph takes minutes.
            options=Options(
                precision=precision,
                samples=samples,
                simplify=False,
                min_speedup=0,
                min_agreement=None if precision == "float32" else 0.9,
                budget_s=15,
            ),
        )
        status, out, err = call(result.path, "--against", checkpoint.source, "--data", data, "--json", "-q")
        assert status == 0, err
        values = json.loads(out)
        assert values["images"] >= 90
        assert values["reference_top1"] > 0.7
        if precision == "float32":
            assert (values["flips"], values["drop"]) == (0, 0.0)
            assert values["max_abs_drift"] < 1e-3
        else:
            assert values["agreement"] >= 0.94
            assert values["drift"] < 0.08
            assert result.bytes < 8_000_000

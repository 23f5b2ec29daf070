"""``vit-edge verify``: the command as it is typed, on a real file, on a device without torch."""

import json
import shutil
from pathlib import Path

import pytest

from vit_edge.runtime.capsule import KEY

from ..documentation import DOCS, blocks, needs, run_commands
from ..resealed import resealed, slow_down, swap_head
from .command import Entry, absent, call, environment, refused

PAGE = DOCS / "verify.md"


@pytest.fixture
def entry(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Entry:
    return Entry("verify", monkeypatch, capfd)


def test_a_device_without_torch_says_that_it_gives_torchs_answers(digits_model: Path, tmp_path: Path) -> None:
    """One command, one file, no data set; stdout has the verdict, and stderr the progress."""
    hidden = absent(tmp_path, "torch", "onnx", "torchvision")
    done = call("verify", digits_model, env=environment(hidden))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"{digits_model} on the provider cpu: 4 pictures, made by code"
    assert [line.split("  ")[0] for line in lines[1:5]] == ["decode", "resize", "inference", "file to answer"]
    assert all(" ok " in line for line in lines[1:5])
    assert lines[5] == "this device gives torch's answers"
    assert done.stderr == "verifying: 4/4 pictures\n"


def test_json_is_one_object(entry: Entry, digits_model: Path) -> None:
    """A fleet is watched by scripts."""
    status, out, err = entry(digits_model, "--json", "--quiet", "--threads", "1", "--provider", "cpu")
    values = json.loads(out)
    assert (status, err) == (0, "")
    assert (values["passed"], values["fault"], values["provider"]) == (True, None, "cpu")
    assert (values["file"], values["reference"]) == (str(digits_model), "torch float32")
    assert list(values["stages"]) == ["decode", "resize", "inference", "whole"]


def test_changed_weights_are_status_1_and_named(entry: Entry, digits_model: Path, tmp_path: Path) -> None:
    """The seal is right, since whoever changed the file sealed it again: the answers tell."""
    changed = resealed(digits_model, tmp_path / "changed.onnx", swap_head)
    status, out, _ = entry(changed)
    assert status == 1
    assert "inference        FAULT" in out
    assert "decode           ok " in out
    assert "resize           ok " in out
    assert out.splitlines()[-1] == "this device does NOT give torch's answers: inference is at fault"
    status, out, _ = entry(changed, "--json")
    assert (status, json.loads(out)["fault"]) == (1, "inference")
    # Sealed again without a change it is as good as before.
    assert entry(resealed(digits_model, tmp_path / "same.onnx"))[0] == 0


def test_a_drift_of_the_users_own_counts(entry: Entry, digits_model: Path) -> None:
    """Who needs more than the file's own drift says so, and an INT8 file then fails."""
    status, out, _ = entry(digits_model, "--max-drift", "0.000001")
    assert status == 1
    assert "at most 1e-06 passes" in out
    assert entry(digits_model, "--max-drift", "0.5")[0] == 0


def test_a_file_without_a_capsule_is_refused_with_the_way_out(digits_model: Path, tmp_path: Path) -> None:
    """Nothing was compared, and that must not look like success."""
    bare = resealed(digits_model, tmp_path / "bare.onnx", entries={KEY: None})
    sentence = refused("verify", bare)
    assert sentence == (
        f"{bare} carries no capsule; export it anew without `--capsule 0`, or compare it on images with "
        "`vit-edge check`"
    )


def test_what_cannot_be_opened_is_one_sentence(digits_model: Path, tmp_path: Path) -> None:
    """A damaged file, an absent one, and a provider that is not there."""
    data = bytearray(digits_model.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "damaged.onnx").write_bytes(data)
    assert "was changed or damaged" in refused("verify", tmp_path / "damaged.onnx")
    assert "there is no file" in refused("verify", tmp_path / "absent.onnx")
    assert "qnn" in refused("verify", digits_model, "--provider", "qnn")


@pytest.mark.slow
@needs(PAGE)
def test_the_commands_of_the_page_run(
    digits_model: Path, digits_checkpoint: Path, digits_images: Path, tmp_path: Path
) -> None:
    """One after the other, as a reader would type them."""
    shutil.copy(digits_model, tmp_path / "model.onnx")
    shutil.copy(digits_checkpoint, tmp_path / "my_vit.safetensors")
    shutil.copytree(digits_images / "calibrate", tmp_path / "photos")
    shutil.copytree(digits_images / "test", tmp_path / "labelled_photos")
    (tmp_path / "variants").mkdir()
    shutil.copy(digits_model, tmp_path / "variants" / "cpu.onnx")
    resealed(digits_model, tmp_path / "variants" / "slow.onnx", slow_down)
    lines = "".join(blocks(PAGE, "sh"))
    assert lines.count("vit-edge ") >= 7
    done = run_commands(lines + 'echo "$MODEL"\n', tmp_path, timeout_s=600)
    assert done.stdout.splitlines()[-1] == "variants/cpu.onnx"

"""vit-edge's own checkpoint: what it keeps, and that it is whole or not there."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from vit_edge.checkpoint import load_checkpoint, save_checkpoint
from vit_edge.errors import CheckpointError
from vit_edge.models import ViT, ViTConfig
from vit_edge.runtime.labels import Label, Labels
from vit_edge.runtime.preprocess import Preprocessing

CONFIG = ViTConfig((24, 32), 8, 32, 2, 2, 64, 3, qkv_bias=False, norm_eps=1e-5)
LABELS = Labels((Label("tench, Tinca tinca", "n01440764"), Label("seven"), Label("n01443537")))
HOW = Preprocessing((24, 32), (24, 32), "bicubic", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A checkpoint of a small network."""
    torch.manual_seed(0)
    path = tmp_path / "best.safetensors"
    save_checkpoint(path, ViT(CONFIG), labels=LABELS, preprocessing=HOW, extra={"epoch": "3"})
    return path


def test_everything_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    """Weights to the bit, sizes, labels with their ids, preprocessing: nothing has to be given again."""
    model, path = ViT(CONFIG), tmp_path / "best.safetensors"
    save_checkpoint(path, model, labels=LABELS, preprocessing=HOW, extra={"epoch": "3"})
    loaded = load_checkpoint(path)
    assert (loaded.config, loaded.labels, loaded.preprocessing) == (CONFIG, LABELS, HOW)
    assert (loaded.source, loaded.extra) == (str(path), {"epoch": "3"})
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    saved = model.state_dict()
    assert all(torch.equal(value, saved[name]) for name, value in loaded.model.state_dict().items())
    assert all(parameter.requires_grad for parameter in loaded.model.parameters())
    assert os.listdir(tmp_path) == ["best.safetensors"]  # noqa: PTH208 (the temporary file is hidden)


def test_any_library_can_open_the_file(path: Path) -> None:
    """It is plain safetensors under timm's names, with the documented text beside."""
    assert "blocks.1.attn.qkv.weight" in load_file(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert metadata["vit_edge.schema"] == "1"
    assert json.loads(metadata["vit_edge.config"])["image_size"] == [24, 32]
    assert json.loads(metadata["vit_edge.labels"])[0] == {"name": "tench, Tinca tinca", "id": "n01440764"}
    assert json.loads(metadata["vit_edge.preprocess"])["resize"] == [24, 32]


def test_a_checkpoint_may_be_overwritten_while_it_is_loaded(path: Path) -> None:
    """Training writes the best one again and again; a network in memory must not change with the file."""
    loaded = load_checkpoint(path)
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096)
    assert all(torch.equal(value, before[name]) for name, value in loaded.model.state_dict().items())


def test_a_kill_while_writing_leaves_the_old_file(path: Path) -> None:
    """Training is stopped at any moment, and what was the best until then must survive."""
    before = path.read_bytes()
    code = (
        "import os, pathlib, signal, sys\n"
        "from tests.checkpoint.test_native import CONFIG, HOW, LABELS\n"
        "from vit_edge.checkpoint import save_checkpoint\n"
        "from vit_edge.models import ViT\n"
        "os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)\n"
        "save_checkpoint(sys.argv[1], ViT(CONFIG), labels=LABELS, preprocessing=HOW)\n"
    )
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", code, str(path)], cwd=root, check=False)
    assert run.returncode == -signal.SIGKILL
    assert path.read_bytes() == before


def test_a_file_that_cannot_be_written_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    """A run of hours should say what was wrong with the folder."""
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_checkpoint(tmp_path / "no" / "x.safetensors", ViT(CONFIG), labels=LABELS, preprocessing=HOW)
    (tmp_path / "folder").mkdir()
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_checkpoint(tmp_path / "folder", ViT(CONFIG), labels=LABELS, preprocessing=HOW)
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_what_does_not_belong_together_is_not_saved(tmp_path: Path) -> None:
    """The mistake should show where it is made, not on the device."""
    path = tmp_path / "x.safetensors"
    with pytest.raises(CheckpointError, match="expected 3 labels, one for each output, got 2"):
        save_checkpoint(path, ViT(CONFIG), labels=Labels.of(["a", "b"]), preprocessing=HOW)
    with pytest.raises(CheckpointError, match="crops to 16x16, but the network takes 24x32"):
        save_checkpoint(path, ViT(CONFIG), labels=LABELS, preprocessing=replace(HOW, crop=(16, 16)))
    with pytest.raises(CheckpointError, match=r"the key vit_edge\.labels is reserved"):
        save_checkpoint(path, ViT(CONFIG), labels=LABELS, preprocessing=HOW, extra={"vit_edge.labels": "x"})
    assert not path.exists()


def test_labels_and_preprocessing_that_differ_from_the_files_own_are_refused(path: Path) -> None:
    """An option left over from another model must not win silently."""
    other = Labels.of(["tench, Tinca tinca", "eight", "n01443537"])
    with pytest.raises(CheckpointError, match="its own label 1 is 'seven', but 'eight' was given"):
        load_checkpoint(path, labels=other)
    with pytest.raises(CheckpointError, match="has 3 labels of its own, but 2 were given"):
        load_checkpoint(path, labels=Labels.of(["a", "b"]))
    with pytest.raises(CheckpointError, match="interpolation bicubic of its own, but bilinear was given"):
        load_checkpoint(path, preprocessing=replace(HOW, interpolation="bilinear"))
    with pytest.raises(CheckpointError, match="has 2 attention heads, but 4 were given"):
        load_checkpoint(path, heads=4)
    assert load_checkpoint(path, labels=LABELS, preprocessing=HOW, heads=2).labels == LABELS


def test_ids_that_the_checkpoint_lacks_may_come_from_the_given_labels(path: Path) -> None:
    """Many models name their classes in words alone; ids are what folders of images are called."""
    given = Labels((Label("tench, Tinca tinca"), Label("seven", "n00000007"), Label("n01443537")))
    labels = load_checkpoint(path, labels=given).labels
    assert labels is not None
    assert [label.id for label in labels.items] == ["n01440764", "n00000007", None]
    wrong = Labels((Label("tench, Tinca tinca", "n00000001"), *LABELS.items[1:]))
    with pytest.raises(CheckpointError, match="its own label 0 is 'n01440764 tench"):
        load_checkpoint(path, labels=wrong)


def test_another_image_size_leaves_the_preprocessing_to_be_given(path: Path) -> None:
    """The file's own belongs to its own size."""
    assert load_checkpoint(path, image_size=(24, 32)).preprocessing == HOW
    assert load_checkpoint(path, image_size=48).preprocessing is None
    larger = replace(HOW, resize=(48, 48), crop=(48, 48))
    loaded = load_checkpoint(path, image_size=48, preprocessing=larger)
    assert (loaded.config.image_size, loaded.preprocessing) == ((48, 48), larger)
    assert loaded.model(torch.zeros(1, 3, 48, 48)).shape == (1, 3)
    with pytest.raises(CheckpointError, match="crops to 24x32, but the network takes 48x48"):
        load_checkpoint(path, image_size=48, preprocessing=HOW)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("schema", "2", "expected a checkpoint of schema 1, got '2'; update vit-edge"),
        ("config", "{", "its metadata is damaged"),
        ("config", "[]", "its metadata is damaged"),
        ("config", None, "its metadata is damaged"),
        ("labels", '["a", "b", "c"]', "its metadata is damaged"),
        ("preprocess", "{}", "its metadata is damaged"),
    ],
)
def test_damaged_metadata_is_refused(path: Path, key: str, value: str | None, message: str) -> None:
    """Half of what the file should tell is not filled with guesses."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    metadata.pop(f"vit_edge.{key}")
    if value is not None:
        metadata[f"vit_edge.{key}"] = value
    save_file(load_file(path), path, metadata)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)

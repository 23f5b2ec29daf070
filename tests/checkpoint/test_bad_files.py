"""Files that hold no weights, damaged ones, ones that would run code, ones that do not fit."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from vit_edge.checkpoint import load_checkpoint
from vit_edge.errors import CheckpointError
from vit_edge.models import ViT, ViTConfig

CONFIG = ViTConfig((32, 32), 8, 32, 2, 2, 64, 3)


def state() -> dict[str, Tensor]:
    """Give the weights of a small network."""
    torch.manual_seed(0)
    return dict(ViT(CONFIG).state_dict())


class Bomb:
    """Unpickled, it would write a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.write_text, (self.target, "boom")


@pytest.mark.parametrize("kind", ["torch", "pickle", "npz"])
def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path: Path, kind: str) -> None:
    """Checkpoints come from strangers."""
    target, path = tmp_path / "owned", tmp_path / "weights.pth"
    content: dict[str, Any] = {**state(), "extra": Bomb(target)}
    if kind == "torch":
        torch.save(content, path)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        path = tmp_path / "weights.npz"
        np.savez(path, extra=np.array([content["extra"]], dtype=object))
    with pytest.raises(CheckpointError, match=r"would run code when opened, and is refused; .*\.safetensors"):
        load_checkpoint(path)
    assert not target.exists()


def test_a_pickled_module_is_refused_with_the_cure(tmp_path: Path) -> None:
    """`torch.save(model)` is what many people do first."""
    torch.save(ViT(CONFIG), tmp_path / "model.pth")
    with pytest.raises(
        CheckpointError, match=r"holds pickled Python objects.* save model.state_dict\(\) alone"
    ):
        load_checkpoint(tmp_path / "model.pth")


@pytest.mark.filterwarnings("ignore:.*torch.jit")  # deprecated, but its files are around
def test_a_torchscript_program_is_refused_with_the_cure(tmp_path: Path) -> None:
    """It has the same suffix as a state dict, and it is a program."""
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(tmp_path / "model.pt")  # type: ignore[no-untyped-call]
    with pytest.raises(CheckpointError, match=r"is a TorchScript program, which would run code"):
        load_checkpoint(tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; download or save it again"),
        (
            b"version https://git-lfs.example/spec/v1\noid sha256:0\nsize 9\n",
            "fetch them with `git lfs pull`",
        ),
        (b"\n<!DOCTYPE html><html>Not found</html>", "is a web page in place of weights"),
        (b"just some text, long enough", "is no file of weights"),
        (b"PK\x03\x04 and then nothing", "is damaged or incomplete"),
        (b"\x80\x02}q\x00", "is damaged or incomplete"),
        (b"\xff\x00\x00\x00\x00\x00\x00\x00{", "is damaged or incomplete"),
    ],
)
def test_a_file_without_weights_is_refused_in_one_sentence(
    tmp_path: Path, content: bytes, message: str
) -> None:
    """A download that went wrong looks like the file until it is opened."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["safetensors", "pth", "npz"])
def test_a_file_cut_short_is_refused_wherever_it_is_cut(tmp_path: Path, suffix: str) -> None:
    """A full disk or a broken connection cuts anywhere."""
    path = tmp_path / f"weights.{suffix}"
    if suffix == "safetensors":
        save_file(state(), path)
    elif suffix == "pth":
        torch.save(state(), path)
    else:
        arrays = {name: value.numpy() for name, value in state().items()}
        np.savez(path, **arrays)  # type: ignore[arg-type]
    whole = path.read_bytes()
    for length in range(1, len(whole), len(whole) // 23):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"damaged or incomplete|is no file of weights"):
            load_checkpoint(path, heads=2)


def test_a_path_that_leads_nowhere_is_answered_with_the_ways_to_name_a_model(tmp_path: Path) -> None:
    """A typing error in the path, or a name of the hub without its prefix."""
    with pytest.raises(CheckpointError, match=r"no such file or folder; .* timm:NAME or hf:REPO"):
        load_checkpoint(tmp_path / "nothing.safetensors")


def test_a_folder_of_a_training_run_is_answered_with_the_file_in_it(tmp_path: Path) -> None:
    """The folder is what `vit-edge train -o` was given."""
    save_file(state(), tmp_path / "best.safetensors")
    with pytest.raises(CheckpointError, match=r"give the file itself, such as .*best\.safetensors"):
        load_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(
        CheckpointError, match=r"holds no weights; expected model\.safetensors or pytorch_model\.bin"
    ):
        load_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "best.safetensors").rename(tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="got another program's"):
        load_checkpoint(tmp_path)
    assert load_checkpoint(tmp_path / "model.safetensors", heads=2).labels is None
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json is damaged"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks.1.mlp.fc2.bias": None}, r"it lacks blocks\.1\.mlp\.fc2\.bias$"),
        ({"surprise": torch.zeros(2)}, "it holds surprise, unknown here$"),
        ({"norm.bias": torch.zeros(31)}, r"it holds norm\.bias of shape \(31,\) where \(32,\) belongs$"),
        ({f"extra{place}": torch.zeros(1) for place in range(9)}, "extra2, unknown here, and 6 more$"),
        ({"blocks.0.mlp.fc1.weight": None}, r"lacks blocks\.0\.mlp\.fc1\.weight"),
        ({"pos_embed": torch.zeros(17, 32)}, r"expected pos_embed with 3 dimensions, got shape \(17, 32\)"),
        (
            {"head.weight": torch.zeros(3, 32, dtype=torch.int8)},
            "expected head.weight as floating-point numbers",
        ),
        ({"head.bias": torch.tensor([1.0, float("nan"), 2.0])}, "head.bias holds infinite values or NaN"),
        (
            {"head.bias": torch.tensor([1.0, 1e300, 2.0], dtype=torch.float64)},
            "head.bias holds infinite values",
        ),
        ({"patch_embed.proj.weight": torch.zeros(32, 3, 8, 4)}, "expected square patches, got 8x4"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    tmp_path: Path, change: dict[str, Tensor | None], message: str
) -> None:
    """Loading is strict: a network with a random layer in it would run."""
    weights = {name: value for name, value in {**state(), **change}.items() if value is not None}
    torch.save(weights, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "weights.pth", heads=2)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {}, {"model": {}}])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: Any) -> None:
    """An optimizer's or a script's own state is easily mistaken for the model's."""
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match=r"expected a state dict, got|holds no weights"):
        load_checkpoint(tmp_path / "weights.pth")


def test_a_pickle_that_holds_itself_is_refused(tmp_path: Path) -> None:
    """Looking for the weights inside must come to an end."""
    content: dict[str, Any] = {}
    content["model"] = content
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="expected a state dict, got 'model' with a value of type dict"):
        load_checkpoint(tmp_path / "weights.pth")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_become_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    """Half precision is how many are published; the export starts from float32."""
    weights = {name: value.to(dtype) for name, value in state().items()}
    save_file(weights, tmp_path / "weights.safetensors")
    loaded = load_checkpoint(tmp_path / "weights.safetensors", heads=2).model.state_dict()
    assert all(torch.equal(loaded[name], value.float()) for name, value in weights.items())
    assert {value.dtype for value in loaded.values()} == {torch.float32}


def test_a_file_that_may_not_be_read_is_one_sentence(tmp_path: Path) -> None:
    """Opening can fail for the system's own reasons, here a name that is too long."""
    with pytest.raises(CheckpointError, match=r"xxx: (cannot be read \(File name too long\)|no such file)"):
        load_checkpoint(tmp_path / ("x" * 300))

"""The best thread count is kept on the device, never in the file, and only for what it was measured on."""

import json
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from vit_edge.runtime import Classifier, VitEdgeError
from vit_edge.runtime import tuning as module
from vit_edge.runtime.cache import CACHE_VARIABLE
from vit_edge.runtime.cores import usable_cores
from vit_edge.runtime.tuning import forget_threads, keep_threads, tuned_threads

from .onnx_writer import colour_model, flat_colour

# No test machine grants so many, so it can only come from what was kept.
KEPT = usable_cores() + 1


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a model file, with a cache of its own."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    path = tmp_path / "colours.onnx"
    path.write_bytes(colour_model())
    return path


def seal_of(model: Path) -> str:
    with Classifier(model) as classifier:
        return classifier.seal


def used(model: Path | bytes, threads: int | None = None) -> int:
    """Give the threads that a session really has."""
    with Classifier(model, threads=threads) as classifier:
        assert classifier._session is not None
        found: int = classifier._session.get_session_options().intra_op_num_threads
        assert classifier.threads == found
        assert classifier(flat_colour("green")).label == "green"
        return found


def test_a_classifier_takes_the_count_that_was_kept(model: Path) -> None:
    """Every application on the device profits without a line of code."""
    before = model.read_bytes()
    assert used(model) == usable_cores()
    keep_threads(seal_of(model), "cpu", KEPT)
    assert used(model) == KEPT
    assert used(model.read_bytes()) == KEPT
    assert model.read_bytes() == before
    assert forget_threads(seal_of(model))
    assert used(model) == usable_cores()
    assert not forget_threads(seal_of(model))


def test_a_count_that_is_given_wins(model: Path) -> None:
    """Who names a number knows more, for example that another program runs beside."""
    keep_threads(seal_of(model), "cpu", KEPT)
    assert used(model, threads=1) == 1


def test_another_file_or_provider_has_its_own(model: Path) -> None:
    """What suits a small network does not suit a large one."""
    keep_threads(seal_of(model), "openvino", 7)
    assert used(model) == usable_cores()
    keep_threads(seal_of(model), "cpu", KEPT)
    assert tuned_threads(seal_of(model), "openvino") == 7
    assert used(colour_model(gain=2)) == usable_cores()
    keep_threads(seal_of(model), "cpu", KEPT + 1)
    assert tuned_threads(seal_of(model), "cpu") == KEPT + 1
    assert tuned_threads(seal_of(model), "openvino") == 7


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("processor", lambda: {"architecture": "other", "name": "Other"}),
        ("usable_cores", lambda: 99),
    ],
)
def test_another_device_measures_anew(
    model: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: Any
) -> None:
    """A disk moves from a Pi 4 to a Pi 5, and a container's quota changes."""
    seal = seal_of(model)
    keep_threads(seal, "cpu", KEPT)
    monkeypatch.setattr(module, name, value)
    assert tuned_threads(seal, "cpu") is None


def test_another_onnxruntime_measures_anew(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kernels and threads are what was measured."""
    seal = seal_of(model)
    keep_threads(seal, "cpu", KEPT)
    monkeypatch.setattr(onnxruntime, "__version__", "0.0")
    assert tuned_threads(seal, "cpu") is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "\xff\x00",
        lambda text: "[" * 100_000,
        lambda text: "{}",
        lambda text: "[1, null]",
        lambda text: json.dumps([json.loads(text)[0] | {"threads": 0}]),
        lambda text: json.dumps([json.loads(text)[0] | {"threads": "many"}]),
        lambda text: json.dumps([json.loads(text)[0] | {"threads": True}]),
    ],
)
def test_a_damaged_record_is_none(model: Path, damage: Any) -> None:
    """A power cut in the middle of a write must not keep the camera from starting."""
    seal = seal_of(model)
    path = keep_threads(seal, "cpu", KEPT)
    path.write_bytes(damage(path.read_text()).encode("latin-1"))
    assert used(model) == usable_cores()
    keep_threads(seal, "cpu", KEPT)
    assert used(model) == KEPT


def test_a_record_that_is_a_folder_is_none(model: Path) -> None:
    """Whatever lies in its place."""
    seal = seal_of(model)
    path = keep_threads(seal, "cpu", KEPT)
    path.unlink()
    path.mkdir()
    assert used(model) == usable_cores()
    with pytest.raises(VitEdgeError, match=f"{path} cannot be removed"):
        forget_threads(seal)


def test_a_cache_that_cannot_be_written_is_one_sentence(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read-only disk is common on devices; classifying goes on there."""
    seal = seal_of(model)
    monkeypatch.setenv(CACHE_VARIABLE, str(model))
    with pytest.raises(VitEdgeError) as caught:
        keep_threads(seal, "cpu", KEPT)
    assert str(caught.value).startswith(
        f"the tuning cannot be kept in {model}/tuning (Not a directory); set "
    )
    assert used(model) == usable_cores()


def test_a_user_without_a_home_keeps_nothing(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said when one wants to keep; everything else works."""
    seal = seal_of(model)
    monkeypatch.setattr("vit_edge.runtime.cache.cache_folder", lambda: None)
    with pytest.raises(VitEdgeError, match="this user has no home folder; set VIT_EDGE_CACHE to a folder"):
        keep_threads(seal, "cpu", KEPT)
    assert not forget_threads(seal)
    assert used(model) == usable_cores()


def test_what_is_kept_says_what_it_was_measured_on(model: Path) -> None:
    """People find it in their cache and want to know what it is; and no draft stays beside it."""
    path = keep_threads(seal_of(model), "cpu", KEPT)
    (record,) = json.loads(path.read_text())
    assert record["threads"] == KEPT
    assert record["cores"] == usable_cores()
    assert record["onnxruntime"] == onnxruntime.__version__
    assert record["processor"]["architecture"]
    assert [file.name for file in path.parent.iterdir()] == [path.name]

"""A file that was compiled for this device starts from its cache, answers as it did, and is compiled anew in time."""

import json
import logging
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from vit_edge.runtime import Classifier, ModelError, ProviderError, VitEdgeError, compile_model
from vit_edge.runtime.compile import forget_model
from vit_edge.runtime.session import start_session
from vit_edge.runtime.shelf import checksum

from .onnx_writer import colour_model, flat_colour, save_picture
from .openvino import needs_openvino, run


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIT_EDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "colours.onnx"
    path.write_bytes(colour_model())
    return path


def kept(model: Path) -> Path | None:
    """Give the folder that a start of the file uses."""
    with Classifier(model) as classifier:
        return start_session(model, name="the model", seal=classifier.seal).kept


def test_the_file_stays_as_it_is(model: Path, cache: Path) -> None:
    """It is sealed, and other devices get copies of it."""
    before = model.read_bytes(), model.stat()
    compiled = compile_model(model)
    assert (model.read_bytes(), model.stat()) == before
    assert [path.name for path in model.parent.iterdir() if path.name != "cache"] == ["colours.onnx"]
    assert compiled.folder.is_relative_to(cache)
    assert compiled.provider == "cpu"
    assert compiled.bytes == sum(path.stat().st_size for path in compiled.folder.iterdir()) > 0
    assert compiled.first_ms is not None
    assert compiled.start_ms > 0
    assert json.loads(json.dumps(compiled.to_dict()))["folder"] == str(compiled.folder)


def test_a_later_start_uses_it(model: Path) -> None:
    """By the file's content, whatever it is called, and from its bytes too."""
    with Classifier(model, threads=1) as plain:
        expected = plain.logits(plain.pixels(flat_colour("green"))[None])
        assert kept(model) is None
    compiled = compile_model(model)
    assert kept(model) == compiled.folder
    with Classifier(model, threads=1) as classifier:
        # What was rewritten when it was compiled is not rewritten again.
        np.testing.assert_array_equal(
            classifier.logits(classifier.pixels(flat_colour("green"))[None]), expected
        )
        assert classifier.placement["cpu"] > 0
        assert classifier.labels == plain.labels
        assert classifier.notes == ()
    moved = model.with_name("other.onnx")
    shutil.copy(model, moved)
    assert kept(moved) == compiled.folder
    assert compile_model(model).folder == compiled.folder


def test_the_cache_is_what_runs(model: Path) -> None:
    """Told from the file by another answer, which only a test puts there."""
    graph = compile_model(model).folder / "graph.onnx"
    # Four times the mean of a channel becomes minus that; checksum and record are made to fit.
    data = graph.read_bytes()
    gain, other = (np.float32(value).tobytes() for value in (4, -4))
    assert gain in data
    graph.write_bytes(data.replace(gain, other))
    assert Classifier(model)(flat_colour("green")).label == "green"
    again = compile_model(model).folder / "graph.onnx"
    changed = again.read_bytes().replace(gain, other)
    again.write_bytes(changed)
    record = again.parents[1] / "cpu.json"
    values = json.loads(record.read_text())
    values["files"]["graph.onnx"] = checksum(again)
    record.write_text(json.dumps(values))
    assert Classifier(model)(flat_colour("green")).label != "green"


@pytest.mark.parametrize("data", [b"", b"\xff" * 100])
def test_a_damaged_one_is_made_anew_at_the_next_start(data: bytes, model: Path) -> None:
    """Nobody has to look for it, and no answer is wrong meanwhile."""
    first = compile_model(model).folder
    (first / "graph.onnx").write_bytes(data)
    assert Classifier(model)(flat_colour("blue")).label == "blue"
    second = kept(model)
    assert second not in (None, first)
    assert not first.exists()


def test_one_that_is_whole_but_does_not_load_is_made_anew(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The checksum says that it is what was written, not that it was right."""
    first = compile_model(model).folder
    (first / "graph.onnx").write_bytes(b"\xff" * 100)
    record = first.parent / "cpu.json"
    values = json.loads(record.read_text())
    values["files"]["graph.onnx"] = checksum(first / "graph.onnx")
    record.write_text(json.dumps(values))
    with caplog.at_level(logging.INFO):
        assert Classifier(model)(flat_colour("blue")).label == "blue"
    assert "it is compiled anew" in caplog.text
    assert kept(model) not in (None, first)


def test_another_onnx_runtime_or_processor_compiles_anew(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph that was rewritten for AVX-512 does not run without it."""
    first = compile_model(model).folder
    monkeypatch.setattr("vit_edge.runtime.shelf.processor", lambda: {"name": "another"})
    second = kept(model)
    assert second not in (None, first)
    assert kept(model) == second
    assert not first.exists()


def test_another_file_is_not_compiled_unasked(model: Path, cache: Path) -> None:
    """A device's disk is small, and a new file of the same name is another file."""
    compile_model(model)
    model.write_bytes(colour_model(gain=5.0))  # type: ignore[arg-type]
    assert kept(model) is None


def test_forgetting_gives_the_room_back(model: Path, cache: Path) -> None:
    """And the file starts as it did before."""
    compile_model(model)
    assert forget_model(model)
    assert not forget_model(model)
    assert kept(model) is None
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_a_cache_that_cannot_be_written_is_said(
    model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiling was asked for; a start alone goes on without a word."""
    cache.touch()
    sentence = (
        f"nothing was kept, since {cache} cannot be written to; set VIT_EDGE_CACHE to a folder that can be"
    )
    with pytest.raises(VitEdgeError, match=sentence):
        compile_model(model)
    assert Classifier(model)(flat_colour("blue")).label == "blue"
    monkeypatch.setattr("vit_edge.runtime.compile.cache_folder", lambda: None)
    monkeypatch.setattr("vit_edge.runtime.cache.cache_folder", lambda: None)
    with pytest.raises(VitEdgeError, match="this user has no home folder for a cache; set VIT_EDGE_CACHE"):
        compile_model(model)


def test_a_cache_that_may_only_be_read_is_used(model: Path) -> None:
    """An image of a device's system is compiled once, and mounted read-only."""
    folder = compile_model(model).folder
    for path in (folder, folder.parent):
        path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        assert kept(model) == folder
        assert Classifier(model)(flat_colour("blue")).label == "blue"
    finally:
        for path in (folder.parent, folder):
            path.chmod(stat.S_IRWXU)


def test_what_cannot_be_compiled_is_refused(model: Path) -> None:
    """With the sentences that a start has."""
    with pytest.raises(ModelError, match=r"there is no file absent\.onnx"):
        compile_model("absent.onnx")
    with pytest.raises(ModelError, match=r"cannot be read \(File name too long\); check the path"):
        compile_model("a" * 5000)
    with pytest.raises(ProviderError, match="there is no provider 'gpu'"):
        compile_model(model, provider="gpu")
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelError, match="was changed or damaged"):
        compile_model(model)


ON_OPENVINO = """
from contextlib import contextmanager
import vit_edge.runtime.session as session

told = []

@contextmanager
def compiling(title):
    told.append(title)
    yield

# The wheel's own CPU cannot read back what it wrote, so that by default nothing is kept: here it is all the same.
session.keeps = lambda provider, options: True
with Classifier(sys.argv[1], "openvino", 1, compiling=compiling) as classifier:
    tell(told=told, label=classifier(sys.argv[2]).label)
"""


@needs_openvino
def test_what_openvino_compiles_is_kept_and_made_anew_when_it_is_damaged(model: Path, cache: Path) -> None:
    """Its real files: written by it into a folder under the file's hash, checked before each use."""
    picture = save_picture(cache.parent / "green.png", flat_colour("green"))
    (first,), _ = run(ON_OPENVINO, model, picture)
    assert first == {"told": [f"compiling {model} for openvino"], "label": "green"}
    (blob,) = cache.rglob("*.blob")
    blob.chmod(0o600)
    blob.write_bytes(blob.read_bytes()[: blob.stat().st_size // 2])
    (second,), _ = run(ON_OPENVINO, model, picture)
    assert second == first
    assert not blob.parent.exists()
    (blob,) = cache.rglob("*.blob")
    assert blob.stat().st_size > 0
    # Whole, it is used: nothing is said to be compiled.
    (third,), _ = run(ON_OPENVINO, model, picture)
    assert third == {"told": [], "label": "green"}


@needs_openvino
def test_a_provider_that_keeps_nothing_says_so(model: Path) -> None:
    """Who asks for a faster start must not think that it was made."""
    script = """
try:
    compile_model(sys.argv[1], provider="openvino")
except VitEdgeError as error:
    tell(text=str(error))
"""
    (told,), _ = run(script, model)
    assert told["text"] == (
        "the provider openvino keeps nothing that it could read back at the next start; docs/providers.md says "
        "which ones do"
    )


@contextmanager
def _never(title: str) -> Iterator[None]:
    raise AssertionError(title)
    yield


def test_the_processors_graph_is_no_long_work(model: Path) -> None:
    """A display of progress that flashes up at each start helps nobody."""
    compile_model(model, compiling=_never)
    assert os.environ["VIT_EDGE_CACHE"]
    Classifier(model, compiling=_never)

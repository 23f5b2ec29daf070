"""What was compiled is used when it fits and is whole, and nothing else ever is."""

import json
import os
from pathlib import Path

import pytest

from vit_edge.runtime.shelf import Shelf, files_in, forget_compiled, in_use, shelf

SEAL = "ab" * 32


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIT_EDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def place(provider: str = "tensorrt", **options: str) -> Shelf:
    found = shelf(SEAL, provider, options)
    assert found is not None
    return found


def filled(where: Shelf, **files: bytes) -> Path:
    folder = where.new_folder()
    assert folder is not None
    for name, data in files.items():
        (folder / name).write_bytes(data)
    assert where.keep(folder)
    return folder


def test_what_is_kept_is_found_by_another_process_with_the_same_wishes(cache: Path) -> None:
    """The point of it: an engine takes minutes to build."""
    assert not in_use(SEAL, "tensorrt")
    assert place().found() is None
    folder = filled(place(), engine=b"1" * 3_000_000, timing=b"2")
    assert place().found() == folder
    assert in_use(SEAL, "tensorrt")
    assert not in_use(SEAL, "cpu")
    assert folder.is_relative_to(cache)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "engine").write_bytes(b"1" * 99),
        lambda folder: (folder / "engine").write_bytes(b"1" * 50 + b"3" + b"1" * 49),
        lambda folder: (folder / "engine").write_bytes(b""),
        lambda folder: (folder / "engine").unlink(),
        lambda folder: (folder.parent / "tensorrt.json").write_text("{"),
        lambda folder: (folder.parent / "tensorrt.json").write_text("[" * 100_000),
        lambda folder: (folder.parent / "tensorrt.json").write_text('{"folder": "..", "files": {}}'),
        lambda folder: (folder.parent / "tensorrt.json").write_text('{"folder": "tensorrt-/../.."}'),
        lambda folder: (folder.parent / "tensorrt.json").unlink(),
    ],
)
def test_what_is_damaged_is_not_used_and_can_be_made_anew(damage: object) -> None:
    """A power cut or a worn memory card leaves any of these."""
    folder = filled(place(), engine=b"1" * 100)
    damage(folder)  # type: ignore[operator]
    assert place().found() is None
    again = filled(place(), engine=b"2")
    assert place().found() == again


def test_other_options_versions_or_processors_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph that was rewritten for one processor can crash another."""
    folder = filled(place(fast="1"), engine=b"1")
    assert place(fast="2").found() is None
    assert place("coreml", fast="1").found() is None
    with monkeypatch.context() as patch:
        patch.setattr("vit_edge.runtime.shelf.processor", lambda: {"name": "another"})
        assert place(fast="1").found() is None
    with monkeypatch.context() as patch:
        patch.setattr("onnxruntime.__version__", "1.0")
        assert place(fast="1").found() is None
    assert place(fast="1").found() == folder


def test_what_is_kept_anew_takes_the_place_of_the_old(cache: Path) -> None:
    """Devices are small: versions must not pile up."""
    first = filled(place(fast="1"), engine=b"1")
    second = filled(place(fast="2"), engine=b"2")
    assert not first.exists()
    assert place(fast="2").found() == second


def test_a_folder_of_another_process_at_work_is_left_alone() -> None:
    """Two services start at once; only what was abandoned long ago goes."""
    working, abandoned = place().new_folder(), place().new_folder()
    assert working is not None
    assert abandoned is not None
    os.utime(abandoned, (0, 0))
    filled(place(), engine=b"1")
    assert working.exists()
    assert not abandoned.exists()
    (working / "engine").write_bytes(b"2")
    assert place().keep(working)
    assert place().found() == working


def test_what_lies_in_folders_is_kept_and_checked() -> None:
    """Core ML compiles a graph into a folder with folders in it, and at the top there is no file."""
    folder = place("coreml").new_folder()
    assert folder is not None
    weights = folder / "1.mlmodelc" / "weights" / "weight.bin"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"1" * 100)
    (folder / "1.mlmodelc" / "model.mil").write_bytes(b"2")
    assert place("coreml").keep(folder)
    assert place("coreml").found() == folder
    record = json.loads((folder.parent / "coreml.json").read_text())
    assert list(record["files"]) == ["1.mlmodelc/model.mil", "1.mlmodelc/weights/weight.bin"]
    assert sum(path.stat().st_size for path in files_in(folder)) == 101
    weights.write_bytes(b"1" * 99)
    assert place("coreml").found() is None


def test_nothing_is_kept_of_nothing() -> None:
    """A provider that writes no file, since an option says so, leaves no trace."""
    folder = place().new_folder()
    assert folder is not None
    assert not place().keep(folder)
    assert not folder.exists()
    assert not in_use(SEAL, "tensorrt")


def test_a_cache_that_cannot_be_written_is_none(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read-only system still runs the file; it only starts slower."""
    cache.parent.joinpath("file").touch()
    monkeypatch.setenv("VIT_EDGE_CACHE", str(cache.parent / "file"))
    assert place().new_folder() is None
    assert place().found() is None


def test_a_record_says_what_it_is_tied_to() -> None:
    """For whoever looks why a start took long."""
    folder = filled(place(fast="1"), engine=b"123")
    record = json.loads((folder.parent / "tensorrt.json").read_text())
    assert record["folder"] == folder.name
    assert record["files"] == {"engine": "3:884863d2"}
    assert record["fits"].keys() == {"format", "onnxruntime", "processor", "options"}


def test_all_that_was_compiled_of_a_file_can_be_removed() -> None:
    """And what was compiled of another stays."""
    filled(place(), engine=b"1")
    other = shelf("cd" * 32, "cpu", {})
    assert other is not None
    filled(other, graph=b"2")
    assert forget_compiled(SEAL)
    assert not forget_compiled(SEAL)
    assert not in_use(SEAL, "tensorrt")
    assert other.found() is not None


def test_forgetting_one_provider_leaves_the_others() -> None:
    """What does not load goes, and only that."""
    filled(place(), engine=b"1")
    kept = filled(place("cpu"), graph=b"2")
    place().forget()
    assert place().found() is None
    assert place("cpu").found() == kept
    place()._replace(provider="qnn").forget()

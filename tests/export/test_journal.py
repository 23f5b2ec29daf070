"""Measurements that outlive the process."""

from pathlib import Path

import pytest

from vit_edge.export import journal
from vit_edge.export.journal import Journal, journal_of
from vit_edge.runtime.cache import CACHE_VARIABLE


def test_what_was_measured_is_known_to_the_next_process(tmp_path: Path) -> None:
    """A search that was cut off goes on where it was."""
    path = tmp_path / "deep" / "search.jsonl"
    first = Journal(path)
    assert first.get("a") is None
    first.put("a", 0.25)
    first.put("b", 1e-9)
    again = Journal(path)
    assert (again.get("a"), again.get("b"), again.get("c")) == (0.25, 1e-9, None)


@pytest.mark.parametrize("cut", range(1, 12))
def test_half_a_line_costs_that_measurement_alone(tmp_path: Path, cut: int) -> None:
    """A kill does not wait for the end of a line."""
    path = tmp_path / "search.jsonl"
    first = Journal(path)
    first.put("a", 0.25)
    first.put("b", 0.5)
    path.write_bytes(path.read_bytes()[:-cut])
    again = Journal(path)
    assert again.get("a") == 0.25
    assert again.get("b") is None
    again.put("c", 0.75)
    assert (Journal(path).get("a"), Journal(path).get("c")) == (0.25, 0.75)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"[1, 2]\n{}\n3\nnull", b'{"key": "a", "value": "x"}'])
def test_a_damaged_journal_is_an_empty_one(tmp_path: Path, content: bytes) -> None:
    """It saves time, and nothing depends on it."""
    path = tmp_path / "search.jsonl"
    path.write_bytes(content)
    assert Journal(path).get("a") is None


def test_a_journal_that_cannot_be_written_still_remembers(tmp_path: Path) -> None:
    """A read-only home stops no export."""
    (tmp_path / "file").write_text("in the way")
    journal = Journal(tmp_path / "file" / "search.jsonl")
    journal.put("a", 0.25)
    assert journal.get("a") == 0.25


def test_another_graph_has_another_journal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Measurements of one network are nonsense for the next; and parts must not run into each other."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    paths = {journal_of(*parts).path for parts in ((b"a", b"b"), (b"ab",), (b"a", b"c"), (b"a", b"b", b""))}
    assert len(paths) == 4
    assert all(path is not None and path.is_relative_to(tmp_path) for path in paths)


def test_a_user_without_a_home_measures_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's user may have none."""
    monkeypatch.setattr(journal, "cache_folder", lambda: None)
    nowhere = journal_of(b"a")
    nowhere.put("a", 0.25)
    assert nowhere.path is None
    assert nowhere.get("a") == 0.25

"""Where this device keeps what it can compute again."""

import sys
from pathlib import Path

import pytest

from vit_edge.runtime.cache import CACHE_VARIABLE, cache_folder


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (CACHE_VARIABLE, "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(variable, raising=False)


def test_the_cache_is_where_the_system_keeps_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody looks for another hidden folder in their home."""
    assert cache_folder() == Path.home() / ".cache" / "vit-edge"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "vit-edge"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == Path.home() / "Library" / "Caches" / "vit-edge"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    assert cache_folder() == tmp_path / "vit-edge" / "Cache"


def test_a_variable_names_another_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A service may write to one folder alone."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    assert cache_folder() == tmp_path


def test_a_relative_variable_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """So says the XDG specification; a cache in whatever folder one stands in would be lost."""
    monkeypatch.setenv("XDG_CACHE_HOME", "caches")
    assert cache_folder() == Path.home() / ".cache" / "vit-edge"


def test_a_user_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container the user's number may be in no list; a folder named ~ helps nobody."""
    monkeypatch.delenv("HOME")
    # The list of users is the outer edge: a process cannot become a user that is in none.
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    assert cache_folder() is None

"""Runs ``vit-edge``: as users do, in a process of its own, or quicker, in this one."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import vit_edge
from vit_edge.cli import main

# Colours and a terminal's width are not to decide what a test sees.
_PLAIN = {"NO_COLOR": "1", "COLUMNS": "100"}


def environment(*first: Path, **changed: str) -> dict[str, str]:
    """Give an environment in which ``python -m vit_edge`` runs what is tested, with folders before all others."""
    folders = (*map(str, first), str(Path(vit_edge.__file__).parents[1]), os.environ.get("PYTHONPATH", ""))
    return os.environ | _PLAIN | {"PYTHONPATH": os.pathsep.join(filter(None, folders))} | changed


def command(*arguments: object) -> list[str]:
    """Give the command line of a call."""
    return [sys.executable, "-m", "vit_edge", *map(str, arguments)]


def call(
    *arguments: object,
    stdin: bytes = b"",
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float = 300,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    done = subprocess.run(
        command(*arguments),
        input=stdin,
        capture_output=True,
        cwd=cwd,
        env=environment() if env is None else env,
        timeout=timeout_s,
        check=False,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def refused(*arguments: object, status: int = 1, **options: Any) -> str:
    """Run what has to fail with one sentence, and give it."""
    done = call(*arguments, **options)
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


class Entry:
    """Calls one command through the program's entry, and gives the exit status, stdout and stderr."""

    def __init__(
        self, command: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        self._command, self._monkeypatch, self._capfd = command, monkeypatch, capfd

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        self._monkeypatch.setattr(sys, "argv", ["vit-edge", self._command, *map(str, arguments)])
        self._capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        captured = self._capfd.readouterr()
        assert "Traceback" not in captured.err
        return int(ended.value.code or 0), captured.out, captured.err


def absent(folder: Path, *modules: str) -> Path:
    """Make a folder that, put first, hides modules as if they were not installed."""
    for module in modules:
        text = f"raise ModuleNotFoundError(\"No module named '{module}'\", name={module!r})\n"
        (folder / f"{module}.py").write_text(text)
    return folder

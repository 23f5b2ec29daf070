"""Finds what the documentation shows, and runs it as it stands there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import vit_edge

from .cli.command import environment

ROOT = Path(vit_edge.__file__).parents[1]
DOCS = ROOT / "docs"


def needs(page: Path) -> pytest.MarkDecorator:
    """Mark a test that needs a page."""
    return pytest.mark.skipif(not page.exists(), reason=f"the installed package has no {page.name} beside it")


def blocks(page: Path, language: str) -> list[str]:
    """Give a page's blocks of code in a language."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def run_commands(
    lines: str, folder: Path, *more: str, timeout_s: float = 300, **changed: str
) -> subprocess.CompletedProcess[str]:
    """Run lines for a shell one after the other; all have to succeed.

    Args:
        lines: In them ``vit-edge`` is what is tested.
        folder: Where a reader would type them.
        more: What every call of ``vit-edge`` is given as well.
        timeout_s: How long they may take, all together.
        changed: Variables of the environment.
    """
    program = shlex.join([sys.executable, "-m", "vit_edge"])
    script = f'function vit-edge {{ {program} "$@" {shlex.join(more)}; }}\n{lines}'
    return _succeeded(["bash", "-eu", "-c", script], folder, timeout_s, environment(**changed))


def run_python(code: str, folder: Path, *, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own; it has to succeed."""
    return _succeeded([sys.executable, "-c", code], folder, timeout_s, environment())


def _succeeded(
    command: list[str], folder: Path, timeout_s: float, env: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert done.returncode == 0, done.stderr
    return done

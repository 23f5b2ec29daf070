"""Examines environments: this one, changed ones, and new ones."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

import vit_edge

_EXAMINE = """
import json, sys
from pathlib import Path
from vit_edge.runtime.doctor.{module} import {part}
print(json.dumps([finding.to_dict() for finding in {part}(*map(Path, sys.argv[1:]))]))
"""

Findings = dict[str, dict[str, Any]]


def examined(
    *arguments: object,
    part: str = "examine.examine",
    first: Path | None = None,
    python: Path | str = sys.executable,
    env: Mapping[str, str] | None = None,
    without: tuple[str, ...] = (),
    before: Callable[[], None] | None = None,
) -> Findings:
    """Examine a device in a process of its own, and give the findings by their ids.

    Args:
        arguments: A model file, or nothing.
        part: The part of the examination; all of it takes a second or two.
        first: A folder whose modules hide all others of their name.
        python: The interpreter.
        env: Variables that are changed.
        without: Variables that are not set.
        before: What the process does to itself before it starts.
    """
    folders = [str(first)] if first else []
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*folders, _package_alone().name])}
    module, name = part.split(".")
    script = _EXAMINE.format(module=module, part=name)
    done = subprocess.run(
        [str(python), "-c", script, *map(str, arguments)],
        env={key: value for key, value in {**environment, **(env or {})}.items() if key not in without},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        preexec_fn=before,
    )
    assert done.returncode == 0, done.stderr
    # What the libraries write belongs to the trials, not to the examination.
    assert done.stderr == ""
    findings = json.loads(done.stdout)
    for finding in findings:
        assert finding["severity"] in ("ok", "note", "problem"), finding
        # A finding without a cure leaves its reader alone; a cure of several sentences is a lecture.
        assert finding["severity"] == "ok" or cured(finding["cure"]), finding
        assert ". " not in finding["cure"], finding
        assert "\n" not in finding["found"] + finding["cure"], finding
    return {finding["id"]: finding for finding in findings}


@cache
def _package_alone() -> TemporaryDirectory[str]:
    """Make a folder that holds the package and nothing else, as what is installed beside it would be found with it."""
    folder = TemporaryDirectory()
    (Path(folder.name) / "vit_edge").symlink_to(Path(vit_edge.__file__).parent, target_is_directory=True)
    return folder


def cured(cure: str) -> bool:
    """Tell whether a cure says something: an end alone does not."""
    return cure.endswith(".") and len(cure.split()) > 2


def module(folder: Path, name: str, text: str) -> Path:
    """Put a package that runs some text when it is imported into a folder, and give the folder."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(text)
    return folder


def install(folder: Path, name: str, version: str, files: Mapping[str, str], *, requires: str = "") -> None:
    """Lay out a wheel as pip does: its files over what is there, and a record of their sizes."""
    for file, text in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text)
    about = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    about.mkdir()
    wanted = f"Requires-Dist: {requires}\n" if requires else ""
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{wanted}")
    rows = [f"{file},sha256=,{len(text)}" for file, text in files.items()]
    (about / "RECORD").write_text("\n".join([*rows, f"{about.name}/RECORD,,", ""]))


def environment(folder: Path, *wheels: str) -> Path:
    """Make an environment with real wheels, installed by pip one after the other, and give its interpreter."""
    if wheels and find_spec("pip") is None:
        pytest.skip("this environment has no pip")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=120)
    python = folder / "bin" / "python"
    for wheel in wheels:
        subprocess.run(
            [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", wheel],
            check=True,
            timeout=600,
            capture_output=True,
        )
    return python

"""Tries something in a process of its own, which may crash, hang, or write all over the terminal."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# A wheel on a slow card takes seconds to load, and a provider as long again to start.
TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a trial.

    Attributes:
        values: What it gave; empty where it failed.
        failure: Why it failed, one sentence; empty where it did not.
        missing: The module that is not installed, where that is why.
        log: What it and the libraries that it loaded wrote.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    failure: str = ""
    missing: str | None = None
    log: str = ""


def attempt(trial: str, *arguments: str, timeout_s: float = TIMEOUT_S) -> Outcome:
    """Run a module of this package as a program and wait for what it gives through `give`.

    Args:
        trial: The module's name, ``try_opencv``.
        arguments: What it is called with.
        timeout_s: After how long it counts as hung.
    """
    # The child sees the modules that this process sees, and nothing of the folder that it happens to start in.
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", f"{__package__}.{trial}", *arguments],
            env=os.environ | {"PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        log = (error.stderr or b"").decode(errors="replace")
        return Outcome(failure=f"it did not end within {timeout_s:.0f} s", log=log)
    log = done.stderr.decode(errors="replace")
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        return Outcome(failure=_ending(done.returncode, log), log=log)
    return Outcome(**answer, log=log)


def give(trial: Callable[..., dict[str, Any]]) -> None:
    """Run a trial in the child and write what came of it, and nothing else, to where the parent reads."""
    # Libraries print to standard output too, some of them below Python.
    answers = os.dup(1)
    os.dup2(2, 1)
    try:
        answer: dict[str, Any] = {"values": trial(*sys.argv[1:])}
    except ModuleNotFoundError as error:
        answer = {"failure": str(error), "missing": error.name}
    except Exception as error:
        answer = {"failure": " ".join(str(error).split()) or type(error).__name__}
    with os.fdopen(answers, "w", encoding="utf-8") as file:
        json.dump(answer, file)
        file.flush()
    # Some providers crash as they are torn down, after all has gone well.
    sys.stderr.flush()
    os._exit(0)


def _ending(status: int, log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    said = f": {lines[-1]}" if lines else ""
    if status < 0:
        return f"its process was ended by {signal.Signals(-status).name}{said}"
    return f"its process ended with status {status}{said}"

"""Runs a pass in a process apart, so that a crash in native code takes only that process with it."""

import dataclasses
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import onnx

from ..errors import ExportError
from .passes import Pass


def run_isolated(step: Pass, model: onnx.ModelProto, *, timeout_s: float) -> onnx.ModelProto:
    """Call a pass in a child process.

    Args:
        step: A pass, whose fields are plain values.
        model: The model to pass on.
        timeout_s: How long the pass may take.

    Raises:
        ExportError: The pass failed, crashed, or took too long; the text says which.
    """
    with tempfile.TemporaryDirectory(prefix="vit-edge-") as folder:
        before, after = Path(folder, "before.onnx"), Path(folder, "after.onnx")
        before.write_bytes(model.SerializeToString())
        kind = type(step)
        task = json.dumps([kind.__module__, kind.__qualname__, _fields(step), str(before), str(after)])
        try:
            child = subprocess.run(
                [sys.executable, "-c", f"from {__name__} import work; work()"],
                input=task,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=timeout_s,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ExportError(f"{step} took longer than {timeout_s:.0f} s") from None
        if child.returncode < 0:
            raise ExportError(f"{step} crashed ({signal.Signals(-child.returncode).name})")
        if child.returncode:
            reason = child.stderr.strip().splitlines() or ["no reason given"]
            raise ExportError(f"{step} failed ({reason[-1]})")
        # Native code can end a process with status 0 as well.
        if not after.exists():
            raise ExportError(f"{step} ended without a result")
        return onnx.load(after)


def _fields(step: Any) -> dict[str, Any]:
    return {field.name: getattr(step, field.name) for field in dataclasses.fields(step)}


def work() -> None:
    """Do in the child what `run_isolated` asks for."""
    module, name, fields, before, after = json.loads(sys.stdin.read())
    # JSON has no tuples, and the fields of a pass that hold several values are tuples.
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    step: Pass = getattr(importlib.import_module(module), name)(**values)
    onnx.save(step(onnx.load(before)), after)

"""Runs the runtime in an interpreter whose ONNX Runtime has OpenVINO; VIT_EDGE_OPENVINO_PYTHON names it.

That wheel and the ordinary one overwrite each other, so that it lives in an environment of its own, with OpenCV beside
it.
"""

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

import vit_edge

PYTHON = os.environ.get("VIT_EDGE_OPENVINO_PYTHON")

needs_openvino = pytest.mark.skipif(
    PYTHON is None, reason="VIT_EDGE_OPENVINO_PYTHON names no python with onnxruntime-openvino"
)

_BEGIN = """
import json, sys
from vit_edge.runtime import *

def tell(**values):
    print(json.dumps(values))
"""


def run(script: str, *arguments: object, **environment: str) -> tuple[list[dict[str, Any]], str]:
    """Run a script that tells values; gives them, and what came on standard error.

    Args:
        script: It sees the runtime's public names and a function `tell`.
        arguments: Its ``sys.argv`` from 1 on.
        environment: Variables for it, beside this process's own.
    """
    done = run_elsewhere(PYTHON or "", _BEGIN + script, *arguments, **environment)
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def run_elsewhere(
    python: str, script: str, *arguments: object, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a script in an interpreter of another environment, with the package that is tested and nothing beside it."""
    with tempfile.TemporaryDirectory() as folder:
        # Installed, the package lies beside this environment's own ONNX Runtime, which would come along.
        Path(folder, "vit_edge").symlink_to(Path(vit_edge.__file__).parent, target_is_directory=True)
        done = subprocess.run(
            [python, "-c", script, *map(str, arguments)],
            env=os.environ | {"PYTHONPATH": folder} | environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    return done

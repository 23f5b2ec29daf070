"""What the page on training tells people to type works as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import vit_edge

from ..cli.command import environment
from .pictures import paint

PAGE = Path(vit_edge.__file__).parents[1] / "docs" / "training.md"


@pytest.mark.slow
@pytest.mark.skipif(not PAGE.exists(), reason="the installed package has no documentation beside it")
def test_the_commands_run_one_after_the_other(tmp_path: Path) -> None:
    """A newcomer copies them."""
    paint(tmp_path / "photos", each=12)
    (block,) = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    script = 'function vit-edge { "$PYTHON" -m vit_edge "$@" --workers 0 -q; }\n' + block
    done = subprocess.run(
        ["bash", "-eu", "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(PYTHON=sys.executable),
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for run in ("run", "tuned", "probe", "student", "int8"):
        assert (tmp_path / run / "best.safetensors").exists()

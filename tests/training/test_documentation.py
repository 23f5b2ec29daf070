"""What the page on training tells people to type works as it stands there."""

from pathlib import Path

import pytest

from ..documentation import DOCS, blocks, needs, run_commands
from .pictures import paint

PAGE = DOCS / "training.md"


@pytest.mark.slow
@needs(PAGE)
def test_the_commands_run_one_after_the_other(tmp_path: Path) -> None:
    """A newcomer copies them."""
    paint(tmp_path / "photos", each=12)
    (block,) = blocks(PAGE, "sh")
    run_commands(block, tmp_path, "--workers", "0", "-q", timeout_s=400)
    for run in ("run", "tuned", "probe", "student", "int8"):
        assert (tmp_path / run / "best.safetensors").exists()

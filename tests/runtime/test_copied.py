"""The folder works by itself, copied into another application."""

import shutil
import subprocess
import sys
from pathlib import Path

import vit_edge.runtime

from .onnx_writer import colour_model, flat_colour, save_picture

# With -E and the blocker neither this repository nor an installed vit-edge can help.
APPLICATION = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        assert name.partition(".")[0] not in ("vit_edge", "runtime", "torch"), f"the copy imports {name}"

sys.meta_path.insert(0, Blocker())
from app.vision import Classifier, ImageError

with Classifier("colours.onnx") as classifier:
    print(classifier("blue.png").label)
    try:
        classifier("absent.png")
    except ImageError as error:
        print(error)
"""


def test_a_copy_under_another_name_classifies(tmp_path: Path) -> None:
    """An application that cannot install packages, such as one built for a device, just takes the folder."""
    folder = Path(vit_edge.runtime.__file__).parent
    shutil.copytree(folder, tmp_path / "app" / "vision", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "app" / "__init__.py").touch()
    (tmp_path / "main.py").write_text(APPLICATION)
    (tmp_path / "colours.onnx").write_bytes(colour_model())
    save_picture(tmp_path / "blue.png", flat_colour("blue"))
    done = subprocess.run(
        [sys.executable, "-E", "main.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["blue", "absent.png does not exist; check the path"]

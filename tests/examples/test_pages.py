"""What the pages on scores and on embedding tell people to type works as it stands there."""

import re
import shutil
from pathlib import Path

import cv2
import pytest

from ..documentation import DOCS, blocks, run_commands, run_python
from ..runtime.onnx_writer import colour_model, flat_colour, save_picture


def test_the_python_on_embedding_runs(tmp_path: Path) -> None:
    """It is what developers paste first."""
    (tmp_path / "model.onnx").write_bytes(colour_model())
    save_picture(tmp_path / "photo.jpg", flat_colour("green"))
    video = cv2.VideoWriter(str(tmp_path / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 25, (160, 96))
    for _ in range(3):
        video.write(flat_colour("blue", height=96, width=160)[..., ::-1].copy())
    video.release()
    first, second, third = blocks(DOCS / "embedding.md", "python")
    outputs = [run_python(block, tmp_path).stdout.splitlines() for block in (first, second, third)]
    assert outputs[0][0].startswith("green ")
    assert len(outputs[0]) == 4
    assert ['"frame": 0' in outputs[1][0], len(outputs[1])] == [True, 3]
    assert all('"label": "blue"' in line for line in outputs[1])
    assert [line.split()[:2] for line in outputs[2]] == [[str(frame), "blue"] for frame in range(3)]


def test_the_examples_that_are_named_are_there() -> None:
    """A dead link is the end of the way."""
    for page in ("embedding.md", "scores.md"):
        links = re.findall(r"\]\(([^)#]+)\)", (DOCS / page).read_text())
        assert links or page == "scores.md"
        assert [link for link in links if not (DOCS / link).exists()] == []


@pytest.mark.slow
def test_the_commands_on_scores_run(digits_checkpoint: Path, digits_images: Path, tmp_path: Path) -> None:
    """One after the other, as they stand."""
    shutil.copy(digits_checkpoint, tmp_path / "my_vit.safetensors")
    shutil.copytree(digits_images / "calibrate", tmp_path / "labelled_photos")
    shutil.copytree(digits_images / "test", tmp_path / "other_labelled_photos")
    shutil.copytree(digits_images / "test" / "one", tmp_path / "folder")
    (script,) = blocks(DOCS / "scores.md", "sh")
    done = run_commands(script, tmp_path, OMP_NUM_THREADS="1")
    assert "expected calibration error" in done.stdout
    assert "unknown below" in done.stdout

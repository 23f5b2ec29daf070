"""What the README tells people to type works as it stands there."""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from vit_edge.models import ViT, ViTConfig
from vit_edge.runtime import Classifier

from .documentation import ROOT, blocks, needs, run_commands

README = ROOT / "README.md"

needs_readme = needs(README)


@pytest.fixture(scope="module")
def desk(
    digits_checkpoint: Path, digits_images: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """Lay out the files that the README speaks of."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copy(digits_checkpoint, folder / "my_vit.safetensors")
    shutil.copytree(digits_images / "calibrate", folder / "photos")
    shutil.copytree(digits_images / "test", folder / "labelled_photos")
    shutil.copytree(digits_images / "test" / "one", folder / "folder")
    shutil.copytree(digits_images / "test" / "two", folder / "more")
    shutil.copy(next((digits_images / "test" / "three").iterdir()), folder / "photo.jpg")
    film = cv2.VideoWriter(str(folder / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (64, 48))
    for shade in range(5):
        film.write(np.full((48, 64, 3), 40 * shade, np.uint8))
    film.release()
    with chdir(folder):
        yield folder


@needs_readme
@pytest.mark.slow
def test_the_commands_run_one_after_the_other(desk: Path) -> None:
    """A newcomer copies them, and the first error is the last thing that they see of us."""
    lines = [
        line
        for block in blocks(README, "sh")
        for line in block.splitlines()
        if not line.startswith(("make ", "pip "))
    ]
    script = "\n".join(lines)
    assert script.count("vit-edge ") >= 5
    run_commands(script, desk)
    answers = [json.loads(line) for line in (desk / "answers.jsonl").read_text().splitlines()]
    assert len(answers) == len(list((desk / "folder").iterdir()))
    assert [json.loads(line)["frame"] for line in (desk / "frames.jsonl").read_text().splitlines()] == [
        *range(5)
    ]


@needs_readme
@pytest.mark.slow
def test_the_python_runs(desk: Path, digits_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is what developers paste first."""
    shutil.copy(digits_model, desk / "model.onnx")
    torch.manual_seed(0)
    network = ViT(ViTConfig((224, 224), patch_size=32, width=32, depth=1, heads=1, mlp_width=32, classes=2))
    names = {"module": network.eval()}
    for block in blocks(README, "python"):
        exec(compile(block, str(README), "exec"), names)
    assert capsys.readouterr().out.startswith("three ")
    with Classifier("pets.onnx") as pets:
        assert [label.name for label in pets.labels.items] == ["cat", "dog"]


@needs_readme
def test_every_page_that_is_named_is_there() -> None:
    """A dead link is the end of the way."""
    links = re.findall(r"\]\(([^)#]+)\)", README.read_text())
    assert len(links) >= 5
    assert [link for link in links if not (ROOT / link).exists()] == []

"""``vit-edge demo``: the whole road from images to answers, for real."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer
from sklearn.datasets import load_digits

from vit_edge.cli.demo import NAMES, _call, _prepare
from vit_edge.data import labelled_images, list_images
from vit_edge.runtime.labels import Labels

from .command import call, environment


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo of a user")  # with spaces, as home folders have


@pytest.fixture(scope="module")
def done(folder: Path) -> subprocess.CompletedProcess[str]:
    """The demo, run once as a newcomer runs it."""
    return call("demo", cwd=folder, timeout_s=1800)


@pytest.mark.slow
def test_the_demo_ends_with_a_good_model(done: subprocess.CompletedProcess[str], folder: Path) -> None:
    """A newcomer judges everything by it: it has to end, and its model has to be right."""
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    check = call(
        *("check", "demo/digits.onnx", "--against", "demo/run/best.safetensors"),
        *("--data", "demo/digits/test", "--json"),
        cwd=folder,
    )
    result = json.loads(check.stdout)
    assert result["images"] == 300
    assert result["model_top1"] >= 0.97
    assert result["agreement"] >= 0.97


@pytest.mark.slow
def test_the_demo_shows_commands_that_can_be_pasted(
    done: subprocess.CompletedProcess[str], folder: Path
) -> None:
    """Newcomers learn by repeating what they saw, word by word."""
    shown = [line.removeprefix("$ ") for line in done.stdout.splitlines() if line.startswith("$ ")]
    assert [shlex.split(line)[:2] for line in shown] == [
        ["vit-edge", command] for command in ("train", "export", "check", "classify", "info")
    ]
    tried = done.stdout[done.stdout.index("Try next:") :].splitlines()[1]
    for line in (*shown[2:], tried):
        again = call(*shlex.split(line)[1:], cwd=folder)
        assert again.returncode == 0, again.stderr
    # The last of them classified every seven of the test images.
    answers = [json.loads(line) for line in again.stdout.splitlines()]
    assert len(answers) == len(list_images(folder / "demo" / "digits" / "test" / "seven"))


@pytest.mark.slow
def test_the_demo_shows_progress_on_stderr(done: subprocess.CompletedProcess[str]) -> None:
    """Two minutes of silence look like a hang."""
    assert "Training: " in done.stderr
    assert re.search(r"Training: \d+/\d+ steps, epoch \d+, loss ", done.stderr)
    assert "steps, epoch" not in done.stdout


@pytest.mark.slow
def test_the_images_are_scikit_learn_s_digits(done: subprocess.CompletedProcess[str], folder: Path) -> None:
    """Each of the 1,797 lies in one part only, under its own name, and can be recognised."""
    data = load_digits()
    seen = []
    counts = {}
    for part in ("train", "calibrate", "test"):
        samples = labelled_images(folder / "demo" / "digits" / part, Labels.of(NAMES))
        counts[part] = len(samples)
        for sample in samples:
            place = int(sample.path.stem.removeprefix("digit-"))
            seen.append(place)
            assert sample.target == data.target[place]
        image = cv2.imread(str(samples[0].path), cv2.IMREAD_UNCHANGED)
        assert image is not None
        small = cv2.resize(image, (8, 8), interpolation=cv2.INTER_AREA).astype(float) / 255 * 16
        place = int(samples[0].path.stem.removeprefix("digit-"))
        assert image.shape == (32, 32)
        assert np.corrcoef(small.ravel(), data.images[place].ravel())[0, 1] > 0.97
        # Every class is there in proportion.
        sizes = np.bincount([sample.target or 0 for sample in samples])
        assert sizes.max() - sizes.min() <= 0.1 * len(samples) / 10 + 2
    assert counts == {"train": 1297, "calibrate": 200, "test": 300}
    assert sorted(seen) == list(range(1797))


def test_a_step_that_fails_stops_the_demo_with_its_status(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Going on would bury the cause under errors that follow from it."""
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    for arguments, status in ((("info", tmp_path / "absent.onnx"), 1), (("info", "--nonsense"), 2)):
        with pytest.raises(typer.Exit) as stopped:
            _call(*arguments)
        assert stopped.value.exit_code == status
        shown = capfd.readouterr()
        assert shown.out.startswith(f"$ vit-edge info {arguments[1]}")
        assert "error: `vit-edge info` failed, so the demo stops here" in shown.err.splitlines()[-1]
        assert len(shown.err.splitlines()) > 1  # the step's own message comes first


def test_a_demo_may_be_repeated_and_keeps_what_is_not_its_own(tmp_path: Path) -> None:
    """Newcomers run it twice, and may have put something beside its files."""
    _prepare(tmp_path / "demo")
    for name in ("digits/train/one/digit.png", "run/best.safetensors", "digits.onnx", "mine.txt"):
        path = tmp_path / "demo" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    _prepare(tmp_path / "demo")
    assert [path.name for path in sorted((tmp_path / "demo").iterdir())[1:]] == ["mine.txt"]


def test_a_demo_that_cannot_start_makes_no_folder(tmp_path: Path) -> None:
    """An option that is wrong is told before anything is written."""
    refused = call("demo", "--epochs", "0", cwd=tmp_path)
    assert (refused.returncode, list(tmp_path.iterdir())) == (2, [])
    assert refused.stderr == "error: expected the number of epochs to be at least 1, got 0\n"
    (tmp_path / "file").touch()
    refused = call("demo", "-o", "file/demo", cwd=tmp_path)
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: cannot write to file/demo: ")


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    """The demo replaces only what a demo made."""
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "thesis.txt").write_text("years of work")
    refused = call("demo", cwd=tmp_path)
    assert refused.returncode == 1
    assert (
        refused.stderr == "error: demo exists and was not made by the demo; choose another folder with -o\n"
    )
    assert [path.name for path in (tmp_path / "demo").iterdir()] == ["thesis.txt"]

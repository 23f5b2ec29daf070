"""The command line as a whole: help, exit statuses, and no traceback for what a user can mend."""

import os
import subprocess
import tomllib
from pathlib import Path

import pytest

import vit_edge
from vit_edge import cli

from ..runtime.onnx_writer import colour_model, flat_colour, save_picture
from .command import absent, call, command, environment, refused

COMMANDS = ("demo", "train", "export", "check", "classify", "info", "models")

# All that the extras bring, beside numpy and typer.
EXTRAS = (
    "torch",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "onnxsim",
    "safetensors",
    "huggingface_hub",
    "cv2",
    "sklearn",
    "starlette",
    "uvicorn",
)


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_names_every_command_with_no_extra_installed(option: str, tmp_path: Path) -> None:
    """It is the first thing that people try, before they know what to install."""
    done = call(option, env=environment(absent(tmp_path, *EXTRAS)))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for name in COMMANDS:
        assert f" {name} " in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_no_extra_installed(name: str, tmp_path: Path) -> None:
    """Likewise; and each option says what it does."""
    done = call(name, "--help", env=environment(absent(tmp_path, *EXTRAS)))
    assert done.returncode == 0, done.stderr
    assert f"Usage: vit-edge {name}" in done.stdout.replace("python -m vit_edge", "vit-edge")


def test_the_version_is_the_packages() -> None:
    """Reports of errors begin with it."""
    done = call("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"vit-edge {vit_edge.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("clasify",), "clasify"),
        (("classify",), "Missing argument"),
        (("classify", "a.onnx"), "SOURCE"),
        (("classify", "a.onnx", "b.jpg", "--topp", "3"), "--topp"),
        (("classify", "a.onnx", "b.jpg", "--top", "0"), "--top"),
        (("classify", "a.onnx", "b.jpg", "--threads", "many"), "--threads"),
    ],
)
def test_a_wrong_use_exits_with_2_and_names_what_is_wrong(arguments: tuple[str, ...], named: str) -> None:
    """Scripts tell a wrong call from a failure by the status."""
    done = call(*arguments)
    assert done.returncode == 2
    assert named in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_no_arguments_show_the_help() -> None:
    """Better than a complaint."""
    done = call()
    assert "Usage:" in done.stdout + done.stderr
    assert all(name in done.stdout + done.stderr for name in COMMANDS)


@pytest.mark.parametrize(
    ("missing", "extra", "arguments"),
    [
        ("onnxruntime", "runtime", ("classify", "colours.onnx", "red.png")),
        ("cv2", "runtime", ("classify", "colours.onnx", "red.png")),
        ("onnxruntime", "runtime", ("info", "colours.onnx")),
    ],
)
def test_a_missing_extra_is_named(
    missing: str, extra: str, arguments: tuple[str, ...], tmp_path: Path
) -> None:
    """One sentence with the command that installs it, rather than an ImportError."""
    (tmp_path / "colours.onnx").write_bytes(colour_model())
    save_picture(tmp_path / "red.png", flat_colour("red"))
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    assert refused(*arguments, cwd=tmp_path, env=environment(absent(hidden, missing))) == (
        f"{missing} is not installed; install what this command needs with `pip install 'vit-edge[{extra}]'`"
    )


def test_the_extra_of_the_workshop_is_named_too(tmp_path: Path) -> None:
    """A device has no torch, and `vit-edge export` there says what it takes."""
    (tmp_path / "images").mkdir()
    hidden = absent(tmp_path, "torch", "safetensors")
    arguments = ("export", "weights.safetensors", "-o", "model.onnx", "--calibrate", "images")
    (tmp_path / "weights.safetensors").write_bytes(b"")
    sentence = refused(*arguments, cwd=tmp_path, env=environment(hidden))
    assert "`pip install 'vit-edge[export]'`" in sentence


def test_the_extras_that_sentences_name_exist() -> None:
    """Pip only warns about an unknown extra, and then installs nothing."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert set(cli._EXTRAS.values()) <= set(project["optional-dependencies"])


def test_a_fault_of_ours_still_shows_where(tmp_path: Path) -> None:
    """A module that no extra brings is a broken installation, which a friendly sentence would hide."""
    (tmp_path / "colours.onnx").write_bytes(colour_model())
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    done = call("info", tmp_path / "colours.onnx", env=environment(absent(hidden, "hashlib")))
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_opencv_without_a_desktops_libraries_is_explained(tmp_path: Path) -> None:
    """The commonest failure on a server: the wheel is there, and the system's libGL is not."""
    (tmp_path / "cv2.py").write_text(
        "raise ImportError('libGL.so.1: cannot open shared object file: No such file or directory', name='cv2')\n"
    )
    (tmp_path / "red.png").touch()
    sentence = refused("classify", "a.onnx", "red.png", cwd=tmp_path, env=environment(tmp_path))
    assert "libGL.so.1" in sentence
    assert "opencv-python-headless" in sentence


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    """`vit-edge models | head -1` closes the pipe; nothing is to be said about it."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as output:
        done = subprocess.run(
            command("models"),
            env=environment(),
            stdout=output,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == b""


def test_it_runs_as_an_installed_command_and_as_a_module() -> None:
    """Both names lead to the same program."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"vit-edge": "vit_edge.cli:main"}
    assert call("models").stdout == call("models", cwd=Path("/")).stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("camera", "rtsp://porter:secret@10.0.0.7/1", "model.onnx"),
        ("camera", "model.onnx", "0", "rtsp://porter:secret@10.0.0.7/1"),
        ("camera", "model.onnx", "--size", "rtsp:/porter:secret@10.0.0.7/1"),
        ("classify", "model.onnx", "rtsp://porter:secret@10.0.0.7/1"),
        ("rtsp://porter:secret@10.0.0.7/1",),
    ],
)
def test_an_address_in_the_wrong_place_is_not_repeated_with_its_credentials(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    """Arguments are easily swapped or left over, and the message is what one shows to others."""
    (tmp_path / "model.onnx").write_bytes(colour_model())
    done = call(*arguments, cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert "10.0.0.7" in done.stderr
    assert "secret" not in done.stderr
    assert "porter" not in done.stderr

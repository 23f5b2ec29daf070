"""``vit-edge compile`` and ``--provider-option``, as users call them."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ..runtime.onnx_writer import colour_model, flat_colour, save_picture
from ..runtime.openvino import needs_openvino, run
from .command import Entry, environment, refused


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model and a picture, and a cache of its own; the commands run in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VIT_EDGE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "colours.onnx").write_bytes(colour_model())
    save_picture(tmp_path / "green.png", flat_colour("green"))
    return tmp_path


@pytest.fixture
def compile_(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Entry:
    return Entry("compile", monkeypatch, capfd)


@pytest.fixture
def classify(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Entry:
    return Entry("classify", monkeypatch, capfd)


def test_a_file_is_compiled_used_and_forgotten(folder: Path, compile_: Entry, classify: Entry) -> None:
    """The whole life of it, with the file as it was."""
    before = (folder / "colours.onnx").read_bytes()
    status, out, err = compile_("colours.onnx")
    assert (status, err) == (0, "")
    first, second, third = out.splitlines()
    assert first.split() == ["compiled", "colours.onnx", "for", "cpu"]
    assert second.startswith(f"kept in      {folder / 'cache'}")
    assert third.split()[0] == "start"
    assert third.endswith("ms without it")
    assert classify("colours.onnx", "green.png", "--json")[0] == 0
    status, out, _ = compile_("colours.onnx", "--json")
    values = json.loads(out)
    assert values.keys() == {"file", "provider", "folder", "bytes", "first_ms", "start_ms"}
    assert Path(values["folder"], "graph.onnx").stat().st_size == values["bytes"]
    assert compile_("colours.onnx", "--forget") == (0, "", "removed what was compiled of colours.onnx\n")
    assert compile_("colours.onnx", "--forget") == (0, "", "nothing was compiled of colours.onnx\n")
    assert not Path(values["folder"]).exists()
    assert (folder / "colours.onnx").read_bytes() == before


def test_what_cannot_be_compiled_is_one_sentence(folder: Path) -> None:
    """As every command says it."""
    assert refused("compile", "absent.onnx", cwd=folder) == (
        "there is no file absent.onnx; make one with `vit-edge export`"
    )
    (folder / "cache").touch()
    sentence = refused("compile", "colours.onnx", cwd=folder, env=environment())
    assert sentence.startswith(
        f"nothing was kept, since {folder / 'cache'} cannot be written to; set VIT_EDGE_CACHE"
    )


@pytest.mark.parametrize(
    ("options", "status", "sentence"),
    [
        (
            ["precision"],
            2,
            "expected --provider-option KEY=VALUE, as in device_type=GPU, got 'precision'; write both",
        ),
        (["=x"], 2, "expected --provider-option KEY=VALUE, as in device_type=GPU, got '=x'; write both"),
        (["a=1", "a=2"], 2, "--provider-option a was given twice; leave one out"),
        (["a=1"], 1, "options belong to one provider, got a for auto; name the provider, or leave them out"),
    ],
)
def test_an_option_that_cannot_be_meant_is_refused(
    options: list[str], status: int, sentence: str, folder: Path, classify: Entry
) -> None:
    """Before anything is opened."""
    given = [part for option in options for part in ("--provider-option", option)]
    found, out, err = classify("colours.onnx", "green.png", *given)
    assert (found, out) == (status, "")
    assert err.startswith(f"error: {sentence}")


@needs_openvino
def test_an_option_reaches_the_provider_from_the_command_line(folder: Path) -> None:
    """What it makes of it is told in one sentence, and what it prints by itself is not."""
    pytest.importorskip("typer")
    site = Path(sys.modules["typer"].__file__ or "").parents[1]
    # That environment has no typer: it is taken from this one, behind its own packages.
    script = f"""
import sys
sys.path.append({str(site)!r})
from vit_edge.cli import main
sys.argv = ["vit-edge", "classify", "colours.onnx", "green.png", "--json", *sys.argv[1:]]
main()
"""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [os.environ["VIT_EDGE_OPENVINO_PYTHON"], "-c", script, *arguments],
            cwd=folder,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    fine = call("--provider", "openvino", "--provider-option", "device_type=CPU")
    assert (fine.returncode, fine.stderr) == (0, "")
    assert json.loads(fine.stdout)["label"] == "green"
    wrong = call("--provider", "openvino", "--provider-option", "device_type=GPU")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr == (
        "error: the provider openvino does not start (Device GPU is not available); check what it was given for "
        "device_type, or choose another provider\n"
    )


@needs_openvino
def test_a_recipe_of_another_provider_is_refused_with_its_operators(digits_model: Path, folder: Path) -> None:
    """A real INT8 file for the CPU: OpenVINO's provider takes its small nodes and leaves the work."""
    script = f"""
try:
    Classifier({str(digits_model)!r}, "openvino")
except ProviderError as error:
    tell(text=str(error))
classifier = Classifier({str(digits_model)!r})
tell(provider=classifier.provider, placed=list(classifier.placement), notes=classifier.notes)
"""
    (refusal, fine), errors = run(script)
    assert errors == ""
    assert refusal["text"].startswith(
        f"the provider openvino does not support what {digits_model} is made of: "
    )
    assert "QAttention" in refusal["text"]
    assert fine == {"provider": "cpu", "placed": ["cpu"], "notes": []}


def test_long_work_is_shown_while_python_stands_still(tmp_path: Path) -> None:
    """ONNX Runtime stops all of Python's threads while it compiles, as this sleep does."""
    script = """
import ctypes
from vit_edge.cli.progress import working
# PyDLL keeps Python's lock, and with it every other thread, for as long as the call takes.
sleep = ctypes.PyDLL(None).usleep
with working("compiling x for tensorrt", silent_s=0.2):
    sleep(900_000)
with working("compiling y", silent_s=5.0):
    sleep(10_000)
with working("compiling z", silent_s=0.0, quiet=True):
    sleep(10_000)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == ""
    first, second = done.stderr.splitlines()
    assert first == "compiling x for tensorrt: 0 s"
    assert second.startswith("compiling x for tensorrt: done in ")


@pytest.mark.skipif(os.name != "posix", reason="needs processes that can be killed")
def test_the_clock_ends_with_the_program_that_started_it() -> None:
    """A killed program must not leave one behind that writes into the terminal for ever."""
    script = """
import os, signal
from vit_edge.cli.progress import working
with working("compiling", silent_s=0.1):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    begun = time.monotonic()
    # Standard error is inherited: it ends when the last process that holds it does.
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, timeout=60, check=False
    )
    assert done.returncode == -9
    assert time.monotonic() - begun < 30

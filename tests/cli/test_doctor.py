"""``vit-edge doctor`` tells people and programs what works on a device."""

import contextlib
import json
import re
import subprocess
from importlib.metadata import PackageNotFoundError, distribution, files, requires
from pathlib import Path

import pytest

import vit_edge

from ..runtime.doctor.machines import environment as new_environment
from ..runtime.onnx_writer import colour_model
from .command import call, environment, refused


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the interpreter of an environment with what `pip install vit-edge` alone brings: NumPy and typer."""
    folder = tmp_path_factory.mktemp("bare")
    site = folder / "site"
    site.mkdir()
    for name in brought("numpy", "typer"):
        for top in {file.parts[0] for file in files(name) or () if ".." not in file.parts}:
            if top != "__pycache__":
                (site / top).symlink_to(Path(str(distribution(name).locate_file(top))))
    python = new_environment(folder / "venv")
    (next((folder / "venv" / "lib").glob("python3.*")) / "site-packages" / "site.pth").write_text(f"{site}\n")
    return python


def brought(*names: str) -> set[str]:
    """Give wheels and all that they require, without what is only for other systems or asked for by an extra."""
    found: set[str] = set()
    open_names = list(names)
    while open_names:
        name = open_names.pop()
        if name not in found:
            with contextlib.suppress(PackageNotFoundError):
                wanted = [text for text in requires(name) or () if "extra ==" not in text]
                found.add(name)
                open_names += [re.split(r"[^\w.-]", text)[0] for text in wanted]
    return found


def doctor_in(python: Path, *arguments: str, **changed: str) -> subprocess.CompletedProcess[str]:
    """Run the command in another environment; Python's own variables of this one would bring its packages along."""
    env = environment(**changed) | {"PYTHONPATH": str(Path(vit_edge.__file__).parents[1])}
    line = [str(python), "-m", "vit_edge", "doctor", *arguments]
    return subprocess.run(line, capture_output=True, encoding="utf-8", env=env, timeout=120, check=False)


def test_a_page_of_groups_ends_with_a_count() -> None:
    """Problems are marked, each note and problem has its cure below it, and nothing else is printed."""
    done = call("doctor", env=environment(DISPLAY="", WAYLAND_DISPLAY=""))
    assert done.returncode == 0, done.stdout
    assert done.stderr == ""
    *lines, empty, last = done.stdout.splitlines()
    assert empty == ""
    titles = [line[:14].strip() for line in lines if line[:14].strip()]
    assert titles == ["System", "Processor", "ONNX Runtime", "OpenCV", "Screen", "Cameras"]
    signs = [line[14] for line in lines]
    notes = signs.count("!")
    assert signs.count("→") == notes
    assert last == f"no problems, {notes} note{'s' if notes > 1 else ''}, {signs.count('✓')} in order"
    assert max(map(len, lines)) <= 100


def test_json_holds_all_findings() -> None:
    """For a fleet's dashboard, or the report of a bug."""
    done = call("doctor", "--json")
    assert done.returncode == 0
    values = json.loads(done.stdout)
    assert set(values) == {"counts", "findings"}
    assert values["counts"]["problem"] == 0
    assert sum(values["counts"].values()) == len(values["findings"])
    for finding in values["findings"]:
        assert set(finding) == {"id", "severity", "found", "cure", "details"}


def test_a_problem_is_marked_and_sets_the_status(bare: Path) -> None:
    """The bare install: a script that sets a device up stops there."""
    done = doctor_in(bare)
    assert done.returncode == 1
    assert done.stderr == ""
    assert "✗ ONNX Runtime is not installed: no model can run\n" in done.stdout
    assert "✗ OpenCV is not installed: no image can be read\n" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("2 problems, ")
    done = doctor_in(bare, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["counts"]["problem"] == 2


def test_with_a_model_the_operators_are_listed_by_their_time(tmp_path: Path) -> None:
    """The slowest first, with nodes, time and share."""
    path = tmp_path / "colours.onnx"
    path.write_bytes(colour_model())
    done = call("doctor", path)
    assert done.returncode == 0, done.stdout
    page = done.stdout[done.stdout.index("\nModel") :]
    assert f"{path}, 0.00 MB, sealed and sound: 3 classes" in " ".join(page.split())
    assert "✓ one inference took " in page
    rows = [line.split() for line in page.splitlines() if line.endswith(" %  CPU")]
    assert {"GlobalAveragePool", "MatMul"} <= {row[0] for row in rows}
    shares = [int(row[5]) for row in rows]
    assert shares == sorted(shares, reverse=True)


def test_a_damaged_model_sets_the_status(tmp_path: Path) -> None:
    """The device is in order, and the file is not."""
    path = tmp_path / "colours.onnx"
    path.write_bytes(colour_model()[:-1] + b"!")
    done = call("doctor", path)
    assert done.returncode == 1
    assert f"✗ {path} was changed or damaged since its export" in " ".join(done.stdout.split())
    assert "→ Copy it again or export it anew.\n" in done.stdout


def test_a_command_in_a_cure_stands_on_one_line(bare: Path) -> None:
    """Else it cannot be copied from the terminal."""
    lines = doctor_in(bare, COLUMNS="60", DISPLAY="", WAYLAND_DISPLAY="").stdout.splitlines()
    for command in ("`pip install 'vit-edge[runtime]'`", "`export DISPLAY=:0`"):
        assert any(command in line for line in lines), command
    assert max(map(len, lines)) <= 60


def test_a_terminal_without_these_letters_gets_plain_ones() -> None:
    """A serial console, or a log in ASCII."""
    done = call("doctor", env=environment(PYTHONIOENCODING="ascii"))
    assert done.stdout.isascii()
    assert "\nONNX Runtime  + ONNX Runtime " in done.stdout
    assert "\\u" not in done.stdout


def test_a_provider_without_a_model_is_a_wrong_use() -> None:
    """It would be passed over silently."""
    assert refused("doctor", "--provider", "cuda", status=2).startswith(
        "--provider says where to profile a model;"
    )
    assert not json.loads(call("doctor", "--json").stdout)["findings"][0]["id"].startswith("model")


def test_a_provider_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    """With the sentence that `vit-edge classify` would end with."""
    path = tmp_path / "colours.onnx"
    path.write_bytes(colour_model())
    done = call("doctor", path, "--provider", "qnn", "--json")
    assert done.returncode == 1
    finding = json.loads(done.stdout)["findings"][-1]
    assert finding["id"] == "model.inference"
    assert "has no provider qnn" in finding["found"]


def test_a_providers_option_reaches_it(tmp_path: Path) -> None:
    """A GPU or a second device is profiled as an application will use it."""
    path = tmp_path / "colours.onnx"
    path.write_bytes(colour_model())
    done = call("doctor", path, "--provider", "cpu", "--provider-option", "device_id=1", "--json")
    assert done.returncode == 1
    finding = json.loads(done.stdout)["findings"][-1]
    assert finding["id"] == "model.inference"
    assert finding["found"] == "the provider cpu takes no options, got device_id"


def test_a_providers_option_for_no_provider_is_a_wrong_use(tmp_path: Path) -> None:
    """It would be passed over silently."""
    option = ("--provider-option", "device_id=1")
    assert "name the MODEL too" in refused("doctor", *option, status=2)
    (tmp_path / "colours.onnx").write_bytes(colour_model())
    assert "name it with --provider" in refused("doctor", tmp_path / "colours.onnx", *option, status=2)
    bad = ("--provider", "cuda", "--provider-option", "device_id")
    assert "expected --provider-option KEY=VALUE" in refused(
        "doctor", tmp_path / "colours.onnx", *bad, status=2
    )

"""What the pages on devices promise: sizes, wheels, and examples that run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from vit_edge.cli.doctor import _TITLES

from .cli.command import environment
from .runtime.onnx_writer import colour_model

ROOT = Path(__file__).parents[1]

DOCS = ROOT / "docs"

LIMIT_MB = 350


def test_the_examples_of_the_page_on_the_doctor_run(tmp_path: Path) -> None:
    """Its Python, in a folder with a model."""
    (example,) = re.findall(
        r"```python\n(.*?)```", (DOCS / "doctor.md").read_text(encoding="utf-8"), re.DOTALL
    )
    (tmp_path / "model.onnx").write_bytes(colour_model())
    done = subprocess.run(
        [sys.executable, "-c", example],
        cwd=tmp_path,
        env=environment(DISPLAY="", WAYLAND_DISPLAY=""),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("screen.window\n  no screen: ")


def test_the_page_on_the_doctor_lists_every_finding() -> None:
    """Programs read ids, and need to know which there are."""
    page = (DOCS / "doctor.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"`([a-z]+\.[A-Za-z0-9]+)`", page))
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "runtime" / "doctor").glob("*.py"))
    written = set(re.findall(rf'"((?:{"|".join(_TITLES)})\.[a-z0-9]+)"', sources))
    assert len(written) > 10
    # One of each camera and provider is listed by a name in capitals.
    assert written - listed - {"camera.none"} == set()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a wheel of this very tree."""
    folder = tmp_path_factory.mktemp("wheel")
    source = tmp_path_factory.mktemp("source") / "vit-edge"
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no checkout of the repository")
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_symlink() or not (ROOT / name).is_file():
            continue
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    pip = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(folder),
        str(source),
    ]
    subprocess.run(pip, check=True, timeout=300)
    (found,) = folder.glob("vit_edge-*.whl")
    return found


@pytest.mark.slow
def test_the_runtime_without_a_screen_is_small(wheel: Path, tmp_path: Path) -> None:
    """A device's card is: under 350 MB with all that it requires, where torch alone takes gigabytes."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path)], check=True, timeout=120)
    python = tmp_path / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    subprocess.run([*pip, f"{wheel}[runtime-headless]"], check=True, timeout=600)
    # The files' own bytes, in millions, as benchmarks/embedding.py counts; what a file system adds is its own.
    size = sum(
        file.stat().st_size for file in tmp_path.rglob("*") if file.is_file() and not file.is_symlink()
    )
    assert size < LIMIT_MB * 10**6, f"{size / 10**6:.0f} MB"
    done = subprocess.run(
        [tmp_path / "bin" / "vit-edge", "doctor"], capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout.decode()


@pytest.mark.slow
def test_every_wheel_of_an_arm_device_exists(wheel: Path, tmp_path: Path) -> None:
    """A Raspberry Pi that has to compile OpenCV takes hours, and often runs out of memory."""
    script = ROOT / "benchmarks" / "aarch64.py"
    line = [sys.executable, str(script), str(tmp_path), "--wheel", str(wheel)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    rows = {row.split()[0].rsplit("-", 1)[0]: row.split()[1] for row in done.stdout.splitlines()[:-1]}
    for name in ("numpy", "onnxruntime", "opencv_python_headless"):
        assert rows[name].endswith("aarch64")
    assert all(tag.endswith(("aarch64", "none-any")) for tag in rows.values())


def test_the_containers_steps_are_those_that_the_script_runs() -> None:
    """`benchmarks/container.py` runs them without an engine, and knows no others."""
    steps = re.findall(r"^([A-Z]+) ", (DOCS / "Containerfile").read_text(encoding="utf-8"), re.MULTILINE)
    script = (ROOT / "benchmarks" / "container.py").read_text(encoding="utf-8")
    assert steps.count("FROM") == 2
    for keyword in steps:
        assert f'"{keyword}"' in script

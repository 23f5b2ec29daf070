"""``vit-edge bench`` as people and scripts use it."""

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from vit_edge.runtime import Classifier
from vit_edge.runtime.cores import usable_cores

from ..documentation import DOCS, blocks, needs, run_python
from ..runtime.onnx_writer import METADATA, colour_model, flat_colour, save_picture
from .command import Entry, absent, call, environment, refused

_QUICK = ("--seconds", "0.1", "--starts", "0")


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a model file, with a cache of its own."""
    monkeypatch.setenv("VIT_EDGE_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "small.onnx"
    path.write_bytes(colour_model())
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Give a folder of small images."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("red", "green"):
        save_picture(folder / f"{name}.png", flat_colour(name))
    return folder


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Entry:
    return Entry("bench", monkeypatch, capfd)


def test_two_models_are_compared_on_a_device_without_torch(model: Path, tmp_path: Path) -> None:
    """It is the device that has to tell, and it has no workshop."""
    (tmp_path / "hidden").mkdir()
    other = tmp_path / "other.onnx"
    other.write_bytes(colour_model(raw=True))
    env = environment(absent(tmp_path / "hidden", "torch", "onnx", "matplotlib", "psutil"))
    options = ("--seconds", "0.1", "--starts", "1", "--plot", "times.svg")
    done = call("bench", model, other, *options, env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    device, pictures, _, head, *rows = done.stdout.splitlines()
    assert f"{usable_cores()} cores, ONNX Runtime 1." in device
    assert pictures.startswith("a made picture (1280x720, ")
    stages = "decode preprocess inference end to end p90 p99 spread images/s ratio"
    assert " ".join(head.split()) == f"model provider threads batch at once {stages}"
    assert rows[0].split()[:5] == ["small.onnx", "cpu", str(usable_cores()), "1", "1"]
    assert rows[0].endswith(" 1.00")
    assert rows[1].startswith("other.onnx")
    assert len({len(row) for row in (head, rows[0], rows[1])}) == 1
    assert rows[3].endswith("start to answer  p90  peak MB")
    assert float(rows[4].split()[-1]) > 20
    assert "wrote times.svg" in done.stderr
    assert ElementTree.parse(tmp_path / "times.svg").getroot().tag.endswith("svg")


def test_json_holds_every_figure(model: Path, data: Path, bench: Entry) -> None:
    """A fleet's dashboard compares devices, and has to know which they were."""
    settings = ("--threads", "1,2", "--batch", "1,2", "--concurrency", "1,2")
    status, out, err = bench(model, "--data", data, *settings, *_QUICK, "--json", "--quiet")
    assert status == 0, err
    values = json.loads(out)
    assert {"processor", "cores", "load", "onnxruntime", "opencv", "vit_edge"} <= set(values["device"])
    assert values["pictures"]["name"] == str(data)
    assert values["pictures"]["count"] == 2
    found = [(row["threads"], row["batch"], row["concurrency"]) for row in values["rows"]]
    assert found == [(threads, batch, loads) for threads in (1, 2) for batch in (1, 2) for loads in (1, 2)]
    for row in values["rows"]:
        assert row["model"] == str(model)
        assert row["provider"] == "cpu"
        assert row["images_per_s"] > 0
        for stage in ("decode", "preprocess", "inference", "end_to_end"):
            assert set(row[stage]) == {"count", "p50_ms", "p90_ms", "p99_ms", "spread"}
    assert (values["threads"], values["kept"]) == ([], [])


def test_json_has_the_start_and_the_memory(model: Path, data: Path, bench: Entry) -> None:
    """Beside the times of the same model and setting."""
    _, out, _ = bench(model, "--data", data, "--seconds", "0.1", "--starts", "1", "--json")
    (row,) = json.loads(out)["rows"]
    assert row["first_answer"]["p50_ms"] > 1
    assert row["peak_mb"] > 20


def test_the_best_thread_count_is_kept_used_and_forgotten(model: Path, data: Path, bench: Entry) -> None:
    """And each step says what it did, and how to undo it."""
    before = model.read_bytes()
    status, out, err = bench(model, "--data", data, *_QUICK, "--keep", "--json")
    assert status == 0, err
    values = json.loads(out)
    (searched,), (kept,) = values["threads"], values["kept"]
    assert set(searched["ms_per_image"]) >= {"1", str(usable_cores())}
    assert kept["threads"] == searched["best"] == values["rows"][0]["threads"]
    assert Path(kept["path"]).is_file()
    assert f"kept {kept['threads']} threads for {model} with cpu in {kept['path']}" in err
    assert f"`vit-edge bench {model} --forget` forgets it" in err
    assert model.read_bytes() == before

    # A number that nobody would find is surely the kept one.
    many = usable_cores() + 1
    assert bench(model, "--data", data, *_QUICK, "--keep", "--threads", many)[0] == 0
    assert Classifier(model).threads == many
    _, out, err = bench(model, "--data", data, *_QUICK, "--json")
    assert json.loads(out)["rows"][0]["threads"] == many
    assert f"{model} runs on the thread count that was kept on this device, {many}; `vit-edge" in err

    status, out, err = bench(model, "--forget")
    assert (status, out, err) == (0, "", f"forgot what was kept for {model} on this device\n")
    assert Classifier(model).threads == usable_cores()
    assert bench(model, "--forget")[2] == f"nothing was kept for {model} on this device\n"


def test_the_search_is_shown(model: Path, data: Path, bench: Entry) -> None:
    """How much a thread gains is what one buys a device by."""
    status, out, _ = bench(model, "--data", data, *_QUICK, "--threads", "auto")
    assert status == 0
    *_, line, times = out.splitlines()
    assert line.startswith("threads for small.onnx with cpu: ")
    assert times.startswith("  1: ")


def test_progress_goes_to_stderr_and_can_be_off(model: Path, data: Path, bench: Entry) -> None:
    """The table is for the next program."""
    _, out, err = bench(model, "--data", data, *_QUICK)
    assert "timing: 10/10" in err
    assert "timing:" not in out
    assert bench(model, "--data", data, *_QUICK, "--quiet")[2] == ""


def test_a_png_needs_no_plotting_library(model: Path, data: Path, tmp_path: Path, bench: Entry) -> None:
    """A device has none."""
    path = tmp_path / "times.png"
    assert bench(model, "--data", data, *_QUICK, "--plot", path)[0] == 0
    assert path.read_bytes().startswith(b"\x89PNG")


def test_two_files_of_one_name_are_told_apart(model: Path, data: Path, tmp_path: Path, bench: Entry) -> None:
    """Versions in folders are common."""
    (tmp_path / "new").mkdir()
    other = tmp_path / "new" / model.name
    other.write_bytes(colour_model(METADATA, gain=2))
    _, out, _ = bench(model, other, "--data", data, *_QUICK)
    assert f"\n{other} " in out
    assert f"\n{model} " in out


@pytest.mark.parametrize(
    ("options", "status", "expected"),
    [
        (
            ("--threads", "0"),
            2,
            "expected --threads to be whole numbers from 1 on, as in 1,2, or auto, got '0'",
        ),
        (("--batch", "1,x"), 2, "expected --batch to be whole numbers from 1 on, as in 1,2, got '1,x'"),
        (("--concurrency", ""), 2, "expected --concurrency to be whole numbers from 1 on, as in 1,2, got ''"),
        (("--keep", "--threads", "1,2"), 2, "expected --threads auto or one number with --keep, got 1,2"),
        (("--plot", "times.pdf"), 1, "expected a plot that ends in .svg or .png, got times.pdf"),
        (("--data", "nowhere"), 1, "there is no folder nowhere; check its name"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(
    model: Path, bench: Entry, options: tuple[str, ...], status: int, expected: str
) -> None:
    """Before anything is measured."""
    assert bench(model, *options) == (status, "", f"error: {expected}\n")


def test_options_are_a_providers_own(model: Path, data: Path, bench: Entry) -> None:
    """What one provider knows, the next refuses."""
    options = ("--provider", "cpu,openvino", "--provider-option", "device_type=CPU")
    status, out, err = bench(model, "--data", data, *options)
    assert (status, out) == (2, "")
    assert err == (
        "error: expected one --provider with --provider-option, got cpu,openvino; bench them one by one\n"
    )


def test_a_missing_model_or_provider_is_one_sentence(model: Path, data: Path) -> None:
    """The way the user sees it."""
    assert refused("bench", "absent.onnx", "--data", data, "--quiet").startswith(
        "there is no file absent.onnx"
    )
    assert refused("bench", model, "--data", data, "--provider", "cpu,gpu", "--quiet").startswith(
        "there is no provider 'gpu'"
    )


def test_a_tuning_that_cannot_be_kept_is_one_sentence(
    model: Path, data: Path, bench: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-only disk."""
    monkeypatch.setenv("VIT_EDGE_CACHE", str(model))
    status, out, err = bench(model, "--data", data, *_QUICK, "--keep", "--quiet")
    assert (status, out) == (1, "")
    assert err.startswith("error: the tuning cannot be kept in ")


_PAGE = DOCS / "bench.md"


@pytest.mark.slow
@needs(_PAGE)
def test_the_pages_examples_run(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """People copy them."""
    for name in ("model", "int8", "float32"):
        shutil.copy(model, tmp_path / f"{name}.onnx")
    data.rename(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    lines = [line for block in blocks(_PAGE, "sh") for line in block.splitlines()]
    assert len(lines) == 6
    for line in lines:
        _, *words = line.split(" > ")[0].split()
        quick = () if "--forget" in words else ("--seconds", "0.1", "--starts", "1")
        done = call(*words, *quick)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "times.svg").exists()
    (block,) = blocks(_PAGE, "python")
    done = run_python(block.replace("seconds=1,", "seconds=0.1,"), tmp_path)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["1", "2"]

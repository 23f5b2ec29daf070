"""A model file is examined on this device: sound, at home, and where its time goes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from vit_edge.runtime import Classifier
from vit_edge.runtime.doctor import child
from vit_edge.runtime.doctor.model import device, inference, model
from vit_edge.runtime.doctor.try_model import middle_inference
from vit_edge.runtime.opening import prove
from vit_edge.runtime.processor import differences

from ..onnx_writer import METADATA, colour_model
from ..openvino import needs_openvino, run
from .machines import cured, environment, examined


def save(folder: Path, data: bytes) -> Path:
    path = folder / "colours.onnx"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("raw", [False, True], ids=["planes", "raw pixels"])
def test_one_inference_is_told_by_provider_and_operator(raw: bool, tmp_path: Path) -> None:
    """Where the time goes decides what is worth mending; the profile's own file goes again."""
    path = save(tmp_path, colour_model(raw=raw))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    findings = examined(path, part="model.model", env={"TMPDIR": str(scratch)})
    assert findings["model.file"]["severity"] == "ok"
    assert findings["model.file"]["found"].endswith("sealed and sound: 3 classes")
    finding = findings["model.inference"]
    assert finding["severity"] == "ok"
    details = finding["details"]
    (row,) = details["providers"]
    assert row["provider"] == "CPUExecutionProvider"
    assert row["nodes"] == details["nodes"] == sum(one["nodes"] for one in details["operators"])
    assert 0 < sum(one["ms"] for one in details["operators"]) <= details["total_ms"]
    assert ("GlobalAveragePool" in {one["operator"] for one in details["operators"]}) != raw
    assert f"{row['nodes']} nodes by CPUExecutionProvider" in finding["found"]
    # ONNX Runtime itself keeps a number in a hidden file.
    assert [entry for entry in scratch.iterdir() if not entry.name.startswith(".")] == []
    assert {entry.name for entry in tmp_path.iterdir()} == {"colours.onnx", "scratch"}


def test_a_graph_of_a_fixed_batch_is_profiled_too(tmp_path: Path) -> None:
    """It refuses a single image."""
    assert (
        examined(save(tmp_path, colour_model(batch=4)), part="model.model")["model.inference"]["details"][
            "batch"
        ]
        == 4
    )


def test_a_device_that_differs_from_the_measured_one_is_told(tmp_path: Path) -> None:
    """The same INT8 file can answer differently on another processor."""
    recipe = {
        "provider": "CPUExecutionProvider",
        "precision": "int8",
        "processor": {"architecture": "sparc", "features": []},
    }
    findings = examined(save(tmp_path, colour_model(replace(METADATA, recipe=recipe))), part="model.model")
    finding = findings["model.device"]
    assert finding["severity"] == "note"
    assert "was measured on a processor of type sparc" in finding["found"]
    assert finding["cure"] == "Check it with `vit-edge check`."
    assert findings["model.file"]["found"].endswith("sealed and sound: int8, 3 classes")


def test_every_note_of_a_classifier_becomes_what_is_and_what_to_do() -> None:
    """Its sentences come from several places, and each has its next step behind its last semicolon."""
    left = {"openvino": {"MatMul": 9}, "cpu": {"Gather": 3, "Where": 1}}
    (part,) = prove("x.onnx", "openvino", left)
    finding = device(f"x.onnx {part}")
    assert finding.found == (
        "x.onnx runs 4 of its 13 nodes on the CPU, since the provider openvino does not take them (3 Gather, 1 Where): "
        "answers are right, but speed may suffer"
    )
    assert finding.cure == "`vit-edge bench --provider openvino,cpu` compares it with the CPU alone."
    # The reason why a provider is not there has its own cure, and colons in it.
    recipe = {"target": "qnn", "provider": "CUDAExecutionProvider", "precision": "int8"}
    notes = [*Classifier(colour_model(replace(METADATA, recipe=recipe))).notes]
    notes += [
        f"x.onnx {note}"
        for there in ({"architecture": "sparc"}, {"architecture": "x86_64", "features": ["avx512_vnni"]})
        for note in differences(
            recipe | {"processor": there}, "CPUExecutionProvider", {"architecture": "x86_64", "features": []}
        )
    ]
    assert len(notes) > 4
    for finding in map(device, notes):
        assert cured(finding.cure), finding
        assert not finding.found.endswith(tuple(".;:")), finding
        assert finding.found.startswith(("x.onnx ", "the model ")), finding


def test_a_damaged_file_is_a_problem(tmp_path: Path) -> None:
    """A download that broke off, or a card that is wearing out."""
    path = save(tmp_path, colour_model()[:-1] + b"!")
    finding = examined(path, part="model.model")["model.file"]
    assert finding["severity"] == "problem"
    assert finding["found"] == f"{path} was changed or damaged since its export"
    assert finding["cure"] == "Copy it again or export it anew."


def test_a_file_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    """With the examination of the device before it all the same."""
    findings = examined(tmp_path / "absent.onnx")
    assert findings["model.file"]["severity"] == "problem"
    assert findings["model.file"]["found"].startswith("there is no file ")
    assert findings["onnxruntime.cpu"]["severity"] == "ok"


def test_a_graph_that_this_version_cannot_run_is_a_problem(tmp_path: Path) -> None:
    """Made with operators newer than the installed ONNX Runtime."""
    finding = examined(save(tmp_path, colour_model(opset=99)), part="model.model")["model.inference"]
    assert finding["severity"] == "problem"
    assert "cannot run" in finding["found"]
    assert finding["cure"].startswith("Update onnxruntime")


def test_a_sound_file_is_told_even_where_nothing_can_run_it(tmp_path: Path) -> None:
    """So that it is not blamed."""
    path = save(tmp_path, colour_model())
    finding = examined(path, part="model.model", python=environment(tmp_path / "venv"))["model.file"]
    assert finding["severity"] == "note"
    assert "is sealed and sound, and cannot be run without onnxruntime" in finding["found"]


def test_only_the_inference_of_middle_length_counts() -> None:
    """The first allocates, any may be interrupted; the profiler writes all of them into one file."""

    def node(
        start: int, operator: str, duration: int, provider: str = "CPUExecutionProvider"
    ) -> dict[str, object]:
        args = {"op_name": operator, "provider": provider}
        return {"cat": "Node", "name": "n_kernel_time", "ts": start, "dur": duration, "args": args}

    def run(start: int, duration: int) -> dict[str, object]:
        return {"cat": "Session", "name": "model_run", "ts": start, "dur": duration}

    events = [
        *(run(0, 900), node(10, "MatMul", 800)),
        *(run(1000, 100), node(1010, "MatMul", 30), node(1050, "MatMul", 20, "CUDAExecutionProvider")),
        *(run(2000, 50), node(2010, "MatMul", 10)),
        {"cat": "Node", "name": "n_fence_before", "ts": 1020, "dur": 7, "args": {}},
    ]
    assert middle_inference(events) == {
        "total_ms": 0.1,
        "nodes": 2,
        "providers": [
            {"provider": "CPUExecutionProvider", "nodes": 1, "ms": 0.03},
            {"provider": "CUDAExecutionProvider", "nodes": 1, "ms": 0.02},
        ],
        "operators": [
            {"provider": "CPUExecutionProvider", "operator": "MatMul", "nodes": 1, "ms": 0.03},
            {"provider": "CUDAExecutionProvider", "operator": "MatMul", "nodes": 1, "ms": 0.02},
        ],
    }
    values = middle_inference(events) | {"provider": "cuda", "threads": 1, "batch": 1}
    finding = inference(values)
    assert finding.severity == "note"
    assert finding.found.endswith("60 % of the time went to the CPU")
    assert "`vit-edge bench --provider cuda,cpu`" in finding.cure


def test_nothing_is_left_in_the_folder_that_it_is_called_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime's profiler writes there unless told otherwise."""
    path = save(tmp_path, colour_model())
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    examined(path, part="model.model")
    assert list(Path().iterdir()) == []


OPTIONS = """
from pathlib import Path
from vit_edge.runtime.doctor import examine

for key in ("NO_SUCH", "INFERENCE_PRECISION_HINT"):
    options = {"load_config": json.dumps({"CPU": {key: "f32"}})}
    *_, last = examine(Path(sys.argv[1]), provider="openvino", provider_options=options)
    tell(id=last.id, found=last.found, severity=last.severity)
"""


@needs_openvino
def test_a_providers_options_reach_the_session_that_is_profiled(tmp_path: Path) -> None:
    """The real provider refuses one that it does not know, and takes another."""
    (refused, taken), _ = run(OPTIONS, save(tmp_path, colour_model()))
    assert refused["id"] == taken["id"] == "model.inference"
    assert refused["severity"] == "problem"
    assert "Unsupported property NO_SUCH" in refused["found"]
    assert taken["severity"] == "ok"
    assert " on openvino with " in taken["found"]


def test_a_model_may_take_as_long_as_a_provider_compiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT builds its engine for minutes, and whoever waits sees that something happens."""
    told: list[str] = []
    limits: list[float] = []

    def attempt(trial: str, *arguments: str, timeout_s: float = child.TIMEOUT_S) -> child.Outcome:
        limits.append(timeout_s)
        assert told == [f"running {path}"]
        return child.attempt(trial, *arguments, timeout_s=timeout_s)

    @contextmanager
    def running(title: str) -> Iterator[None]:
        told.append(title)
        yield

    monkeypatch.setattr("vit_edge.runtime.doctor.model.attempt", attempt)
    path = save(tmp_path, colour_model())
    *_, last = model(path, running=running)
    assert last.severity == "ok"
    assert limits == [1800.0]

"""``vit-edge export``: the command as it is typed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import onnx
import pytest
from safetensors.torch import load_file, save_file

from vit_edge.checkpoint import load_checkpoint
from vit_edge.cli.export import TARGET_NAMES, _seconds
from vit_edge.data import labelled_images
from vit_edge.export.options import DEFAULT_BOUNDS
from vit_edge.export.targets import TARGETS
from vit_edge.export.trace import trace
from vit_edge.runtime import Classifier
from vit_edge.runtime.capsule import read_capsule
from vit_edge.runtime.preprocess import Preprocessing

from ..conftest import DIGITS, listing
from .command import Entry, command, environment

pytestmark = pytest.mark.usefixtures("one_torch_thread")

PREPROCESSING = "resize=32,crop=32,interpolation=bicubic,mean=0.5,std=0.5"
QUICK = ("--no-simplify", "--samples", 8)


class Call(Entry):
    """Calls ``vit-edge export``."""

    def refused(self, *arguments: object, status: int) -> str:
        """Call what has to be refused, and give its one sentence."""
        ended, out, err = self(*arguments)
        assert (ended, out) == (status, "")
        (sentence,) = [line for line in err.splitlines() if line.startswith("error: ")]
        return sentence


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    return Call("export", monkeypatch, capfd)


@pytest.fixture
def bare(digits_checkpoint: Path, tmp_path: Path) -> Path:
    """Give the weights alone, as most checkpoints on the internet are."""
    save_file(load_file(digits_checkpoint), tmp_path / "bare.safetensors")
    return tmp_path / "bare.safetensors"


@pytest.mark.slow
def test_one_command_makes_the_file(digits_checkpoint: Path, digits_images: Path, tmp_path: Path) -> None:
    """In a process of its own, as users run it: the answer on stdout, what happened on stderr."""
    path = tmp_path / "model.onnx"
    path_of_modules = (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))
    # One thread, as in the other tests: so small a network gains nothing from more.
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, path_of_modules)), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "vit_edge", "export", digits_checkpoint, "-o", path),
            *("--calibrate", digits_images / "calibrate", "--check", digits_images / "test"),
            *("--min-speedup", "0", "--budget", "15s", "--samples", "24"),
        ],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    place = lines.index(f"{path}: int8, {path.stat().st_size / 1e6:.2f} MB, for cpu")
    assert "of 120 images of test" in lines[place + 1]
    assert lines[0].split() == ["candidate", "MB", "ms", "agreement", "drift"]
    assert len([line for line in lines[:place] if line.startswith("> dynamic")]) == 1
    layers = lines.index("layers whose quantization harms most (drift without it, and with it alone):")
    assert len(lines[layers + 1 : place]) == 5
    assert "drop " in done.stdout
    assert "keep the answer that they get alone" in done.stdout
    assert " ms in float32, on this machine" in done.stdout
    for step in ("Trace ", "Simplify() ", "QuantizeDynamic("):
        assert f"\n  {step}" in done.stderr
    assert "Warning" not in done.stderr
    assert not re.search(r"\bwarning", done.stderr)
    with Classifier(path) as classifier:
        assert [label.name for label in classifier.labels.items] == list(DIGITS)
    assert listing(tmp_path) == ["model.onnx"]


def test_quiet_says_the_result_alone(
    call: Call, digits_checkpoint: Path, digits_images: Path, tmp_path: Path
) -> None:
    """For a script that reads stdout, and a log that nobody wants to scroll."""
    arguments = (digits_checkpoint, "--calibrate", digits_images / "calibrate", *QUICK, "--quiet")
    status, out, err = call(*arguments, "-o", tmp_path / "model.onnx", "--precision", "float32")
    assert (status, err) == (0, "")
    assert out.startswith(f"{tmp_path / 'model.onnx'}: float32, ")


def test_another_image_size_resamples_the_positions_and_asks_for_its_preprocessing(
    call: Call, digits_checkpoint: Path, digits_images: Path, tmp_path: Path
) -> None:
    """What the checkpoint says of its images is for its own size, and is not stretched in silence."""
    larger = PREPROCESSING.replace("32", "48")
    arguments = (
        digits_checkpoint,
        "-o",
        tmp_path / "model.onnx",
        "--image-size",
        48,
        "--precision",
        "float32",
    )
    images = ("--calibrate", digits_images / "calibrate", *QUICK)
    assert "does not tell its preprocessing; give --preprocess" in call.refused(*arguments, *images, status=2)
    status, _, _ = call(*arguments, *images, "--preprocess", larger)
    assert status == 0
    with Classifier(tmp_path / "model.onnx") as classifier:
        assert classifier.preprocessing.crop == (48, 48)
        samples = labelled_images(digits_images / "test", classifier.labels)
        right = sum(classifier(sample.path).index == sample.target for sample in samples)
    assert right > len(samples) / 4


@pytest.mark.slow
def test_the_reason_for_float32_is_told(
    call: Call, digits_checkpoint: Path, digits_images: Path, tmp_path: Path
) -> None:
    """The file is four times the size that was hoped for, and the user can decide to loosen a bound."""
    arguments = (digits_checkpoint, "--calibrate", digits_images / "calibrate", *QUICK)
    status, out, err = call(*arguments, "-o", tmp_path / "model.onnx", "--max-drift", "0.000001")
    assert status == 0
    assert ": float32, " in out
    assert "not int8, since int8 broke its bound: logit drift" in out
    assert "\n    logit drift 0." in out
    assert "QuantizeDynamic(" in err
    sentence = call.refused(
        *arguments, "-o", tmp_path / "other.onnx", "--max-drift", "1e-6", "--precision", "int8", status=1
    )
    assert "int8 broke its bound: logit drift" in sentence
    assert "--max-drift" in sentence
    assert not (tmp_path / "other.onnx").exists()


def test_what_a_bare_state_dict_cannot_tell_must_be_given(
    call: Call, bare: Path, digits_images: Path, tmp_path: Path
) -> None:
    """There is no default: the usual mean and deviation would be wrong for many a network, and cost its answers."""
    path = tmp_path / "model.onnx"
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(f"n0000000{place} {name}" for place, name in enumerate(DIGITS)) + "\n")
    arguments = (bare, "-o", path, "--heads", 2, "--calibrate", digits_images / "calibrate", *QUICK)
    sentence = call.refused(*arguments, status=2)
    assert "labels and preprocessing" in sentence
    assert "--labels FILE" in sentence
    assert "--preprocess resize=" in sentence
    sentence = call.refused(*arguments, "--labels", labels, status=2)
    assert "--preprocess" in sentence
    assert "--labels FILE" not in sentence
    assert "--labels FILE" in call.refused(*arguments, "--preprocess", PREPROCESSING, status=2)
    assert not path.exists()
    given = ("--labels", labels, "--preprocess", PREPROCESSING, "--precision", "float32", "-q")
    status, _, err = call(*arguments, *given)
    assert status == 0, err
    with Classifier(path) as classifier:
        assert [label.name for label in classifier.labels.items] == list(DIGITS)
        assert classifier.labels[4].id == "n00000004"
        assert classifier.preprocessing == Preprocessing.parse(PREPROCESSING)


def test_options_of_the_graph_reach_it(
    call: Call, digits_checkpoint: Path, digits_images: Path, tmp_path: Path
) -> None:
    """An older device takes an older opset, and some take one batch size only."""
    path = tmp_path / "model.onnx"
    options = ("--opset", 17, "--batch", 2, "--precision", "float32", *QUICK)
    status, out, _ = call(digits_checkpoint, "-o", path, "--calibrate", digits_images / "calibrate", *options)
    assert status == 0
    assert "in batches" not in out
    model = onnx.load(path)
    assert [entry.version for entry in model.opset_import if not entry.domain] == [17]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 2
    entries = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(entries["vit_edge.recipe"])["batch"] == 2
    assert json.loads(entries["vit_edge.proof"])["calibration"]["images"] == 8


def test_a_wrong_use_is_status_2_and_one_sentence(
    call: Call, digits_checkpoint: Path, digits_images: Path, tmp_path: Path
) -> None:
    """And it comes before any work, with the option that would mend it."""
    path = tmp_path / "model.onnx"
    base = (digits_checkpoint, "-o", path)
    calibrate = ("--calibrate", digits_images / "calibrate")
    assert "--calibrate" in call.refused(*base, status=2)
    assert "--precision" in call.refused(*base, *calibrate, "--precision", "int4", status=2)
    both = call.refused(*base, *calibrate, "--dynamic-batch", "--batch", 2, status=2)
    assert "give one of the two" in both
    assert "no folder" in call.refused(
        digits_checkpoint, "-o", tmp_path / "no" / "m.onnx", *calibrate, status=2
    )
    wrong = call.refused(*base, *calibrate, "--labels", tmp_path / "no.txt", status=2)
    assert "no.txt" in wrong
    assert "std" in call.refused(*base, *calibrate, "--preprocess", "resize=32,crop=32", status=2)
    for value in (("--min-agreement", "95"), ("--opset", "16"), ("--samples", "0"), ("--batch", "0")):
        assert call(*base, *calibrate, *value)[0] == 2
    assert not listing(tmp_path)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--target", "openvivo"), ("expected a target from cpu, cpu-avx2, openvino", "'openvivo'")),
        (("--variants", "cpu,openvivo"), ("expected a target from cpu, cpu-avx2, openvino", "'openvivo'")),
        (("--variants", "cpu,cpu"), ("expected each target once",)),
        (("--variants", "cpu,qnn", "--target", "openvino"), ("give one of the two",)),
        (
            ("--target", "coreml", "--precision", "int8"),
            ("coreml does not run INT8", "leave out --precision"),
        ),
        (("--pick", "best"), ("--pick", "balanced, fastest, smallest, closest", "best")),
        (("--input", "int8"), ("--input", "float32, uint8", "int8")),
        (("--merge-tokens", "some"), ("BLOCK:TOKENS", "'some'")),
        (("--merge-tokens", "0:3", "--target", "qnn"), ("not for qnn", "leave out --merge-tokens")),
        (("--budget", "soon"), ("--budget", "90s, 5m or 1h", "'soon'")),
        (("--budget=-5m",), ("--budget", "'-5m'")),
        (("--budget", "5d"), ("--budget", "'5d'")),
        (("--budget", ""), ("--budget", "''")),
    ],
    ids=lambda value: " ".join(value) if value[0].startswith("--") else "",
)
def test_a_wrong_choice_is_answered_with_what_there_is(
    call: Call,
    digits_checkpoint: Path,
    digits_images: Path,
    tmp_path: Path,
    options: tuple[str, ...],
    parts: tuple[str, ...],
) -> None:
    """A typing error is not to cost the search, and nobody looks into the manual for a list."""
    arguments = (digits_checkpoint, "-o", tmp_path / "model.onnx", "--calibrate", digits_images / "calibrate")
    sentence = call.refused(*arguments, *options, status=2)
    assert all(part in sentence for part in parts), sentence
    assert not listing(tmp_path)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5m", 300), ("1h", 3600), ("1.5m", 90), ("40", 40), (" 2 m ", 120)]
)
def test_a_budget_is_read_as_people_write_it(text: str, seconds: float) -> None:
    """A unit that is taken for another costs sixty times the time."""
    assert _seconds(text) == seconds


def test_the_targets_named_in_the_help_are_those_that_there_are() -> None:
    """The command's help names them without loading the export."""
    assert tuple(TARGETS) == TARGET_NAMES


@pytest.mark.slow
def test_variants_are_a_file_and_a_json_object_each(
    call: Call, digits_checkpoint: Path, digits_images: Path, tmp_path: Path
) -> None:
    """A device takes the file that is for it; and a script reads how each was chosen, line by line."""
    arguments = (digits_checkpoint, "-o", tmp_path / "model.onnx", "--calibrate", digits_images / "calibrate")
    options = ("--variants", "cpu,openvino", "--json", "-q", "--budget", "2s", "--min-speedup", 0)
    status, out, err = call(*arguments, *options, *QUICK, "--precision", "int8", "--min-agreement", 0.5)
    assert (status, err) == (0, "")
    results = [json.loads(line) for line in out.splitlines()]
    names = ["model.cpu.onnx", "model.openvino.onnx"]
    assert [Path(result["path"]).name for result in results] == listing(tmp_path) == names
    assert [result["target"] for result in results] == ["cpu", "openvino"]
    for result, name in zip(results, names, strict=True):
        assert result["bytes"] == (tmp_path / name).stat().st_size
        chosen = result["candidates"][result["chosen"]]
        assert chosen["problem"] is None
        assert chosen["best"]
        assert {layer["layer"] for layer in result["sensitivities"]}
        assert [step["name"] for step in result["steps"]].count("Trace") == 1
    assert results[0]["candidates"][0]["recipe"] == "dynamic"
    assert results[0]["latency_ms"] > 0
    assert results[1]["candidates"][0]["recipe"] == "static minmax"
    assert results[1]["latency_ms"] is None
    sentence = call.refused(*arguments, *options, *QUICK, status=2)
    assert "model.cpu.onnx exists; give --force" in sentence


def test_a_provider_that_is_not_at_hand_is_told(
    call: Call, digits_checkpoint: Path, digits_images: Path, tmp_path: Path
) -> None:
    """Without it nothing is known of the file's speed, and the user learns where it can be had."""
    arguments = (digits_checkpoint, "-o", tmp_path / "model.onnx", "--calibrate", digits_images / "calibrate")
    options = ("--target", "qnn", "--precision", "int8", "--budget", "0")
    status, out, _ = call(*arguments, *options, *QUICK)
    assert status == 0
    assert "not timed: the provider of qnn is not installed here" in out
    assert "--target-python" in out
    assert "the search was cut short" in out


def test_a_graph_made_elsewhere_is_exported_as_well(
    call: Call, digits_checkpoint: Path, digits_images: Path, tmp_path: Path
) -> None:
    """Its own answers are the reference then; what no graph tells of its images and classes has to be given."""
    source, labels = tmp_path / "elsewhere.onnx", tmp_path / "labels.txt"
    network = load_checkpoint(digits_checkpoint).model
    source.write_bytes(trace(network, size=(32, 32), opset=18).SerializeToString())
    labels.write_text("\n".join(DIGITS) + "\n")
    path = tmp_path / "model.onnx"
    arguments = (source, "-o", path, "--calibrate", digits_images / "calibrate", *QUICK)
    sentence = call.refused(*arguments, status=2)
    assert "elsewhere.onnx does not tell its labels and preprocessing; give --labels FILE" in sentence
    assert "crop=32" in sentence
    assert "--preprocess" in call.refused(*arguments, "--labels", labels, status=2)
    told = ("--labels", labels, "--preprocess", PREPROCESSING)
    for wrong in (("--heads", 2), ("--image-size", 32)):
        assert "are for checkpoints" in call.refused(*arguments, *told, *wrong, status=2)
    assert not path.exists()
    status, out, err = call(*arguments, *told, "--precision", "int8", "--budget", "0", "--min-speedup", 0)
    assert status == 0, err
    assert f"{path}: int8, " in out
    assert "agreement with the float graph" in out
    with Classifier(path) as classifier:
        assert [label.name for label in classifier.labels.items] == list(DIGITS)
        assert classifier.metadata.proof["reference"] == "the float graph"


@pytest.mark.slow
def test_a_search_that_was_killed_goes_on_where_it_was(
    digits_checkpoint: Path, digits_images: Path, tmp_path: Path
) -> None:
    """On a large network the ranking of layers takes minutes; they are not to be lost with the process."""
    output, cache = tmp_path / "output", tmp_path / "cache"
    output.mkdir()
    # A target that is not timed here: which rewrites pay is chance on so small a network, and changes the graph.
    line = command(
        *("export", digits_checkpoint, "-o", output / "model.onnx", "--target", "tensorrt"),
        *("--calibrate", digits_images / "calibrate", "--budget", "60s", "--no-simplify", "--samples", 24),
    )
    env = environment(VIT_EDGE_CACHE=str(cache), OMP_NUM_THREADS="1")
    with subprocess.Popen(line, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as killed:
        end = time.monotonic() + 120
        while len(measured(cache)) < 3 and killed.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        killed.kill()
    assert killed.returncode == -signal.SIGKILL
    before = measured(cache)
    assert len(before) >= 3
    assert not listing(output)
    done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    after = measured(cache)
    assert len(list((cache / "search").iterdir())) == 1
    assert after[: len(before)] == before
    keys = [entry["key"] for entry in after]
    assert len(keys) == len(set(keys)) == 2 * (3 * 4 + 1)


def measured(cache: Path) -> list[dict[str, Any]]:
    """Give what journals hold, but for a line that is only half written."""
    text = "\n".join(path.read_text() for path in cache.glob("search/*.jsonl"))
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


def test_what_is_not_usable_is_status_1_and_one_sentence(
    call: Call, digits_checkpoint: Path, digits_images: Path, tmp_path: Path
) -> None:
    """The command was right and the files were not."""
    path = tmp_path / "model.onnx"
    calibrate = ("--calibrate", digits_images / "calibrate")
    assert "no.pth" in call.refused(tmp_path / "no.pth", "-o", path, *calibrate, status=1)
    assert "there is no folder" in call.refused(
        digits_checkpoint, "-o", path, "--calibrate", tmp_path / "no", status=1
    )
    strange = tmp_path / "strange"
    (strange / "eleven").mkdir(parents=True)
    assert "'eleven'" in call.refused(digits_checkpoint, "-o", path, "--check", strange, status=1)
    own = tmp_path / "labels.txt"
    own.write_text("\n".join(DIGITS[::-1]))
    assert "leave out --labels" in call.refused(
        digits_checkpoint, "-o", path, *calibrate, "--labels", own, status=1
    )
    assert not path.exists()


def test_an_existing_file_needs_force(
    call: Call, digits_checkpoint: Path, digits_images: Path, tmp_path: Path
) -> None:
    """The refusal comes at once, not after the work."""
    path = tmp_path / "model.onnx"
    path.write_bytes(b"last night's")
    arguments = (digits_checkpoint, "-o", path, "--calibrate", digits_images / "calibrate", *QUICK)
    assert "--force" in call.refused(*arguments, status=2)
    assert path.read_bytes() == b"last night's"
    status, _, err = call(*arguments, "--force", "-q", "--precision", "float32")
    assert status == 0, err
    Classifier(path).close()


def test_the_help_states_the_default_bounds(call: Call) -> None:
    """They decide what ships, and live in another file than the text."""
    status, out, _ = call("--help")
    assert status == 0
    text = " ".join(out.replace("│", " ").split())
    int8, half, full = (DEFAULT_BOUNDS[name] for name in ("int8", "float16", "float32"))
    assert (
        f"agreement at least {int8.min_agreement:g}, drift at most {int8.max_drift:g}, "
        f"drop at most {int8.max_drop:g} point" in text
    )
    assert f"float16: {half.min_agreement:g}, {half.max_drift:g}, {half.max_drop:g}" in text
    assert f"float32: {full.min_agreement:g}, {full.max_drift:.4f}, {full.max_drop:g}" in text


def test_the_checkpoints_hash_is_in_the_file(digits_model: Path, digits_checkpoint: Path) -> None:
    """From the file back to what it was made from."""
    with Classifier(digits_model) as classifier:
        assert classifier.metadata.source["sha256"] == load_checkpoint(digits_checkpoint).sha256


def test_an_interpreter_without_the_provider_is_told_before_the_search(
    call: Call, digits_checkpoint: Path, digits_images: Path, tmp_path: Path
) -> None:
    """Minutes of search for a sentence that could be said at once would be lost."""
    arguments = (digits_checkpoint, "-o", tmp_path / "model.onnx", "--calibrate", digits_images / "calibrate")
    for python, sentence in (
        (sys.executable, "has no TensorrtExecutionProvider"),
        (tmp_path / "none", "cannot start the interpreter"),
    ):
        status, out, err = call(*arguments, "--target", "tensorrt", "--target-python", python)
        assert status in (1, 2)
        assert out == ""
        assert sentence in err
        assert len(err.splitlines()) == 1
    assert not listing(tmp_path)


@pytest.mark.slow
def test_the_capsule_is_chosen_sized_and_left_out(
    call: Call, digits_checkpoint: Path, digits_images: Path, tmp_path: Path
) -> None:
    """Pictures of one's own go in only where they are asked for, and how much they weigh is said."""
    quick = (digits_checkpoint, "--calibrate", digits_images / "calibrate", "--precision", "float32", *QUICK)

    def capsule(*options: object) -> tuple[str, dict[str, Any] | None]:
        path = tmp_path / "model.onnx"
        status, out, err = call(*quick, "-o", path, "-f", "-q", *options)
        assert status == 0, err
        found = read_capsule(path, path.name)
        if found is None:
            return out, None
        return out, {"set": found.set, "names": [picture.name.split()[0] for picture in found.pictures]}

    out, found = capsule()
    assert found == {"set": "made by code", "names": ["scene"] * 4}
    assert re.search(r"capsule +4 pictures, made by code, 0\.0[0-9] MB of the file; `vit-edge verify`", out)
    assert capsule("--capsule", "2")[1] == {"set": "calibrate", "names": ["photo"] * 2}
    folder = digits_images / "test" / "one"
    assert capsule("--capsule", folder)[1] == {"set": "one", "names": ["photo"] * 8}
    out, found = capsule("--capsule", "0")
    assert found is None
    assert "\n  capsule" not in out
    sentence = call.refused(*quick, "-o", tmp_path / "x.onnx", "-q", "--capsule", "65", status=2)
    assert "expected --capsule as a folder or a number of pictures from 0 to 64, got 65" in sentence
    sentence = call.refused(*quick, "-o", tmp_path / "x.onnx", "-q", "--capsule", "absent", status=1)
    assert "there is no folder absent" in sentence

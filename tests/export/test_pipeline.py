"""The export as a whole: a real network, real images, and what must happen when a step or a bound fails."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from vit_edge.checkpoint import Checkpoint, load_checkpoint
from vit_edge.data import labelled_images, list_images
from vit_edge.errors import DataError, ExportError, ImageError, OptionError
from vit_edge.evaluation import compare
from vit_edge.export import (
    DEFAULT_BOUNDS,
    Export,
    Options,
    Source,
    Step,
    Tick,
    export_module,
    pipeline,
    run,
    shipping,
)
from vit_edge.export.network import TorchNetwork
from vit_edge.export.passes import Pass
from vit_edge.export.verdict import veto
from vit_edge.reference import digest, torch_logits
from vit_edge.runtime import Classifier
from vit_edge.runtime.labels import Labels
from vit_edge.runtime.metadata import Metadata
from vit_edge.runtime.preprocess import Preprocessing
from vit_edge.training import BEST

from ..conftest import listing
from .broken import Abort, Fail, Scale, Segfault, Tear
from .networks import timm_vit, torchvision_vit, transformers_vit

PREPROCESSING = "resize=32,crop=32,interpolation=bicubic,mean=0.5,std=0.5"


@dataclass
class Workshop:
    """A network with its images; calling it exports: without the simplifier, on few images, at any speed,
    and without a search.
    """

    checkpoint: Checkpoint
    images: Path
    folder: Path

    def __call__(self, name: str = "model.onnx", **changes: Any) -> tuple[Export, list[Tick | Step]]:
        parts: dict[str, Any] = {"calibrate": self.images / "calibrate", "check": self.images / "test"}
        parts |= {key: changes.pop(key) for key in ("calibrate", "check", "labels") if key in changes}
        *events, result = run(
            TorchNetwork(self.checkpoint.model),
            labels=parts.pop("labels", self.checkpoint.labels),
            preprocessing=Preprocessing.parse(PREPROCESSING),
            output=self.folder / name,
            source=Source(BEST, self.checkpoint.sha256, self.checkpoint.config.to_dict()),
            options=Options(
                **{"simplify": False, "samples": 16, "min_speedup": 0.0, "budget_s": 0.0} | changes
            ),
            **parts,
        )
        assert isinstance(result, Export)
        assert not any(isinstance(event, Export) for event in events)
        return result, events  # type: ignore[return-value]


@pytest.fixture(autouse=True)
def traced_once(monkeypatch: pytest.MonkeyPatch, one_torch_thread: None) -> None:
    """Trace the same network only once: it takes most of the time, and has its own tests."""
    from vit_edge.export import trace as module

    real = module.trace

    def trace(network: torch.nn.Module, **options: Any) -> onnx.ModelProto:
        key = (digest(network), *options.values())
        if key not in _TRACED:
            _TRACED[key] = real(network, **options)
        return _TRACED[key]

    monkeypatch.setattr(module, "trace", trace)


_TRACED: dict[tuple[Any, ...], onnx.ModelProto] = {}


@pytest.fixture
def workshop(digits_checkpoint: Path, digits_images: Path, tmp_path: Path) -> Workshop:
    return Workshop(load_checkpoint(digits_checkpoint), digits_images, tmp_path)


def metadata(path: Path) -> Metadata:
    with Classifier(path) as classifier:
        return classifier.metadata


def classes(path: Path, images: Path) -> list[str]:
    with Classifier(path) as classifier:
        return [prediction.label for prediction in classifier(list(list_images(images)))]


def test_the_file_answers_right_on_images_that_nobody_has_seen(
    digits_model: Path, digits_images: Path
) -> None:
    """The whole product in one line: weights in, right answers out, by the runtime alone."""
    with Classifier(digits_model) as classifier:
        samples = labelled_images(digits_images / "test", classifier.labels)
        answers = [classifier(sample.path).index for sample in samples]
    right = sum(answer == sample.target for answer, sample in zip(answers, samples, strict=True))
    assert right > 0.8 * len(samples)


def test_everything_that_a_device_needs_is_in_the_file(
    digits_export: Export, digits_checkpoint: Path, digits_images: Path
) -> None:
    """The checkpoint, the images and the maker may all be gone when the file is looked at again."""
    assert digits_export.path.stat().st_size == digits_export.bytes
    written = metadata(digits_export.path)
    checkpoint = load_checkpoint(digits_checkpoint)
    assert written.labels == checkpoint.labels
    assert written.preprocessing == checkpoint.preprocessing == Preprocessing.parse(PREPROCESSING)
    assert written.source["sha256"] == hashlib.sha256(digits_checkpoint.read_bytes()).hexdigest()
    assert written.source["name"] == digits_checkpoint.name
    assert written.source["network"]["width"] == checkpoint.config.width
    assert written.recipe["precision"] == digits_export.precision == "int8"
    assert written.recipe["steps"][0] == "Trace"
    assert "Simplify()" in written.recipe["steps"]
    assert written.recipe["steps"][-1].startswith("QuantizeDynamic(")
    assert written.recipe["opset"] == 20
    assert written.recipe["batch"] == "any"
    assert written.recipe["oldest_onnxruntime"] == "1.17"
    assert written.proof["bounds"]["min_agreement"] == DEFAULT_BOUNDS["int8"].min_agreement
    assert (written.proof["calibration"]["set"], written.proof["check"]["set"]) == ("calibrate", "test")


def test_the_proof_in_the_file_is_what_a_new_measurement_gives(
    digits_export: Export, digits_checkpoint: Path, digits_images: Path
) -> None:
    """Numbers that nobody can reproduce prove nothing."""
    model = load_checkpoint(digits_checkpoint).model
    with Classifier(digits_export.path) as classifier:
        samples = labelled_images(digits_images / "test", classifier.labels)
        pixels = [np.asarray(classifier.pixels(sample.path)[None], np.float32) for sample in samples]
        reference = np.concatenate([torch_logits(model, image) for image in pixels])
        answers = np.concatenate([classifier.logits(image) for image in pixels])
        written = classifier.metadata.proof
        fives = np.concatenate(
            [
                classifier.logits(np.concatenate(pixels[start : start + 5]))
                for start in range(0, len(pixels), 5)
            ]
        )
    again = compare(reference, answers, [sample.target or 0 for sample in samples])
    assert written["check"] == {"set": "test", **again.to_dict()}
    assert digits_export.comparison == again
    assert written["calibration"]["images"] == len(list_images(digits_images / "calibrate"))
    assert written["batched"] == {"batch": 5, "agreement_with_alone": digits_export.batched_agreement}
    assert compare(answers, fives).agreement >= 0.95


def test_every_step_is_measured_against_torch(digits_export: Export) -> None:
    """A step that is not measured is where the answers get lost."""
    assert len(digits_export.steps) >= 3
    for step in digits_export.steps:
        # So small a network gains nothing by some rewrites.
        assert step.problem is None or "does not pay" in step.problem, step
        assert step.comparison is not None
        assert step.comparison.images in (32, 80)
        assert step.bytes > 0
        assert step.seconds >= 0
    exact = (
        "Trace",
        "Simplify",
        "SplitGemm",
        "Unflatten",
        "FuseAttention",
        "ClassTokenOnly",
        "MigrateScales",
    )
    float32 = [step.comparison for step in digits_export.steps if step.name.startswith(exact)]
    assert len(float32) >= 8
    assert all(comparison is not None and comparison.drift < 1e-5 for comparison in float32)


def test_the_candidates_are_in_the_file_and_the_chosen_one_shipped(digits_export: Export) -> None:
    """How the search decided is part of the proof: its table, what was taken, and by which preference."""
    recipes = [row.recipe for row in digits_export.candidates]
    assert len(recipes) == len(set(recipes)) > 8
    assert recipes[:4] == [
        "dynamic",
        "dynamic, migrated 0.5",
        "dynamic, migrated 0.7",
        "dynamic, migrated 0.9",
    ]
    assert any(recipe.startswith("static minmax") for recipe in recipes)
    assert any("scaled per token" in recipe for recipe in recipes)
    assert any("rounding learned" in recipe for recipe in recipes)
    assert any("in float" in recipe for recipe in recipes)
    proof = metadata(digits_export.path).proof
    assert proof["candidates"] == [row.to_dict() for row in digits_export.candidates]
    assert (proof["chosen"], proof["pick"]) == (digits_export.chosen, "balanced")
    assert digits_export.chosen is not None
    chosen = digits_export.candidates[digits_export.chosen]
    assert chosen.comparison.drift == proof["calibration"]["drift"]
    assert (chosen.latency_ms, chosen.problem) == (digits_export.latency_ms, None)
    assert digits_export.complete


@pytest.mark.slow
def test_after_a_veto_the_next_candidate_is_tried(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph that holds alone and not in a batch is no reason to ship four times the bytes."""
    real, seen = veto, list[onnx.ModelProto]()

    def against_the_first(model: onnx.ModelProto, *args: Any, **options: Any) -> Any:
        verdict = yield from real(model, *args, **options)
        seen.append(model)
        if len(seen) == 1:
            verdict.problem = "in batches of 2, 1.00 % of the images keep their answer"
        return verdict

    monkeypatch.setattr(shipping, "veto", against_the_first)
    result, _ = workshop(budget_s=60.0, min_agreement=0.9)
    assert (result.precision, result.reason, len(seen)) == ("int8", None, 2)
    vetoed = [place for place, row in enumerate(result.candidates) if row.problem is not None]
    assert result.chosen is not None
    assert result.chosen not in vetoed
    assert "in batches of 2" in " ".join(str(result.candidates[place].problem) for place in vetoed)


@pytest.mark.slow
def test_every_preference_ships_what_it_names(workshop: Workshop) -> None:
    """Whoever asks for the smallest file or the closest answers gets just that."""
    for pick in ("closest", "smallest"):
        result, _ = workshop(f"{pick}.onnx", pick=pick, budget_s=60.0, precision="int8", min_agreement=0.9)
        able = [row for row in result.candidates if row.problem is None]
        assert result.chosen is not None
        chosen = result.candidates[result.chosen]
        assert chosen.best
        if pick == "closest":
            assert chosen.comparison.drift == min(row.comparison.drift for row in able)
        else:
            assert chosen.bytes == min(row.bytes for row in able)


def test_the_layers_are_ranked_in_the_report(digits_export: Export) -> None:
    """Which layer costs the answers is what an engineer wants to know next."""
    ranking = digits_export.to_dict()["sensitivities"]
    # The last block has three layers for one where it pays to compute it for the class token alone.
    assert len(ranking) in (3 * 4 + 1, 3 * 4 + 3)
    drifts = [layer["without"] for layer in ranking]
    assert drifts == sorted(drifts)
    assert json.dumps(digits_export.to_dict())


def test_a_budget_of_nothing_still_gives_a_file_and_says_that_it_was_cut_short(workshop: Workshop) -> None:
    """Time that runs out costs the better candidate, never the export."""
    result, _ = workshop(precision="int8")
    assert [row.recipe for row in result.candidates] == ["dynamic"]
    assert not result.complete


def test_int8_ships_where_it_keeps_its_bounds(workshop: Workshop) -> None:
    """And then without a reason for anything else."""
    result, events = workshop()
    assert (result.precision, result.reason) == ("int8", None)
    assert "not_int8" not in metadata(result.path).proof
    assert result.bytes < 0.6 * load_size(workshop)
    ticks = [event for event in events if isinstance(event, Tick)]
    assert all(0 <= tick.done <= tick.total for tick in ticks)
    assert {tick.stage for tick in ticks} >= {"tracing", "torch's answers on calibrate", "batches of 5"}


def load_size(workshop: Workshop) -> int:
    return sum(parameter.numel() * 4 for parameter in workshop.checkpoint.model.parameters())


def test_auto_ships_float32_with_the_reason_where_int8_breaks_a_bound(workshop: Workshop) -> None:
    """A user is never left with a model that they did not ask for and don't know why."""
    result, _ = workshop(max_drift=1e-6)
    assert result.precision == "float32"
    assert result.reason is not None
    assert re.search(r"int8 broke its bound: logit drift 0\.\d+, at most 1e-06 wanted", result.reason)
    assert result.comparison.flips == ()
    assert result.comparison.max_abs_drift < 1e-3
    written = metadata(result.path)
    assert written.proof["not_int8"] == result.reason
    assert written.recipe["precision"] == "float32"
    assert not [step for step in written.recipe["steps"] if step.startswith("Quantize")]
    assert not [node for node in onnx.load(result.path).graph.node if "Integer" in node.op_type]
    # The bound was for INT8; what float32 was held to is its own.
    assert written.proof["bounds"]["max_drift"] == DEFAULT_BOUNDS["float32"].max_drift


def test_an_explicit_precision_that_breaks_its_bound_stops(workshop: Workshop) -> None:
    """Somebody who asks for INT8 in a script has no use for four times the size, found out later."""
    for precision in ("int8", "float16"):
        with pytest.raises(ExportError, match=rf"^{precision} broke its bound: logit drift .* --max-drift"):
            workshop(precision=precision, max_drift=1e-7)
    assert not listing(workshop.folder)


def test_images_of_the_check_veto_what_the_calibration_let_pass(workshop: Workshop) -> None:
    """A gain of a point is asked for: calibration images have no labels and cannot see that it isn't reached."""
    free, _ = workshop("free.onnx", check=None, max_drop=-1.0)
    assert (free.precision, free.checked_on) == ("int8", "calibrate")
    assert free.comparison.accuracy is None
    assert "check" not in metadata(free.path).proof
    vetoed, _ = workshop("vetoed.onnx", max_drop=-1.0)
    assert (vetoed.precision, vetoed.checked_on) == ("float32", "test")
    assert vetoed.reason is not None
    assert "on 120 images, at most -1 wanted" in vetoed.reason
    recipe = metadata(vetoed.path).recipe
    assert not [step for step in recipe["steps"] if step.startswith("Quantize")], recipe


def test_images_of_the_check_choose_nothing(workshop: Workshop) -> None:
    """What vetoes must not fit as well, or the proof is one on its own training set."""
    # For a provider that is not at hand, since times may decide as well.
    with_check, _ = workshop("first.onnx", targets=("openvino",))
    without, _ = workshop("second.onnx", check=None, targets=("openvino",))
    graphs = [
        onnx.load(result.path).graph.SerializeToString(deterministic=True) for result in (with_check, without)
    ]
    assert graphs[0] == graphs[1]


def test_images_with_labels_alone_are_enough(workshop: Workshop) -> None:
    """Many have one folder of images, and it is labelled."""
    result, _ = workshop(calibrate=None)
    assert result.checked_on == "test"
    assert result.comparison.images == 120
    assert result.comparison.accuracy is not None
    assert result.steps[0].comparison is not None
    assert result.steps[0].comparison.images == 16


def test_an_export_without_any_image_is_refused(workshop: Workshop) -> None:
    """No real image, no proof; and there is no default that would be one."""
    with pytest.raises(OptionError, match=r"--calibrate, or .* --check"):
        workshop(calibrate=None, check=None)
    assert not listing(workshop.folder)


def test_half_precision_is_checked_like_all_others(workshop: Workshop) -> None:
    """It is for processors with half-precision units, and its drift is between the two others'."""
    result, _ = workshop(precision="float16")
    assert result.precision == "float16"
    assert 1e-6 < result.comparison.drift < DEFAULT_BOUNDS["float16"].max_drift
    assert result.bytes < 0.7 * load_size(workshop)
    assert classes(result.path, workshop.images / "test" / "seven").count("seven") >= 8


def test_the_batch_axis_takes_1_2_and_5(workshop: Workshop) -> None:
    """Whatever ships, not only the traced graph: passes can bake a batch in as well."""
    for precision in ("float32", "int8"):
        result, _ = workshop(f"{precision}.onnx", precision=precision)
        with Classifier(result.path) as classifier:
            assert classifier.batch is None
            images = list_images(workshop.images / "test")[:5]
            pixels = np.stack([classifier.pixels(path) for path in images])
            for size in (1, 2, 5):
                assert classifier.logits(pixels[:size]).shape == (size, 10)


def test_a_fixed_batch_is_exported_and_answers_single_images(workshop: Workshop) -> None:
    """One image's answer is then the one that it gets beside copies of itself, and the file says which batch."""
    result, _ = workshop(batch=3)
    assert (result.precision, result.batched_agreement) == ("int8", None)
    assert metadata(result.path).recipe["batch"] == 3
    with Classifier(result.path) as classifier:
        assert classifier.batch == 3
    assert classes(result.path, workshop.images / "test" / "zero").count("zero") >= 8


def test_labels_of_another_number_are_refused(workshop: Workshop) -> None:
    """One class too few shifts none of the answers and names all of them wrong."""
    nine = Labels.of([f"digit {index}" for index in range(9)])
    with pytest.raises(OptionError, match="the model has 10 outputs but 9 labels were given"):
        workshop(labels=nine, check=None)
    assert not listing(workshop.folder)


def test_an_existing_file_is_refused_before_the_work_and_left_alone(workshop: Workshop) -> None:
    """The refusal comes before the tracing, and even the time of the file stays."""
    path = workshop.folder / "model.onnx"
    path.write_bytes(b"last night's")
    before = path.stat()
    with pytest.raises(OptionError, match=r"model\.onnx exists; give --force"):
        workshop()
    assert path.read_bytes() == b"last night's"
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    result, _ = workshop(force=True, precision="float32", check=None)
    assert result.path == path
    assert listing(workshop.folder) == ["model.onnx"]


def test_a_failed_export_leaves_the_old_file_in_spite_of_force(workshop: Workshop) -> None:
    """Force is permission to replace it with something better, not with nothing."""
    path = workshop.folder / "model.onnx"
    path.write_bytes(b"last night's")
    with pytest.raises(ExportError, match="int8 broke its bound"):
        workshop(force=True, precision="int8", max_drift=1e-7, check=None)
    assert path.read_bytes() == b"last night's"
    assert listing(workshop.folder) == ["model.onnx"]


def test_a_missing_output_folder_is_told_before_the_work(workshop: Workshop) -> None:
    """An hour of work must not end on a typing error in the path."""
    with pytest.raises(OptionError, match=r"there is no folder .*absent; make it"):
        workshop("absent/model.onnx")


def test_a_broken_image_is_named(workshop: Workshop, tmp_path: Path) -> None:
    """Among thousands, the one that cannot be read has to be found."""
    folder = tmp_path / "calibrate"
    shutil.copytree(workshop.images / "calibrate" / "one", folder)
    (folder / "half.png").write_bytes((next(folder.iterdir())).read_bytes()[:60])
    with pytest.raises(ImageError, match=r"half\.png"):
        workshop(calibrate=folder, check=None)
    (folder.parent / "empty").mkdir()
    with pytest.raises(DataError, match="expected images"):
        workshop(calibrate=folder.parent / "empty", check=None)
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        (Scale(0.5), "agreement|logit drift"),
        (Tear(), "ONNX Runtime cannot run the graph"),
        (Fail(), r"Fail\(.*\) failed \(ValueError: the shapes do not fit\)"),
        (Segfault(), r"Segfault\(\) crashed \(SIGSEGV\)"),
        (Abort(), r"Abort\(\) crashed \(SIGABRT\)"),
    ],
    ids=repr,
)
def test_a_step_that_does_harm_is_left_out_by_name(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, step: Pass, problem: str
) -> None:
    """A simplifier that crashes, or moves the answers, costs the simplification and never the export."""
    monkeypatch.setattr(pipeline, "Simplify", lambda: step)
    result, _ = workshop(simplify=True, precision="float32", check=None)
    (undone,) = [one for one in result.steps if one.name == repr(step)]
    assert undone.problem is not None
    assert re.search(problem, undone.problem)
    assert result.comparison.flips == ()
    assert metadata(result.path).recipe["steps"] == ["Trace"]


@pytest.mark.slow
def test_the_same_network_and_images_give_the_same_file(workshop: Workshop) -> None:
    """Whoever has the checkpoint can then prove that a file was made from it.

    For a provider that is not at hand, that is: where graphs are timed, the times differ, and may decide.
    """
    files = []
    for name in ("first.onnx", "second.onnx"):
        _TRACED.clear()
        result, _ = workshop(name, simplify=True, precision="int8", targets=("openvino",), budget_s=60.0)
        assert result.complete
        files.append(result.path.read_bytes())
    assert files[0] == files[1]


def test_an_int8_graph_that_is_not_faster_does_not_ship(workshop: Workshop) -> None:
    """On some processors it is slower than float32, and then all that it does is lose answers."""
    result, _ = workshop(min_speedup=1000.0)
    assert result.precision == "float32"
    assert result.reason is not None
    assert "at least 1000 times as fast wanted" in result.reason
    assert metadata(result.path).proof["not_int8"] == result.reason
    with pytest.raises(ExportError, match=r"int8 broke its bound: an answer takes .* --min-speedup"):
        workshop("other.onnx", precision="int8", min_speedup=1000.0)
    assert listing(workshop.folder) == ["model.onnx"]


def test_a_massive_channel_is_taken_out_of_int8_alone(workshop: Workshop) -> None:
    """Planted behind a GELU, it would leave all other channels of that layer without a scale."""
    mlp: Any = workshop.checkpoint.model.blocks[1].mlp
    with torch.no_grad():
        mlp.fc1.bias[5] = 400.0
        mlp.fc2.bias -= 400.0 * mlp.fc2.weight[:, 5]
    planted, _ = workshop("planted.onnx", precision="int8")
    handled = [step for step in planted.steps if re.search(r"\(.*\w.*\)", step.name)]
    assert handled, planted.steps
    assert all(step.problem is None for step in handled)
    with torch.no_grad():
        mlp.fc2.bias += 400.0 * mlp.fc2.weight[:, 5]
        mlp.fc1.bias[5] = 0.0
    plain, _ = workshop("plain.onnx", precision="int8", check=None)
    weights = mlp.fc2.weight.detach().numpy().T  # (channels, outputs)
    apart, before = (taken_out(one.path, weights) for one in (planted, plain))
    # The network may have massive channels of its own.
    assert apart == before | {5}
    assert 5 not in before
    assert planted.comparison.drift < 3 * plain.comparison.drift + 0.01


def taken_out(path: Path, weights: NDArray[np.float32]) -> set[int]:
    """Give the channels of a layer, (channels, outputs), whose weights some product of a file has in float."""
    graph = onnx.load(path).graph
    products = {node.input[1] for node in graph.node if node.op_type == "MatMul"}
    found = [numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.name in products]
    rows = [row for rows in found if rows.ndim == 2 and rows.shape[1] == weights.shape[1] for row in rows]
    return {place for place, own in enumerate(weights) if any(np.array_equal(own, row) for row in rows)}


@pytest.mark.parametrize("make", [timm_vit, torchvision_vit, transformers_vit])
def test_a_module_of_any_library_is_exported_in_one_call(
    digits_images: Path, tmp_path: Path, make: Callable[..., torch.nn.Module]
) -> None:
    """Names and preprocessing come with the call; the network may come out of its training as it is."""
    torch.manual_seed(0)
    module = make(depth=2, classes=10).train()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    names = [f"n0000000{index} digit {index}" for index in range(10)]
    result = export_module(
        module,
        tmp_path / "model.onnx",
        labels=names,
        preprocessing=PREPROCESSING,
        calibrate=str(digits_images / "calibrate"),
        options=Options(precision="float32", samples=8, simplify=False),
    )
    assert module.training
    assert result.comparison.flips == ()
    with Classifier(result.path) as classifier:
        assert classifier.labels == Labels.of(names)
        assert classifier.labels[3].id == "n00000003"
        assert classifier.metadata.source["sha256"] == digest(module)
        assert classifier.metadata.source["name"] == type(module).__name__
        for path in list_images(digits_images / "test")[::30]:
            pixels = np.asarray(classifier.pixels(path)[None], np.float32)
            np.testing.assert_allclose(classifier.logits(pixels), torch_logits(module, pixels), atol=1e-4)


def test_the_digest_is_of_the_weights() -> None:
    """It has to change with one bit of one weight, and with nothing else."""
    torch.manual_seed(0)
    layer, twin = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    twin.load_state_dict(layer.state_dict())
    assert digest(layer) == digest(twin)
    with torch.no_grad():
        twin.weight[1, 2] += 1e-6
    assert digest(layer) != digest(twin)
    assert len(digest(layer)) == 64

"""The search as a whole: on networks of other sizes, with massive channels in other places, and for every target."""

import json
import os
import re
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from vit_edge.checkpoint import Checkpoint, load_checkpoint
from vit_edge.data import list_images
from vit_edge.errors import ExportError, OptionError
from vit_edge.evaluation import compare
from vit_edge.export import (
    DEFAULT_BOUNDS,
    Export,
    Options,
    Source,
    Step,
    Tick,
    int8,
    run,
    speed,
)
from vit_edge.export import trace as tracing
from vit_edge.export.graph import linears, named
from vit_edge.export.images import Runner
from vit_edge.export.network import TorchNetwork
from vit_edge.export.passes import QuantizeDynamic, SplitGemm
from vit_edge.models import ViT, ViTConfig
from vit_edge.reference import digest, torch_logits
from vit_edge.runtime import Classifier, timing
from vit_edge.runtime.image import read_image
from vit_edge.runtime.labels import Labels
from vit_edge.runtime.preprocess import Preprocessing, preprocess

from ..conftest import DIGITS

# Every one of them exports networks.
pytestmark = pytest.mark.slow

PREPROCESSING = Preprocessing.parse("resize=32,crop=32,interpolation=bicubic,mean=0.5,std=0.5")

# So much the planted channels dwarf the others, and so the place of the channel; a power of two scales exactly.
_FACTOR, _CHANNEL = 128.0, 5


Race = Generator[Tick, None, tuple[float, ...]]


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Trace each network once, take rewrites to pay, and time candidates for a moment only.

    What pays on so small networks is chance.
    """
    real, traced = tracing.trace, dict[tuple[Any, ...], onnx.ModelProto]()

    def race(models: Any, pixels: Any, stage: str = "timing") -> Race:
        if stage == "timing rewrites":
            return tuple(float(place) for place in range(len(models), 0, -1))
        return (yield from speed.race(models, pixels, stage))

    def trace(network: torch.nn.Module, **options: Any) -> onnx.ModelProto:
        key = (digest(network), *options.values())
        if key not in traced:
            traced[key] = real(network, **options)
        return traced[key]

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracing, "trace", trace)
        patch.setattr(int8, "race", race)
        patch.setattr(timing, "_ROUNDS", 2)
        patch.setattr(timing, "_TURN_S", 0.002)
        yield
    torch.set_num_threads(threads)


class Exporter:
    """Exports a module for digits, on few images, at any speed and without a search, unless told otherwise."""

    def __init__(self, images: Path, folder: Path) -> None:
        self.images, self.folder = images, folder

    def __call__(self, module: torch.nn.Module, **changes: Any) -> Export:
        (result,) = self.several(module, **changes)
        return result

    def several(self, module: torch.nn.Module, *, name: str = "model.onnx", **changes: Any) -> list[Export]:
        options: dict[str, Any] = {
            "precision": "int8",
            "simplify": False,
            "samples": 16,
            "min_speedup": 0.0,
            "budget_s": 0.0,
            "force": True,
        }
        batched = changes.pop("min_batched_agreement", DEFAULT_BOUNDS["int8"].min_batched_agreement)
        chosen = Options(**options | changes)
        chosen.bounds["int8"] = replace(chosen.bounds["int8"], min_batched_agreement=batched)
        events = list(
            run(
                TorchNetwork(module),
                labels=Labels.of(DIGITS),
                preprocessing=PREPROCESSING,
                output=self.folder / name,
                source=Source("digits", digest(module), {}),
                calibrate=self.images / "calibrate",
                check=None,
                options=chosen,
            )
        )
        assert all(isinstance(event, Tick | Step | Export) for event in events)
        return [event for event in events if isinstance(event, Export)]


@pytest.fixture(scope="module")
def export(digits_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Exporter:
    return Exporter(digits_images, tmp_path_factory.mktemp("search"))


@pytest.fixture(scope="module")
def digits(digits_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(digits_checkpoint)


# Networks of other sizes have learnt nothing, and so may change more answers, in batches as well.
RANDOM: dict[str, Any] = {"min_agreement": 0.5, "min_batched_agreement": 0.5, "samples": 32}

SIZES = {
    "three blocks": ViTConfig((32, 32), 8, width=48, depth=3, heads=3, mlp_width=96, classes=10),
    "two wide blocks": ViTConfig((32, 32), 16, width=64, depth=2, heads=2, mlp_width=256, classes=10),
    "four narrow blocks": ViTConfig((32, 32), 8, width=32, depth=4, heads=1, mlp_width=64, classes=10),
}


def network(size: str) -> ViT:
    torch.manual_seed(0)
    model = ViT(SIZES[size])
    for name, parameter in model.named_parameters():
        if "norm" not in name:
            torch.nn.init.normal_(parameter, std=0.15 if parameter.ndim > 1 else 0.1)
    return model.eval()


Plant = Callable[[Any, int], None]


def behind_gelu(model: Any, block: int) -> None:
    """GELU is the identity far from 0: a large bias there is a constant that the next layer takes off again."""
    mlp = model.blocks[block].mlp
    mlp.fc1.bias[_CHANNEL] = _FACTOR
    mlp.fc2.bias -= _FACTOR * mlp.fc2.weight[:, _CHANNEL]


def behind_attention(model: Any, block: int) -> None:
    """Each channel of the result mixes one channel of the values."""
    attention, width = model.blocks[block].attn, model.config.width
    attention.qkv.weight[2 * width + _CHANNEL] *= _FACTOR
    attention.qkv.bias[2 * width + _CHANNEL] *= _FACTOR
    attention.proj.weight[:, _CHANNEL] /= _FACTOR


def before_attention(model: Any, block: int) -> None:
    _scale(model.blocks[block].norm1, model.blocks[block].attn.qkv)


def before_gelu(model: Any, block: int) -> None:
    _scale(model.blocks[block].norm2, model.blocks[block].mlp.fc1)


def _scale(norm: Any, linear: Any) -> None:
    norm.weight[_CHANNEL] *= _FACTOR
    norm.bias[_CHANNEL] *= _FACTOR
    linear.weight[:, _CHANNEL] /= _FACTOR


def planted(size: str, plant: Plant, block: int) -> ViT:
    model = network(size)
    with torch.no_grad():
        plant(model, block)
    return model


def matrices(model: onnx.ModelProto) -> list[tuple[int, ...]]:
    """Give the shapes of the matrices that products take in float, those of single channels left out."""
    chosen = {linear.weight for linear in linears(model)}
    shapes = [tuple(tensor.dims) for tensor in model.graph.initializer if tensor.name in chosen]
    return [shape for shape in shapes if shape[0] > 1]


def apart(model: onnx.ModelProto) -> list[tuple[str, int, tuple[int, ...]]]:
    """Give where channels stand apart: what kind of node they come from, which one of its kind, and the channels."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    found = []
    for node in model.graph.node:
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
        if node.op_type == "Gather" and axis == -1:
            maker = makers[node.input[0]]
            while maker.op_type in ("Reshape", "Transpose", "Gather", "Squeeze", "Unsqueeze"):
                maker = makers[maker.input[0]]
            alike = [one.name for one in model.graph.node if kind(one) == kind(maker)]
            channels = numpy_helper.to_array(constants[node.input[1]]).ravel().tolist()
            found.append((kind(maker), alike.index(maker.name), tuple(channels)))
    return found


def kind(node: onnx.NodeProto) -> str:
    return "attention" if node.op_type in ("Attention", "QAttention", "MultiHeadAttention") else node.op_type


def naive(module: ViT, export: Exporter) -> float:
    """Give the drift of the network with every product quantized as it stands."""
    graph = named(tracing.trace(module, size=(32, 32), opset=20))
    runner = Runner(QuantizeDynamic()(named(SplitGemm()(graph))))
    paths = list_images(export.images / "calibrate")[::8]
    pixels = [preprocess(read_image(path), PREPROCESSING)[None] for path in paths]
    reference = np.concatenate([torch_logits(module, image) for image in pixels])
    return compare(reference, np.concatenate([runner(image) for image in pixels])).drift


@pytest.fixture(scope="module")
def plain(export: Exporter) -> dict[str, Export]:
    """Give the networks without massive channels, quantized in the simplest way."""
    return {size: export(network(size), name=f"{size}.onnx", **RANDOM) for size in SIZES}


def test_nothing_is_split_where_nothing_is_massive(plain: dict[str, Export]) -> None:
    """Channels taken out without need cost time on the device, and layers in float four times their size."""
    for result in plain.values():
        model = onnx.load(result.path)
        assert not [step.name for step in result.steps if step.name.startswith("SplitChannels")]
        assert (apart(model), matrices(model)) == ([], [])
        assert result.comparison.drift < DEFAULT_BOUNDS["int8"].max_drift


@pytest.mark.parametrize(
    ("size", "plant", "block", "found"),
    [
        ("three blocks", behind_gelu, 0, ("Gelu", 0)),
        ("three blocks", behind_gelu, 1, ("Gelu", 1)),
        ("three blocks", behind_gelu, 2, ("Gelu", 2)),
        ("two wide blocks", behind_gelu, 1, ("Gelu", 1)),
        ("four narrow blocks", behind_gelu, 1, ("Gelu", 1)),
        ("three blocks", behind_attention, 0, ("attention", 0)),
        ("four narrow blocks", behind_attention, 2, ("attention", 2)),
        ("three blocks", before_gelu, 1, ("LayerNormalization", 3)),
    ],
)
def test_massive_channels_are_taken_out_wherever_they_are(
    export: Exporter, plain: dict[str, Export], size: str, plant: Plant, block: int, found: tuple[str, int]
) -> None:
    """Each network has them elsewhere; found there and taken out, they cost nothing."""
    module = planted(size, plant, block)
    result = export(module, **RANDOM)
    model = onnx.load(result.path)
    assert apart(model) == [(*found, (_CHANNEL,))]
    assert matrices(model) == []
    without = plain[size].comparison.drift
    assert result.comparison.drift < 1.3 * without + 0.003
    assert naive(module, export) > 2 * without


@pytest.mark.parametrize(
    ("size", "block"), [("three blocks", 0), ("three blocks", 2), ("four narrow blocks", 1)]
)
def test_massive_channels_in_front_of_attention_move_into_its_weights(
    export: Exporter, plain: dict[str, Export], size: str, block: int
) -> None:
    """Out of a fused product no channel can be taken, and in float it costs four times the size and its time."""
    module = planted(size, before_attention, block)
    result = export(module, budget_s=60.0, pick="smallest", **RANDOM)
    assert matrices(onnx.load(result.path)) == []
    without = plain[size].comparison.drift
    assert result.comparison.drift < 1.3 * without + 0.003
    assert naive(module, export) > 2 * without


@pytest.fixture(scope="module")
def searched(export: Exporter) -> Export:
    """Give a whole search, token merging included."""
    return export(network("three blocks"), budget_s=60.0, merge_tokens="auto", pick="closest", **RANDOM)


def floats(recipe: str) -> int:
    match = re.search(r"(\d+) in float", recipe)
    return int(match[1]) if match else 0


def test_layers_go_back_to_float_until_the_drift_is_kept(export: Exporter, searched: Export) -> None:
    """As many as it takes, and not where less would do; layers with scales per token are no exception."""
    quantized = min(row.comparison.drift for row in searched.candidates if not floats(row.recipe))
    bound = 0.6 * quantized
    result = export(network("three blocks"), budget_s=60.0, pick="smallest", max_drift=bound, **RANDOM)
    assert result.chosen is not None
    chosen = result.candidates[result.chosen]
    assert result.comparison.drift <= bound
    count = floats(chosen.recipe)
    assert len(matrices(onnx.load(result.path))) == count > 0
    assert all(row.problem for row in result.candidates if floats(row.recipe) < count)


def test_merging_is_tried_on_the_best_recipe(searched: Export) -> None:
    """Which schedule bears is a question of the network: a few are in the table, measured as all else."""
    merged = [row.recipe for row in searched.candidates if "merged" in row.recipe]
    assert merged
    (start,) = {recipe.partition(", merged")[0] for recipe in merged}
    assert start in [row.recipe for row in searched.candidates]
    assert searched.complete


def test_a_schedule_that_was_asked_for_ships_or_stops(export: Exporter, digits: Checkpoint) -> None:
    """Whoever names blocks and tokens wants just that, even when there is no time to search, or to be told why not."""
    result = export(digits.model, merge_tokens="0:3", max_drift=0.5, min_agreement=0.5)
    assert [row.recipe for row in result.candidates] == ["dynamic", "dynamic, merged 0:3"]
    assert result.chosen == 1
    assert [step for step in steps(result.path) if step.startswith("MergeTokens(")]
    tight: dict[str, Any] = {
        "precision": "auto",
        "merge_tokens": "0:3",
        "max_drift": 1e-6,
        "min_agreement": 0.5,
    }
    with pytest.raises(ExportError, match=r"^int8 broke its bound: logit drift"):
        export(digits.model, **tight)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"merge_tokens": "9:3"}, r"blocks 0 to 1 of 3.* got block 9; choose an earlier one"),
        ({"merge_tokens": "0:16"}, r"at most 8 of the 17 tokens in block 0.* got 16"),
        ({"merge_tokens": "0"}, "expected a schedule as BLOCK:TOKENS"),
        ({"merge_tokens": "0:3", "precision": "float32"}, "tokens are merged in INT8 graphs, not in float32"),
        ({"merge_tokens": "0:3", "targets": ("cpu", "openvino")}, "not for openvino; leave out"),
        ({"merge_tokens": "auto", "precision": "auto", "targets": ("coreml",)}, "not for coreml; leave out"),
        ({"targets": ("coreml",)}, "the target coreml does not run INT8"),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(value),
)
def test_what_cannot_be_done_is_refused(
    export: Exporter, digits: Checkpoint, changes: dict[str, Any], sentence: str
) -> None:
    """Before the search, and never left out in silence."""
    with pytest.raises(OptionError, match=sentence):
        export(digits.model, **changes)


@pytest.fixture(scope="module")
def variants(export: Exporter, digits: Checkpoint) -> dict[str, Export]:
    """Give a file for each target that is not this interpreter's, all from one call."""
    targets = ("cpu-avx2", "openvino", "tensorrt", "qnn", "coreml")
    results = export.several(digits.model, targets=targets, precision="auto")
    assert [result.target for result in results] == list(targets)
    return {result.target: result for result in results}


@pytest.mark.parametrize("name", ["openvino", "tensorrt", "qnn"])
def test_static_targets_get_a_file_of_standard_operators_that_keeps_its_bounds(
    variants: dict[str, Export], name: str
) -> None:
    """These providers leave others' operators to the processor; and where none of them is here, the file says so."""
    result = variants[name]
    assert (result.precision, result.reason) == ("int8", None)
    bounds = DEFAULT_BOUNDS["int8"]
    assert bounds.broken_by(result.comparison) is None
    model = onnx.load(result.path)
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    roundings = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert len(roundings) > 8
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    zero_points = [constants[node.input[2]] for node in roundings]
    if name == "tensorrt":
        assert all(point.dtype == np.int8 and not point.any() for point in zero_points)
    else:
        assert any(point.any() for point in zero_points)
    assert (result.latency_ms, result.float32_ms) == (None, None)
    assert all(row.latency_ms is None for row in result.candidates)
    with Classifier(result.path) as classifier:
        written = classifier.metadata
    assert "latency_ms" not in written.proof
    assert (written.recipe["target"], written.recipe["provider"]) == (name, "CPUExecutionProvider")


def test_weights_for_processors_without_vnni_leave_room_for_sums(variants: dict[str, Export]) -> None:
    """There two products of an unsigned and a signed byte are added in 16 bits."""
    model = onnx.load(variants["cpu-avx2"].path)
    weights = [
        numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 2
    ]
    assert len(weights) > 8
    assert min(weight.min() for weight in weights) >= -64
    assert max(weight.max() for weight in weights) <= 64


def test_core_ml_gets_half_precision(variants: dict[str, Export]) -> None:
    """Its provider runs no INT8 graph, and its accelerator computes in float16 anyway."""
    result = variants["coreml"]
    assert (result.precision, result.candidates) == ("float16", ())
    assert DEFAULT_BOUNDS["float16"].broken_by(result.comparison) is None
    assert not [node for node in onnx.load(result.path).graph.node if "Quantize" in node.op_type]


def test_each_files_steps_are_its_own(variants: dict[str, Export]) -> None:
    """A report that mixes the steps of several files explains none of them."""
    for result in variants.values():
        names = [step.name for step in result.steps]
        assert names[0] == "Trace"
        assert names.count("Trace") == 1
        kept = [name for name in steps(result.path) if name != "Trace"]
        assert all(names.count(name) >= kept.count(name) for name in kept)
        assert names.count("SplitGemm()") == (0 if result.target == "coreml" else 1)


def steps(path: Path) -> list[str]:
    entries = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    return list(json.loads(entries["vit_edge.recipe"])["steps"])


@pytest.mark.parametrize("batch", [None, 3])
@pytest.mark.parametrize(
    ("precision", "target"), [("float32", "cpu"), ("float16", "cpu"), ("int8", "cpu"), ("int8", "openvino")]
)
def test_every_graph_can_take_raw_pixels(
    export: Exporter, digits: Checkpoint, precision: str, target: str, batch: int | None
) -> None:
    """A camera's bytes go in as they are, and the answers are those of the network."""
    result = export(digits.model, input="uint8", precision=precision, targets=(target,), batch=batch)
    model = onnx.load(result.path)
    kind = model.graph.input[0].type.tensor_type
    assert kind.elem_type == onnx.TensorProto.UINT8
    assert [side.dim_value or side.dim_param for side in kind.shape.dim] == [batch or "batch", 32, 32, 3]
    assert DEFAULT_BOUNDS[precision].broken_by(result.comparison) is None
    assert (result.batched_agreement is None) == (batch is not None)
    with Classifier(result.path) as classifier:
        answers = [
            prediction.label for prediction in classifier(list_images(export.images / "test" / "seven"))
        ]
    assert answers.count("seven") >= 8


def timed(monkeypatch: pytest.MonkeyPatch, rewrites: tuple[float, ...]) -> None:
    """Let graphs take times of our choosing: rewrites as given, candidates less and less."""

    def race(models: Any, pixels: Any, stage: str = "timing") -> Race:
        yield Tick(stage, 1, 1)
        if stage == "timing rewrites":
            return rewrites[: len(models)]
        return tuple(9.0 - 0.1 * place for place in range(len(models)))

    monkeypatch.setattr(int8, "race", race)


@pytest.mark.parametrize(
    ("times", "kept"),
    [
        ((10.0, 12.0, 11.0), ()),
        ((10.0, 8.0, 8.0), ("FuseAttention()",)),
        ((10.0, 8.0, 7.0), ("FuseAttention()", "ClassTokenOnly()")),
    ],
)
def test_a_rewrite_that_does_not_pay_is_left_out(
    export: Exporter,
    digits: Checkpoint,
    monkeypatch: pytest.MonkeyPatch,
    times: tuple[float, ...],
    kept: tuple[str, ...],
) -> None:
    """On the machine at hand, that is; the report says what it cost there."""
    timed(monkeypatch, times)
    result = export(digits.model)
    shipped = steps(result.path)
    assert tuple(name for name in ("FuseAttention()", "ClassTokenOnly()") if name in shipped) == kept
    left_out = [step.problem for step in result.steps if step.problem]
    assert len(left_out) == 2 - len(kept)
    assert all("it does not pay here" in problem for problem in left_out)


def test_the_fastest_is_picked_by_its_time(
    export: Exporter, digits: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its answers, so long as they keep the bounds."""
    timed(monkeypatch, (10.0, 8.0, 7.0))
    result = export(digits.model, pick="fastest", budget_s=1.0)
    able = [row for row in result.candidates if row.problem is None]
    assert result.latency_ms == min(row.latency_ms or 0.0 for row in able)
    assert result.float32_ms == 9.0


def test_a_target_in_another_interpreter_is_measured_there(export: Exporter, digits: Checkpoint) -> None:
    """Answers and times are then those of the provider that the file is for, and the file says so."""
    python = os.environ.get("VIT_EDGE_OPENVINO_PYTHON")
    if not python:
        pytest.skip("VIT_EDGE_OPENVINO_PYTHON names no interpreter whose ONNX Runtime has OpenVINO")
    result = export(digits.model, targets=("openvino",), target_python=Path(python))
    assert result.latency_ms is not None
    assert result.latency_ms > 0
    assert result.candidates[0].latency_ms == result.latency_ms
    with Classifier(result.path) as classifier:
        written = classifier.metadata
    assert written.recipe["provider"] == "OpenVINOExecutionProvider"
    assert written.proof["latency_ms"]["int8"] == round(result.latency_ms, 3)


def test_merging_keeps_the_attention_that_it_needs(
    export: Exporter, digits: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens are merged by its keys, and fused attention that gains nothing by itself may gain with fewer tokens."""
    timed(monkeypatch, (10.0, 12.0, 12.0))
    result = export(digits.model, merge_tokens="0:3", max_drift=0.5, min_agreement=0.5)
    shipped = steps(result.path)
    assert [step for step in shipped if step.startswith("MergeTokens(")]
    assert "FuseAttention()" in shipped
    assert "ClassTokenOnly()" not in shipped


def test_a_fixed_batch_costs_no_rewrite(export: Exporter, digits: Checkpoint) -> None:
    """Patterns are found by the axis that varies with the batch, which a graph of one size does not show."""
    result = export(digits.model, batch=2, merge_tokens="0:3", max_drift=0.5, min_agreement=0.5)
    shipped = steps(result.path)
    assert "FuseAttention()" in shipped
    assert any(step.startswith("MergeTokens") for step in shipped)
    assert shipped[-1] == "FixBatch(size=2)"
    with Classifier(result.path) as classifier:
        assert classifier.batch == 2
        image = next((export.images / "test" / "seven").iterdir())
        pixels = classifier.pixels(image)
        alone, beside = classifier.logits(pixels[None])[0], classifier.logits(np.stack([pixels, pixels]))[1]
        np.testing.assert_array_equal(alone, beside)

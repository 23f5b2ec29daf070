"""Graphs that take a camera's bytes answer as those that take normalised planes, in float and in INT8."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from vit_edge.checking import Report, check_model, require_same
from vit_edge.checkpoint import load_checkpoint
from vit_edge.data import labelled_images
from vit_edge.errors import ExportError
from vit_edge.evaluation import compare
from vit_edge.export.file import write_model
from vit_edge.export.graph import PATCHES_SUFFIX, named
from vit_edge.export.limits import OPSETS
from vit_edge.export.passes import FixBatch, Float16, QuantizeDynamic, Simplify, SplitGemm
from vit_edge.export.passes.quantize_patches import QuantizePatches
from vit_edge.export.passes.raw_pixels import RawPixels
from vit_edge.export.trace import trace
from vit_edge.models import ViT, ViTConfig
from vit_edge.reference import torch_logits
from vit_edge.runtime import Classifier, Metadata
from vit_edge.runtime.image import read_image
from vit_edge.runtime.preprocess import Preprocessing, crop_pixels, preprocess

from ..shared import SHARED, needs_shared
from .networks import REWRITES, anonymous, answers, operators, timm_vit, torchvision_vit, transformers_vit

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# The product is written by ONNX Runtime's own operator.
INT8 = "MatMulIntegerToFloat"


def own_vit() -> nn.Module:
    return ViT(ViTConfig((32, 32), patch_size=8, width=32, depth=2, heads=2, mlp_width=64, classes=5))


def built(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a network with no weight left at zero, where a mistake would not show."""
    torch.manual_seed(0)
    module = build()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return module.eval()


def photographs(count: int = 3, height: int = 32, width: int = 32) -> NDArray[np.uint8]:
    """Give (count, height, width, 3) uint8 whose neighbours are alike, with all values from 0 to 255."""
    noise = np.random.default_rng(1).standard_normal((count, height + 8, width + 8, 3))
    smooth = noise.cumsum(axis=1).cumsum(axis=2)[:, 8:, 8:]
    low, high = smooth.min(axis=(1, 2), keepdims=True), smooth.max(axis=(1, 2), keepdims=True)
    return np.asarray(np.rint(255 * (smooth - low) / (high - low)), np.uint8)


def planes(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.asarray(((pixels / 255 - MEAN) / STD).transpose(0, 3, 1, 2), np.float32)


def moved(model: onnx.ModelProto, expected: NDArray[np.float32], pixels: NDArray[np.uint8]) -> float:
    """Give how far a graph's logits are from those expected, relative to their size, at its worst image."""
    distance = np.linalg.norm(answers(model, pixels).astype(np.float64) - expected, axis=1)
    return float((distance / np.linalg.norm(expected, axis=1)).max())


LIBRARIES = pytest.mark.parametrize(
    "build",
    [timm_vit, torchvision_vit, transformers_vit, own_vit],
    ids=["timm", "torchvision", "transformers", "own"],
)


@LIBRARIES
def test_the_other_rewrites_find_their_patterns_behind_raw_pixels(build: Callable[[], nn.Module]) -> None:
    """They look at what really comes out of each node, on noise of the type that the graph takes."""
    module, pixels = built(build), photographs()
    model = named(RawPixels(MEAN, STD)(anonymous(named(trace(module, size=(32, 32), opset=20)))))
    for rewrite in (Simplify(), *REWRITES):
        model = named(rewrite(model))
    assert moved(model, torch_logits(module, planes(pixels)), pixels) < 1e-5
    assert operators(model)["MultiHeadAttention"] == 1
    assert operators(model)["Softmax"] == 0
    assert operators(named(QuantizePatches()(model)))[INT8] == 1


@LIBRARIES
@pytest.mark.parametrize("rewritten", [False, True], ids=["as traced", "rewritten"])
def test_raw_pixels_change_no_answer_of_any_library(build: Callable[[], nn.Module], rewritten: bool) -> None:
    """Found by structure, with every name changed, before the other rewrites and after."""
    module = built(build)
    model = anonymous(named(trace(module, size=(32, 32), opset=20)))
    for rewrite in (Simplify(), *REWRITES) if rewritten else ():
        model = named(rewrite(model))
    before = model.SerializeToString()
    raw = named(RawPixels(MEAN, STD)(model))
    assert model.SerializeToString() == before
    source = raw.graph.input[0]
    assert source.name == "pixels"
    assert source.type.tensor_type.elem_type == TensorProto.UINT8
    assert [side.dim_value for side in source.type.tensor_type.shape.dim[1:]] == [32, 32, 3]
    found = operators(raw)
    assert found["Conv"] == 0
    assert found["Cast"] - operators(model)["Cast"] == 1
    assert (
        sum(node.op_type == "MatMul" and node.name.endswith(PATCHES_SUFFIX) for node in raw.graph.node) == 1
    )
    # Cutting the patches out takes one Transpose, and what made tokens of the Conv's planes is gone.
    assert found["Transpose"] == operators(model)["Transpose"]
    for count in (1, 2, 5):
        pixels = photographs(count)
        assert moved(raw, torch_logits(module, planes(pixels)), pixels) < 1e-5
    assert operators(named(QuantizePatches()(raw)))[INT8] == 1


@pytest.mark.parametrize(
    ("opset", "batch"), [*((opset, None) for opset in OPSETS), (OPSETS[0], 2), (OPSETS[-1], 2)]
)
def test_raw_pixels_work_at_every_opset_and_batch(opset: int, batch: int | None) -> None:
    """Operators change their form between opsets, and a fixed batch leaves other reshapes behind."""
    module, pixels = built(own_vit), photographs(2)
    expected = torch_logits(module, planes(pixels))
    traced = trace(module, size=(32, 32), opset=opset)
    if batch is not None:
        traced = Simplify()(FixBatch(batch)(traced))
    raw = named(RawPixels(MEAN, STD)(named(traced)))
    assert moved(raw, expected, pixels) < 1e-5
    assert compare(expected, answers(named(QuantizePatches()(raw)), pixels)).drift < 0.02
    onnx.checker.check_model(raw, full_check=True)


@pytest.mark.parametrize(
    ("size", "patch"), [((24, 48), 8), ((48, 32), 16), ((28, 42), 14), ((32, 32), 32), ((12, 20), 4)]
)
def test_patches_of_any_size_are_cut_from_images_of_any_shape(size: tuple[int, int], patch: int) -> None:
    """Rows and columns mixed up would go unnoticed on a square."""
    module = built(
        lambda: ViT(ViTConfig(size, patch_size=patch, width=32, depth=1, heads=2, mlp_width=64, classes=5))
    )
    model = named(trace(module, size=size, opset=20))
    raw, pixels = named(RawPixels(MEAN, STD)(model)), photographs(3, *size)
    expected = torch_logits(module, planes(pixels))
    assert moved(raw, expected, pixels) < 1e-5
    assert compare(expected, answers(named(QuantizePatches()(raw)), pixels)).drift < 0.02


class Patches(nn.Module):
    """A patch embedding of which the rest reads what it likes."""

    def __init__(self, read: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], **conv: object) -> None:
        super().__init__()
        options: dict[str, object] = {"kernel_size": (8, 4), "stride": (8, 4)} | conv
        self.conv = nn.Conv2d(3, 6, **options)  # type: ignore[arg-type]
        self.read = read

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.read(self.conv(pixels), pixels)


READERS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "tokens": lambda grid, pixels: grid.flatten(2).transpose(1, 2).square().mean(1),
    "channels last": lambda grid, pixels: grid.permute(0, 2, 3, 1).reshape(-1, 32, 6).square().mean(1),
    "planes": lambda grid, pixels: grid.relu().mean((2, 3)),
    "both": lambda grid, pixels: grid.relu().mean((2, 3)) + grid.flatten(2).transpose(1, 2)[:, 0],
    "tokens by column": lambda grid, pixels: grid.transpose(2, 3).flatten(2).transpose(1, 2)[:, 1],
    "tokens first": lambda grid, pixels: grid.flatten(2).permute(2, 0, 1)[3],
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_whatever_reads_the_embedding_gets_what_it_got(
    read: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], bias: bool
) -> None:
    """Tokens are passed on directly only to what wanted exactly them; all else gets the planes back."""
    module = built(lambda: Patches(read, bias=bias))
    model = named(trace(module, size=(32, 32), opset=20))
    raw, pixels = named(RawPixels(MEAN, STD)(model)), photographs()
    assert moved(raw, torch_logits(module, planes(pixels)), pixels) < 1e-5
    # Cutting the patches takes one; so do planes, and what is no token by row goes on from there.
    direct = read in (READERS["tokens"], READERS["channels last"])
    assert (operators(raw)["Transpose"] == 1) == direct


def test_what_is_no_whole_patch_is_left_out_as_the_convolution_did() -> None:
    """An image side that is no multiple of the patch's loses its right and lower edge."""
    module = built(lambda: Patches(READERS["tokens"]))
    raw = named(RawPixels(MEAN, STD)(named(trace(module, size=(37, 34), opset=20))))
    pixels = photographs(3, 37, 34)
    assert moved(raw, torch_logits(module, planes(pixels)), pixels) < 1e-5
    assert operators(named(QuantizePatches()(raw)))[INT8] == 1


@pytest.mark.parametrize(("start", "end"), [(0, 1), (0, None), (2, None), (1, 3), (-1, None), (-3, -1)])
def test_what_asks_for_the_sizes_of_the_input_gets_the_old_ones(start: int, end: int | None) -> None:
    """Exporters ask the input for the batch, and some for height and width too, which now lie elsewhere."""
    weight = np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)
    bounds: dict[str, Any] = {"start": start} | ({} if end is None else {"end": end})
    nodes = [
        helper.make_node("Conv", ["pixels", "weight"], ["grid"], strides=[8, 8]),
        helper.make_node("GlobalAveragePool", ["grid"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Shape", ["pixels"], ["sizes"], **bounds),
        helper.make_node("Cast", ["sizes"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["numbers"], ["sum"], keepdims=0),
        helper.make_node("Add", ["flat", "sum"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "sizes",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 3, 16, 24])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    pixels = photographs(3, 16, 24)
    assert moved(RawPixels(MEAN, STD)(model), answers(model, planes(pixels)), pixels) < 1e-5


@pytest.mark.parametrize(
    ("build", "problem"),
    [
        (
            lambda: Patches(READERS["planes"], kernel_size=7, stride=4),
            "its Conv has a kernel of 7x7 and a stride of 4x4",
        ),
        (
            lambda: Patches(READERS["planes"], kernel_size=8, stride=8, padding=1),
            "its Conv pads the image",
        ),
        (lambda: Patches(READERS["planes"], groups=3), "its Conv is grouped or dilated"),
        (lambda: Patches(READERS["planes"], dilation=2), "its Conv is grouped or dilated"),
        (
            lambda: Patches(lambda grid, pixels: grid.mean((2, 3)) + pixels.mean()),
            "2 operators read it",
        ),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5)), "a Reshape reads it"),
    ],
    ids=["overlapping", "padded", "grouped", "dilated", "two readers", "no convolution"],
)
def test_a_graph_without_a_patch_embedding_is_refused(build: Callable[[], nn.Module], problem: str) -> None:
    """Raw pixels were asked for: another input than that is no answer."""
    model = named(trace(built(build), size=(32, 32), opset=20))
    with pytest.raises(ExportError) as caught:
        RawPixels(MEAN, STD)(model)
    assert problem in str(caught.value)
    assert str(caught.value).endswith("export with --input float32")


def test_half_precision_keeps_its_answers_on_raw_pixels() -> None:
    """Bytes and weights divided by 255 are far from one another in size; half precision must bear it."""
    module, pixels = built(timm_vit), photographs()
    raw = named(RawPixels(MEAN, STD)(named(trace(module, size=(32, 32), opset=20))))
    half = Float16()(raw)
    assert half.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    assert moved(half, torch_logits(module, planes(pixels)), pixels) < 0.02


def test_the_dynamic_quantizer_leaves_the_int8_product_as_it_is() -> None:
    """It runs after, on a graph that holds an operator of ONNX Runtime's own already."""
    module, pixels = built(timm_vit), photographs()
    raw = named(RawPixels(MEAN, STD)(named(trace(module, size=(32, 32), opset=20))))
    quantized = named(QuantizeDynamic()(named(QuantizePatches()(named(SplitGemm()(raw))))))
    assert operators(quantized)[INT8] == 1
    assert operators(quantized)["MatMulInteger"] > 0
    assert compare(torch_logits(module, planes(pixels)), answers(quantized, pixels)).drift < 0.1


def test_quantizing_without_raw_pixels_is_refused() -> None:
    """Normalised pixels have no scale of their own."""
    model = named(trace(built(own_vit), size=(32, 32), opset=20))
    with pytest.raises(ExportError, match="no product of raw pixels to quantize; run RawPixels on it first"):
        QuantizePatches()(model)


def raw_layer(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    """Give the constants of the INT8 product by what they are for."""
    (node,) = (node for node in model.graph.node if node.op_type == INT8)
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    places = {"weight": 1, "pixel_scale": 2, "scale": 3, "bias": 6}
    return {name: tensors[node.input[place]] for name, place in places.items()}


@pytest.mark.parametrize("bits", [8, 7])
def test_the_weights_are_symmetric_and_fit_the_processor(bits: int) -> None:
    """With 7 bits, no pair of products of a byte and a weight leaves 16 bits, where x86 without VNNI sums them."""
    model = named(trace(built(timm_vit), size=(32, 32), opset=20))
    quantized = QuantizePatches(bits)(named(RawPixels(MEAN, STD)(model)))
    layer = raw_layer(quantized)
    weight = layer["weight"].astype(np.int64)
    assert layer["weight"].dtype == np.int8
    assert layer["pixel_scale"] == 1
    assert layer["scale"].shape == (weight.shape[1],)
    assert np.abs(weight).max() == {8: 127, 7: 64}[bits]
    if bits == 7:
        assert 255 * np.abs(weight[0::2] + weight[1::2]).max() < 2**15
    # The operator's other sums are in 32 bits.
    assert 255 * np.abs(weight).sum(axis=0).max() < 2**31


@pytest.mark.parametrize("bits", [8, 7])
def test_rounding_hardly_shows_where_neighbours_are_alike(bits: int) -> None:
    """Errors that are handed on cancel on what photographs mostly are; plain rounding is what it is measured by."""
    module, pixels = built(own_vit), photographs(16)
    raw = named(RawPixels(MEAN, STD)(named(trace(module, size=(32, 32), opset=20))))
    quantized = QuantizePatches(bits)(raw)
    (product,) = (node for node in raw.graph.node if node.name.endswith(PATCHES_SUFFIX))
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in raw.graph.initializer}
    exact, layer = tensors[product.input[1]].astype(np.float64), raw_layer(quantized)
    patches = pixels.reshape(-1, 4, 8, 4, 24).transpose(0, 1, 3, 2, 4).reshape(-1, 192).astype(np.float64)
    plain = np.rint(exact / layer["scale"]) * layer["scale"]
    ours = layer["weight"].astype(np.float64) * layer["scale"]
    errors = [np.square((patches - 127.5) @ (weight - exact)).mean() for weight in (ours, plain)]
    assert errors[0] < 0.5 * errors[1]


def test_a_grey_image_is_embedded_exactly() -> None:
    """The bias makes up for what rounding the weights does to the middle of the range."""
    module = built(lambda: Patches(READERS["tokens"]))
    raw = named(RawPixels(MEAN, STD)(named(trace(module, size=(32, 32), opset=20))))
    quantized = named(QuantizePatches(7)(raw))
    results = [
        [answers(model, np.full((1, 32, 32, 3), value, np.uint8)) for value in (127, 128)]
        for model in (raw, quantized)
    ]
    # 127.5 is between two bytes, and the embedding is squared after it: the roots' mean is the value at 127.5.
    exact, rounded = (np.sqrt(np.stack(pair)).mean(axis=0) for pair in results)
    np.testing.assert_allclose(rounded, exact, atol=1e-4)


@needs_shared
def test_the_real_network_gives_torchs_answers_on_raw_photographs() -> None:
    """Random weights hide what quantization does; real ones on real images do not."""
    preprocessing = Preprocessing.parse("resize=248,crop=224,interpolation=bicubic,mean=0.5,std=0.5")
    checkpoint = load_checkpoint(
        SHARED / "models/vit_tiny_patch16_224.safetensors", preprocessing=preprocessing
    )
    images = [read_image(path) for path in sorted((SHARED / "data/calibration250").glob("*.JPEG"))[:10]]
    expected = np.concatenate(
        [torch_logits(checkpoint.model, preprocess(image, preprocessing)[None]) for image in images]
    )
    model = named(trace(checkpoint.model, size=(224, 224), opset=20))
    raw = named(RawPixels(preprocessing.mean, preprocessing.std)(model))
    pixels = np.stack([crop_pixels(image, preprocessing) for image in images])
    assert moved(raw, expected, pixels) < 1e-5
    for bits, most in ((8, 0.004), (7, 0.008)):
        assert compare(expected, answers(named(QuantizePatches(bits)(raw)), pixels)).drift < most


def test_a_file_for_raw_pixels_is_checked_against_torch_like_any_other(
    digits_checkpoint: Path, digits_images: Path, tmp_path: Path
) -> None:
    """From the checkpoint to the report of a check: the file alone says what its graph takes."""
    checkpoint = load_checkpoint(digits_checkpoint)
    assert checkpoint.labels is not None
    assert checkpoint.preprocessing is not None
    preprocessing = checkpoint.preprocessing
    model = named(trace(checkpoint.model, size=preprocessing.crop, opset=20))
    raw = RawPixels(preprocessing.mean, preprocessing.std)(model)
    reports, metadata = [], Metadata(checkpoint.labels, preprocessing)
    for name, graph in (("float32", model), ("uint8", raw)):
        write_model(graph, metadata, tmp_path / f"{name}.onnx")
        with Classifier(tmp_path / f"{name}.onnx", threads=1) as classifier:
            assert classifier.input == name
            samples = labelled_images(digits_images / "test", classifier.labels)
            *_, report = check_model(
                classifier, checkpoint.model, require_same(checkpoint, classifier), samples
            )
        assert isinstance(report, Report)
        assert report.comparison.drift < 1e-5
        reports.append(report.comparison)
    for one, other in pairwise(reports):
        assert one.flips == other.flips == ()
        assert one.accuracy == other.accuracy

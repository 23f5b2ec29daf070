"""Raw pixels as the graph's input: normalisation and layout folded into the patch embedding."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from ...errors import ExportError
from ..graph import PATCHES_SUFFIX
from ..rewrite import Builder, Observed, constant, consumers, observe, to_proto

# What a byte of 1.0 is.
_WHITE = 255

# Operators that only move elements, and say how in their attributes or by the shape that comes out.
_MOVES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Transpose")


@dataclass(frozen=True)
class RawPixels:
    """Take (batch, height, width, 3) uint8, RGB, 0..255, as a camera gives it, in place of normalised planes.

    A patch embedding is linear, so that ``(pixel / 255 - mean) / std`` folds into its weights and bias; cutting the
    patches out is then a matter of moving bytes, a quarter of what floats would be. Runs before the other rewrites
    of the float graph or after them.

    Attributes:
        mean: Red, green, blue; what was subtracted from pixels scaled to 0..1.
        std: Red, green, blue; what the rest was divided by.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """Give the graph that takes raw pixels.

        Raises:
            ExportError: The graph has no patch embedding that its input alone feeds.
        """
        twin = ir.from_proto(model)
        embedding = _find(twin.graph)
        observed = observe(model)
        tokens = self._embed(twin.graph, embedding, observed)
        for value in _token_values(embedding.output, observed):
            ir.convenience.replace_all_uses_with(value, tokens)
        # What takes the Conv's own shape gets it back; where nothing does, these nodes are dead and go.
        ir.convenience.replace_all_uses_with(
            embedding.output, _as_grid(twin.graph, embedding, tokens, observed)
        )
        _read_sizes_anew(twin.graph, embedding)
        assert embedding.pixels.shape is not None
        embedding.pixels.shape = ir.Shape([embedding.pixels.shape[0], *embedding.size, 3])
        embedding.pixels.type = ir.TensorType(ir.DataType.UINT8)
        return to_proto(twin)

    def _embed(self, graph: ir.Graph, embedding: "_Embedding", observed: Observed) -> ir.Value:
        """Write the patch embedding as a product of raw patches, and give its tokens (batch, tokens, width)."""
        rows, columns = _grid(observed, embedding)
        channels, high, wide = embedding.weight.shape[1:]
        weight, bias = self._fold(embedding)
        build = Builder(graph, embedding.name)
        pixels = embedding.pixels
        if embedding.size != (rows * high, columns * wide):
            # A Conv leaves out what is not a whole patch at the right and the bottom.
            ends = build.integers("ends", rows * high, columns * wide)
            pixels = build(
                "Slice", "whole", pixels, build.integers("starts", 0, 0), ends, build.integers("axes", 1, 2)
            )
        # A 0 keeps the batch as it is.
        cut = build.integers("cut", 0, rows, high, columns, wide * channels)
        flat = build.integers("flat", 0, rows * columns, high * wide * channels)
        pixels = build("Reshape", "cut_out", pixels, cut)  # (batch, rows, high, columns, wide · 3)
        pixels = build("Transpose", "sorted", pixels, perm=[0, 1, 3, 2, 4])
        pixels = build("Reshape", "raw", pixels, flat)  # (batch, tokens, high · wide · 3)
        values = build("Cast", "float", pixels, to=int(ir.DataType.FLOAT))
        product = build("MatMul", PATCHES_SUFFIX[1:], values, build.constant("weight", weight))
        return build("Add", "tokens", product, build.constant("bias", bias))

    def _fold(self, embedding: "_Embedding") -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Give weights (high · wide · 3, width) and bias (width,) for bytes, computed in float64."""
        weight = embedding.weight.astype(np.float64)
        mean, std = (np.array(values, np.float64)[:, None, None] for values in (self.mean, self.std))
        bias = embedding.bias - (weight * (mean / std)).sum(axis=(1, 2, 3))
        folded = (weight / (_WHITE * std)).transpose(2, 3, 1, 0).reshape(-1, len(weight))
        return np.ascontiguousarray(folded, np.float32), bias.astype(np.float32)


@dataclass(frozen=True, slots=True)
class _Embedding:
    """A patch embedding as it stands in a graph.

    Attributes:
        pixels: The graph's input.
        conv: The Conv node.
        size: Height and width of the image.
        weight: (width, 3, high, wide) float32, of patches that are *high* by *wide*.
        bias: (width,) float32, zero where there is none.
    """

    pixels: ir.Value
    conv: ir.Node
    size: tuple[int, int]
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    @property
    def output(self) -> ir.Value:
        """(batch, width, rows, columns)."""
        return self.conv.outputs[0]

    @property
    def name(self) -> str:
        return self.conv.name or "embedding"


def _find(graph: ir.Graph) -> _Embedding:
    pixels = graph.inputs[0]
    readers = [node for node in consumers(pixels) if node.op_type != "Shape"]
    problem = f"{len(readers)} operators read it"
    if len(readers) == 1:
        found, problem = _read(pixels, readers[0])
        if found is not None:
            return found
    raise ExportError(
        "raw pixels need a patch embedding, one Conv on the graph's input whose stride is its kernel, without padding, "
        f"but {problem}; export with --input float32"
    )


def _read(pixels: ir.Value, conv: ir.Node) -> tuple[_Embedding | None, str]:
    """Read a node as a patch embedding, or say what is in the way."""
    if conv.op_type != "Conv" or conv.inputs[0] is not pixels:
        return None, f"a {conv.op_type} reads it"
    factor, offset = conv.inputs[1], conv.inputs[2] if len(conv.inputs) > 2 else None
    weight, bias = constant(factor), constant(offset)
    if weight is None or weight.ndim != 4 or (bias is None and offset is not None):
        return None, "its Conv has weights that are computed"
    attributes = conv.attributes
    kernel, strides = weight.shape[2:], tuple(attributes.get_ints("strides", (1, 1)))
    if strides != kernel:
        return None, f"its Conv has a kernel of {_sides(kernel)} and a stride of {_sides(strides)}"
    if any(attributes.get_ints("pads", ())) or attributes.get_string("auto_pad", "NOTSET").startswith("SAME"):
        return None, "its Conv pads the image"
    if attributes.get_int("group", 1) != 1 or set(attributes.get_ints("dilations", (1, 1))) != {1}:
        return None, "its Conv is grouped or dilated"
    if conv.outputs[0].is_graph_output():
        return None, "its Conv is an output of the graph"
    height, width = (list(pixels.shape or ()) + [None] * 4)[2:4]
    if weight.shape[1] != 3 or not isinstance(height, int) or not isinstance(width, int):
        return None, f"its shape is {pixels.shape}"
    return (
        _Embedding(
            pixels,
            conv,
            (height, width),
            weight.astype(np.float32),
            np.zeros(len(weight), np.float32) if bias is None else bias.astype(np.float32),
        ),
        "",
    )


def _sides(sides: tuple[int, ...]) -> str:
    return "x".join(map(str, sides))


def _grid(observed: Observed, embedding: _Embedding) -> tuple[int, int]:
    shape = observed.shape(embedding.output)
    assert shape is not None
    return shape[2][0], shape[3][0]


def _token_values(output: ir.Value, observed: Observed) -> Iterator[ir.Value]:
    """Give what, behind a Conv, holds exactly its patches as (batch, tokens, width).

    However a network gets there, its moves are applied to the places of the elements, and those compared.
    """
    shape = observed.shape(output)
    assert shape is not None
    sides = tuple(side[0] for side in shape)
    places = np.arange(np.prod(sides)).reshape(sides)
    tokens = places.reshape(*sides[:2], -1).transpose(0, 2, 1)
    waiting = [(output, places)]
    while waiting:
        value, places = waiting.pop()
        for node in consumers(value):
            result = node.outputs[0]
            after = observed.shape(result)
            if node.op_type not in _MOVES or after is None or result.is_graph_output():
                continue
            moved = places
            if node.op_type == "Transpose":
                moved = places.transpose(node.attributes.get_ints("perm", range(places.ndim)[::-1]))
            moved = moved.reshape([side[0] for side in after])
            if np.array_equal(moved, tokens):
                yield result
            else:
                waiting.append((result, moved))


def _as_grid(graph: ir.Graph, embedding: _Embedding, tokens: ir.Value, observed: Observed) -> ir.Value:
    """Give tokens the shape of the Conv's output, (batch, width, rows, columns)."""
    build = Builder(graph, embedding.name)
    planes = build("Transpose", "planes", tokens, perm=[0, 2, 1])
    shape = build.integers("grid_shape", 0, len(embedding.weight), *_grid(observed, embedding))
    return build("Reshape", "grid", planes, shape)


def _read_sizes_anew(graph: ir.Graph, embedding: _Embedding) -> None:
    """Answer what asks for the sizes of the input (mostly for the batch alone) as if nothing had changed."""
    for node in consumers(embedding.pixels):
        start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", 4)
        if node.op_type != "Shape" or (start, end) == (0, 1):
            continue
        build = Builder(graph, node.name or f"{node.outputs[0].name}_shape")
        batch = build("Shape", "batch", embedding.pixels, start=0, end=1)
        whole = build("Concat", "whole", batch, build.integers("rest", 3, *embedding.size), axis=0)
        part = build("Slice", "part", whole, build.integers("start", start), build.integers("end", end))
        ir.convenience.replace_all_uses_with(node.outputs[0], part)

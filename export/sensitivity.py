"""Ranks the linear layers of a network by the harm that quantizing each does; no labels are needed."""

import time
from collections.abc import Collection, Generator
from dataclasses import dataclass
from typing import Any

import onnx
import onnx_ir as ir
import onnxruntime

from .graph import copy, linears
from .images import Images, Tick
from .journal import journal_of
from .rewrite import to_proto

# So many images rank the layers as hundreds do, and keep the time of two runs per layer and image bearable.
SENSITIVITY_IMAGES = 24


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What quantizing one linear layer does to the logits.

    Attributes:
        layer: The name of its node.
        shape: Its inputs and outputs.
        alone: The logits' drift where this layer alone is quantized; None where the time was over before.
        without: The drift where all layers but this one are; None where the time was over before.
        spread: The largest channel's maximum of its input over the median channel's.
    """

    layer: str
    shape: tuple[int, int]
    alone: float | None
    without: float | None
    spread: float

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, ready for JSON."""
        return {
            "layer": self.layer,
            "shape": list(self.shape),
            "alone": self.alone,
            "without": self.without,
            "spread": round(self.spread, 2),
        }


def rank(
    model: onnx.ModelProto,
    quantized: onnx.ModelProto,
    images: Images,
    *,
    spreads: dict[str, float],
    deadline: float,
) -> Generator[Tick, None, tuple[Sensitivity, ...]]:
    """Quantize each linear layer alone, and leave each out alone.

    Args:
        model: The float graph.
        quantized: The same graph quantized, in which every product has kept the name of its output.
        images: Calibration images with the reference's answers; the first `SENSITIVITY_IMAGES` are used.
        spreads: For each layer the spread of its input's channels.
        deadline: The value of `time.monotonic` at which to stop measuring.

    Returns:
        The layers, most harmful first: by how much the drift falls where the layer is left out, and where that was
        not measured, after the others by the drift that it causes alone.
    """
    layers = [linear.node for linear in linears(model) if linear.node in spreads]
    shapes = {
        tensor.name: (tensor.dims[0], tensor.dims[1])
        for tensor in model.graph.initializer
        if len(tensor.dims) == 2
    }
    sizes = {linear.node: shapes[linear.weight] for linear in linears(model)}
    pixels = [images.crop(path) for path in images.paths[:SENSITIVITY_IMAGES]]
    journal = journal_of(
        model.SerializeToString(deterministic=True),
        quantized.SerializeToString(deterministic=True),
        *(crop.tobytes() for crop in pixels),
        onnxruntime.__version__.encode(),
    )
    found: dict[str, dict[str, float]] = {"without": {}, "alone": {}}
    # Leaving out tells which layers are worth their float weights, so that it goes first.
    tasks = [(kind, layer) for kind in found for layer in layers]
    for done, (kind, layer) in enumerate(tasks, start=1):
        key = f"{kind} {layer}"
        drift = journal.get(key)
        if drift is None and time.monotonic() < deadline:
            in_float = {layer} if kind == "without" else set(layers) - {layer}
            drift = _drift(mixed(model, quantized, in_float), images)
            journal.put(key, drift)
        if drift is not None:
            found[kind][layer] = drift
        yield Tick("quantizing layers one by one", done, len(tasks))
    ranked = [
        Sensitivity(
            layer, sizes[layer], found["alone"].get(layer), found["without"].get(layer), spreads[layer]
        )
        for layer in layers
    ]
    return tuple(sorted(ranked, key=_harm))


def _harm(layer: Sensitivity) -> tuple[bool, float, float]:
    return (
        layer.without is None,
        0.0 if layer.without is None else layer.without,
        0.0 if layer.alone is None else -layer.alone,
    )


def _drift(model: onnx.ModelProto, images: Images) -> float:
    measurement = images.measure(model, "", count=SENSITIVITY_IMAGES)
    for _ in measurement:
        pass
    return measurement.comparison.drift


def mixed(model: onnx.ModelProto, quantized: onnx.ModelProto, in_float: Collection[str]) -> onnx.ModelProto:
    """Put a graph together of a quantized one and some layers of the float graph that it was made from.

    Args:
        model: The float graph.
        quantized: The same graph quantized, in which every product has kept the name of its output.
        in_float: The names of the linear nodes to take from *model*.
    """
    chosen = [node for node in model.graph.node if node.name in in_float]
    outputs = {node.output[0] for node in chosen}
    result = copy(quantized)
    rest = [node for node in result.graph.node if node.output[0] not in outputs]
    del result.graph.node[:]
    result.graph.node.extend(rest)
    result.graph.node.extend(chosen)
    present = {tensor.name for tensor in result.graph.initializer}
    needed = {name for node in chosen for name in node.input}
    result.graph.initializer.extend(
        tensor for tensor in model.graph.initializer if tensor.name in needed - present
    )
    domains = {entry.domain for entry in result.opset_import}
    result.opset_import.extend(entry for entry in model.opset_import if entry.domain not in domains)
    return to_proto(ir.from_proto(result))

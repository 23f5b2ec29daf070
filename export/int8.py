"""From a float graph to the INT8 graph for ONNX Runtime's CPU provider."""

from collections.abc import Generator, Iterator

import numpy as np
import onnx
from numpy.typing import NDArray

from .images import Tick
from .massive import Channels, channels
from .passes import (
    ClassTokenOnly,
    FuseAttention,
    MigrateScales,
    Pass,
    QuantizeDynamic,
    SplitChannels,
    SplitGemm,
    Unflatten,
)
from .recorder import Recorder, Step

# Each gives the same answers in another form. Fusing looks for products on tokens, and leaves a reshape of its own.
_REWRITES: tuple[Pass, ...] = (SplitGemm(), Unflatten(), FuseAttention(), Unflatten(), ClassTokenOnly())

# SmoothQuant's own search found its best between a half and nine tenths.
_STRENGTHS = (0.5, 0.7, 0.9)

# Images on which massive channels are looked for: the same few channels stand out on every image.
_CHANNEL_IMAGES = 64


def quantize(
    recorder: Recorder, base: onnx.ModelProto
) -> Generator[Tick | Step, None, onnx.ModelProto | None]:
    """Rewrite and quantize a graph; every step is measured, and one that does harm is left out.

    Args:
        recorder: Runs and measures the steps.
        base: The float graph.

    Returns:
        The INT8 graph; None where it broke its bounds, with the recorder's `problem` set.
    """
    exact = recorder.options.bounds["float32"]
    graph = base
    for rewrite in _REWRITES:
        rewritten = yield from recorder.apply(rewrite, graph, exact)
        graph = graph if rewritten is None else rewritten
    yield Tick("looking for massive channels", 0, 1)
    found = channels(graph, _pixels(recorder))
    yield Tick("looking for massive channels", 1, 1)
    split = tuple(
        (layer.linear.node, layer.massive) for layer in found if layer.linear.splits and layer.massive
    )
    keep_float = tuple(layer.linear.node for layer in found if not layer.linear.splits and layer.massive)
    if split:
        rewritten = yield from recorder.apply(SplitChannels(split), graph, exact)
        if rewritten is None:
            keep_float += tuple(node for node, _ in split)
        else:
            graph = rewritten
            # What is left of the split inputs has other maxima.
            found = channels(graph, _pixels(recorder))
    return (yield from _best_strength(recorder, graph, found, keep_float))


def _best_strength(
    recorder: Recorder, graph: onnx.ModelProto, found: tuple[Channels, ...], keep_float: tuple[str, ...]
) -> Generator[Tick | Step, None, onnx.ModelProto | None]:
    """Quantize with scale migration of several strengths and without, and give what drifts least."""
    bounds = recorder.options.bounds["int8"]
    quantize_dynamic = QuantizeDynamic(keep_float)
    candidates = [(yield from recorder.apply(quantize_dynamic, graph, bounds))]
    problem = recorder.problem
    maxima = {layer.linear.input: layer.maxima for layer in found}
    for strength in _STRENGTHS:
        migrated = yield from recorder.apply(
            MigrateScales(strength, maxima), graph, recorder.options.bounds["float32"]
        )
        if migrated is not None:
            candidates.append((yield from recorder.apply(quantize_dynamic, migrated, bounds)))
    kept = [recorder.kept(model) for model in candidates if model is not None]
    if not kept:
        recorder.problem = problem
        return None
    return min(kept, key=lambda one: one.comparison.drift).model


def _pixels(recorder: Recorder) -> Iterator[NDArray[np.float32]]:
    images, batch = recorder.images, recorder.options.batch or 1
    for path in images.paths[:_CHANNEL_IMAGES]:
        yield np.repeat(images.pixels(path), batch, axis=0)

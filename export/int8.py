"""From a float graph to the INT8 graph for ONNX Runtime's CPU provider."""

from collections.abc import Generator, Iterator

import numpy as np
import onnx
from numpy.typing import NDArray

from .images import Tick
from .massive import channels
from .passes import ClassTokenOnly, FuseAttention, Pass, QuantizeDynamic, SplitChannels, SplitGemm, Unflatten
from .recorder import Recorder, Step

# Each gives the same answers in another form. Fusing looks for products on tokens, and leaves a reshape of its own.
_REWRITES: tuple[Pass, ...] = (SplitGemm(), Unflatten(), FuseAttention(), Unflatten(), ClassTokenOnly())

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
    return (yield from recorder.apply(QuantizeDynamic(keep_float), graph, recorder.options.bounds["int8"]))


def _pixels(recorder: Recorder) -> Iterator[NDArray[np.float32]]:
    images, batch = recorder.images, recorder.options.batch or 1
    for path in images.paths[:_CHANNEL_IMAGES]:
        yield np.repeat(images.pixels(path), batch, axis=0)

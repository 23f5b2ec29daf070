"""Where the nodes of an open session's graph run: the proof that a provider took them."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnxruntime

from .providers import SHORT_NAMES

Placed = Mapping[str, Mapping[str, int]]
"""For each provider, by its short name, how many nodes of each operator it runs."""

RECORD = ("session.record_ep_graph_assignment_info", "1")
"""The entry of a session's configuration that lets ONNX Runtime remember it; since 1.24, older ones ignore it."""

# What a provider is there for; a few nodes that compute shapes cost nothing wherever they run.
_PRODUCTS = ("MatMul", "Gemm", "Conv", "Attention")

# ONNX Runtime's types of inputs, and NumPy's.
_TYPES = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}


def placed(
    session: onnxruntime.InferenceSession, again: Callable[[Path], onnxruntime.InferenceSession]
) -> Placed:
    """Count the nodes of a session by provider and operator, before providers fuse them.

    Args:
        session: Opened with `RECORD`.
        again: Opens the same session once more, profiled, with the prefix of the profile's name. ONNX Runtime before
            1.24 does not tell where nodes go: there one answer is profiled, and what a provider fused is one node.
    """
    if hasattr(session, "get_provider_graph_assignment_info"):
        pairs = [
            (part.ep_name, node.op_type)
            for part in session.get_provider_graph_assignment_info()
            for node in part.get_nodes()
        ]
        # A graph that was compiled elsewhere has no nodes that were assigned here.
        if pairs:
            return _count(pairs)
    return profiled(again)


def profiled(again: Callable[[Path], onnxruntime.InferenceSession]) -> Placed:
    """Count the nodes that ran for one answer; for *again* see `placed`."""
    import tempfile  # loads much, and only old versions of ONNX Runtime need it

    with tempfile.TemporaryDirectory(prefix="vit-edge-") as folder:
        session = again(Path(folder, "profile"))
        source = session.get_inputs()[0]
        sides = [side if isinstance(side, int) else 1 for side in source.shape]
        session.run(None, {source.name: np.zeros(sides, _TYPES.get(source.type, np.float32))})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        # Some systems do not remove a file that is still open.
        del session
    places = [event["args"] for event in events if event.get("cat") == "Node" and "args" in event]
    return _count([(place["provider"], place["op_name"]) for place in places if place.get("provider")])


def products(operators: Mapping[str, int]) -> dict[str, int]:
    """Give those operators, of one provider, that do a network's work."""
    return {name: count for name, count in operators.items() if any(product in name for product in _PRODUCTS)}


def _count(pairs: list[tuple[str, str]]) -> Placed:
    found: dict[str, Counter[str]] = {}
    for provider, operator in pairs:
        found.setdefault(SHORT_NAMES.get(provider, provider), Counter())[operator] += 1
    # The provider with the most nodes first, and its commonest operators.
    ordered = sorted(found.items(), key=lambda item: -item[1].total())
    return {provider: dict(operators.most_common()) for provider, operators in ordered}

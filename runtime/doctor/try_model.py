"""Opens a model file as an application does, and profiles one inference."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .child import give

if TYPE_CHECKING:
    from ..graph_input import Pixels

# The first inference allocates and lays out, and any may be interrupted: of these the one of middle length is told.
_RUNS = 9


def model(path: str, provider: str, options: str = "{}") -> dict[str, Any]:
    """Open a file and profile it.

    Args:
        path: The file.
        provider: As `Classifier` takes it.
        options: The provider's own options, as JSON.
    """
    import onnxruntime  # noqa: F401  before numpy, so that of both it is the one to be missed

    import numpy as np  # isort: skip

    from ..classifier import Classifier

    given: dict[str, str] = json.loads(options)
    with Classifier(path, provider, provider_options=given) as classifier:
        height, width = classifier.preprocessing.crop
        grey = np.full((height, width, 3), 128, np.uint8)
        pixels = np.stack([classifier.pixels(grey)] * (classifier.batch or 1))
        values: dict[str, Any] = {
            "provider": classifier.provider,
            "notes": list(classifier.notes),
            "classes": len(classifier.labels),
            "recipe": dict(classifier.metadata.recipe),
            "input": classifier.input,
            "threads": classifier.threads,
            "batch": len(pixels),
        }
        seal = classifier.seal
    return values | profile(Path(path), seal, values["provider"], pixels, given)


def profile(
    path: Path, seal: str, provider: str, pixels: "Pixels", options: Mapping[str, str]
) -> dict[str, Any]:
    """Run a graph under ONNX Runtime's profiler and add up an inference of middle length.

    Args:
        path: The model file.
        seal: Its seal, by which what was compiled of it is found again.
        provider: The short name of the execution provider.
        pixels: What the graph takes.
        options: The provider's own options.
    """
    from ..session import start_session

    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder) / "profile"
        session = start_session(
            path, name=str(path), provider=provider, options=options, seal=seal, profile=prefix
        ).session
        given = {session.get_inputs()[0].name: pixels}
        for _ in range(_RUNS):
            session.run(None, given)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return middle_inference(events)


def middle_inference(events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up the nodes of a profile's inference of middle length, by provider and by operator.

    Args:
        events: ONNX Runtime's trace events, with times in microseconds.

    Returns:
        ``total_ms``, and ``providers`` and ``operators``, lists of what took longest first.
    """
    runs = sorted((event for event in events if event["name"] == "model_run"), key=lambda event: event["dur"])
    run = runs[len(runs) // 2]
    nodes = [
        event
        for event in events
        if event.get("cat") == "Node"
        and event["name"].endswith("_kernel_time")
        and run["ts"] <= event["ts"] <= run["ts"] + run["dur"]
    ]
    return {
        "total_ms": run["dur"] / 1e3,
        "nodes": len(nodes),
        "providers": _sums(nodes, "provider"),
        "operators": _sums(nodes, "provider", "op_name"),
    }


def _sums(nodes: Sequence[Mapping[str, Any]], *keys: str) -> list[dict[str, Any]]:
    sums: dict[tuple[str, ...], list[float]] = {}
    for node in nodes:
        sums.setdefault(tuple(node["args"][key] for key in keys), []).append(node["dur"] / 1e3)
    names = {"op_name": "operator"}
    rows = [
        {names.get(key, key): value for key, value in zip(keys, row, strict=True)}
        | {"nodes": len(times), "ms": round(sum(times), 3)}
        for row, times in sums.items()
    ]
    return sorted(rows, key=lambda row: -row["ms"])


if __name__ == "__main__":
    give(model)

"""A model file on this device: whether it is sound, what differs from where it was measured, where its time goes."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..errors import VitEdgeError
from ..model_file import require_file
from ..seal import check_seal
from .child import attempt
from .finding import Finding, sentence

# A small device may build TensorRT's engine for a quarter of an hour; only what hangs takes longer.
_TIMEOUT_S = 1800.0


def model(
    path: Path,
    provider: str = "auto",
    provider_options: Mapping[str, str] = MappingProxyType({}),
    running: Callable[[str], AbstractContextManager[Any]] = nullcontext,
) -> Iterator[Finding]:
    """Examine a model file.

    Args:
        path: The file.
        provider: The execution provider to run it on, as `Classifier` takes it.
        provider_options: The provider's own options, as `Classifier` takes them.
        running: Entered, with what is being done, while the file is opened and run: a provider may compile it then.
    """
    try:
        require_file(path)
        # Of the file's bytes alone, so that damage shows even where nothing can run it.
        check_seal(path, str(path))
    except VitEdgeError as error:
        yield _refused("model.file", str(error))
        return
    with running(f"running {path}"):
        options = json.dumps(dict(provider_options))
        outcome = attempt("try_model", str(path), provider, options, timeout_s=_TIMEOUT_S)
    if outcome.missing:
        yield Finding(
            "model.file",
            "note",
            f"{path} is sealed and sound, and cannot be run without {outcome.missing}",
            "Mend that first, and ask again.",
        )
        return
    if outcome.failure:
        yield _refused("model.inference", outcome.failure, log=outcome.log[-4000:])
        return
    values = outcome.values
    yield Finding(
        "model.file",
        "ok",
        f"{path}, {path.stat().st_size / 1e6:.2f} MB, sealed and sound: "
        f"{', '.join(filter(None, (values['recipe'].get('precision'), str(values['classes']) + ' classes')))}",
        details={key: values[key] for key in ("classes", "recipe", "input")},
    )
    yield from map(device, values["notes"])
    yield inference(values)


def device(note: str) -> Finding:
    """Make a finding of one of `Classifier.notes`: what comes behind its last semicolon is the next step."""
    found, _, cure = note.rpartition("; ")
    return Finding("model.device", "note", found, sentence(cure))


def inference(values: Mapping[str, Any]) -> Finding:
    """Say where and how fast one inference ran.

    Args:
        values: What `try_model` gives.
    """
    providers = values["providers"]
    where = " and ".join(f"{row['nodes']} nodes by {row['provider']}" for row in providers)
    threads = values["threads"]
    found = (
        f"one inference took {values['total_ms']:.2f} ms on {values['provider']} with "
        f"{threads} thread{'s' if threads > 1 else ''}: {where}"
    )
    keys = ("provider", "total_ms", "threads", "batch", "nodes", "providers", "operators")
    details = {key: values[key] for key in keys}
    strayed = sum(row["ms"] for row in providers if row["provider"] == "CPUExecutionProvider")
    total = sum(row["ms"] for row in providers)
    if values["provider"] != "cpu" and strayed > 0:
        return Finding(
            "model.inference",
            "note",
            f"{found}; {100 * strayed / total:.0f} % of the time went to the CPU",
            f"Compare it with the CPU alone by `vit-edge bench --provider {values['provider']},cpu`, and with a file "
            f"that `vit-edge export` made for {values['provider']}.",
            details,
        )
    return Finding("model.inference", "ok", found, details=details)


def _refused(ident: str, error: str, **details: Any) -> Finding:
    """Make a finding of an error: what comes behind its first semicolon is the cure."""
    found, _, cure = error.partition("; ")
    return Finding(
        ident, "problem", found, sentence(cure or "make the file anew with `vit-edge export`"), details
    )

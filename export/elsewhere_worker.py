"""The other end of `elsewhere`: answers and times ONNX files in whatever interpreter has the execution provider.

Run as a script by that interpreter, so it imports nothing but the standard library, numpy and onnxruntime, and runs
the runtime's file of timing. It reads its task from standard input as JSON, and writes a line of JSON for each step,
the last one with the result.
"""

import json
import os
import runpy
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

# ONNX Runtime's default provider, that takes whatever another one leaves.
_CPU = "CPUExecutionProvider"

# What a provider is asked for is products; a few shape nodes that it leaves to the processor cost nothing.
_PRODUCTS = ("MatMul", "Gemm", "Conv", "Attention")

# Run, not imported: that interpreter has neither this package nor all that it needs.
_TIMING = Path(__file__).parents[1] / "runtime" / "timing.py"

# Only errors: ONNX Runtime would write its warnings beside the answers.
_QUIET = 3


class _RefusedError(Exception):
    """The task cannot be done here; the text says why."""


def main() -> None:
    """Do the task that standard input names."""
    task = json.load(sys.stdin)
    # Native libraries may write to standard output: what the parent reads goes another way.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(**line: Any) -> None:
        print(json.dumps(line), file=answers, flush=True)

    try:
        say(result=_WORK[task["do"]](task, say))
    except _RefusedError as refusal:
        say(refused=str(refusal))
    # ONNX Runtime's exceptions share no base but this one.
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        say(refused=f"ONNX Runtime {onnxruntime.__version__} failed there ({reason})")


def _require(task: dict[str, Any], say: Any = None) -> None:
    wanted, available = task["provider"], onnxruntime.get_available_providers()
    if wanted not in available:
        here = ", ".join(available)
        raise _RefusedError(f"ONNX Runtime {onnxruntime.__version__} there has no {wanted}, only {here}")


def _answer(task: dict[str, Any], say: Any) -> None:
    pixels = np.load(task["pixels"], mmap_mode="r")
    (model,) = task["models"]
    session = _open(task, model, pixels)
    rows = []
    for place in range(len(pixels)):
        rows.append(_run(session, pixels[place : place + 1]))
        say(done=place + 1, total=len(pixels))
    np.save(task["logits"], np.concatenate(rows))


def _race(task: dict[str, Any], say: Any) -> list[float]:
    pixels = np.load(task["pixels"])
    sessions = [_open(task, model, pixels) for model in task["models"]]

    def answer(session: Any) -> Callable[[], object]:
        return lambda: _run(session, pixels)

    take_turns = runpy.run_path(str(_TIMING))["take_turns"]
    turns = take_turns([answer(session) for session in sessions])
    while True:
        try:
            done, total = next(turns)
        except StopIteration as end:
            return list(end.value)
        say(done=done, total=total)


def _open(task: dict[str, Any], model: str, pixels: NDArray[np.float32]) -> Any:
    """Open a session, after a look at where the nodes of another one like it really ran."""
    _require(task)
    wanted = task["provider"]
    if wanted != _CPU:
        _check_placement(task, model, pixels[:1])
    return _session(task, model, onnxruntime.SessionOptions())


def _session(task: dict[str, Any], model: str, options: Any) -> Any:
    wanted = task["provider"]
    options.log_severity_level = _QUIET
    options.intra_op_num_threads = task["threads"]
    session = onnxruntime.InferenceSession(
        model, options, providers=[wanted], provider_options=[task["options"]]
    )
    if session.get_providers()[0] != wanted:
        raise _RefusedError(f"ONNX Runtime left {wanted} for {session.get_providers()[0]} without a word")
    return session


def _check_placement(task: dict[str, Any], model: str, pixels: NDArray[np.float32]) -> None:
    with tempfile.TemporaryDirectory(prefix="vit-edge-") as folder:
        options = onnxruntime.SessionOptions()
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder, "profile"))
        session = _session(task, model, options)
        _run(session, pixels)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        # Some systems do not remove a file that is still open.
        del session
    places = [event["args"] for event in events if event.get("cat") == "Node" and "args" in event]
    there = [place for place in places if place.get("provider") == task["provider"]]
    left = [
        place["op_name"]
        for place in places
        if place.get("provider") == _CPU and any(product in place["op_name"] for product in _PRODUCTS)
    ]
    if not there:
        raise _RefusedError(f"none of the nodes ran on {task['provider']}, all on the processor")
    if left:
        raise _RefusedError(f"{task['provider']} left {len(left)} products to {_CPU}")


def _run(session: Any, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    source = session.get_inputs()[0]
    size, count = source.shape[0], len(pixels)
    # A fixed batch: copies fill it, so that one image's answer is its answer beside itself.
    given = np.resize(pixels, (size, *pixels.shape[1:])) if isinstance(size, int) else pixels
    return np.asarray(session.run(None, {source.name: np.ascontiguousarray(given)})[0])[:count]


_WORK: dict[str, Callable[[dict[str, Any], Any], Any]] = {
    "require": _require,
    "answer": _answer,
    "race": _race,
}


if __name__ == "__main__":
    main()

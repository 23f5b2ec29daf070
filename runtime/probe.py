"""Why an execution provider does not start: ONNX Runtime tells it on standard error alone, and takes another."""

import contextlib
import io
import os
import re
import sys
import threading
from collections.abc import Collection, Iterator, Mapping

import onnxruntime

from .providers import PROVIDERS, WHEELS

# The least of graphs, y = Relu(x), written once with onnx: a provider either starts for it or for none.
_GRAPH = bytes.fromhex(
    "080712003a330a0c0a0178120179220452656c751201675a0f0a0178120a0a08080112040a020801"
    "620f0a0179120a0a08080112040a02080142040a00100d"
)

_WARNINGS = 2

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_ERROR_LINE = re.compile(r"\[E:onnxruntime[^]]*\] (.+)", re.DOTALL)
_LIBRARY = re.compile(r"([^\s:]+): cannot open shared object file")
# `file.cc:12 type name(arguments) ` and the marks of whoever speaks, before the sentence itself.
_SIGNATURE = re.compile(r"^.*\.cc:\d+ .*?\)(?:::<lambda.*?\)>)? (?=[A-Z\[])", re.DOTALL)
_MARK = re.compile(
    r"^.*\[(?:ERROR|OpenVINO|OpenVINO-EP|ONNXRuntimeError)\](?: : \d+ : [A-Z_]+ :)?", re.DOTALL
)

# What brings the libraries that a provider's own library needs, or the device.
_REMEDIES = {
    "cuda": "install CUDA and cuDNN, as by `pip install 'onnxruntime-gpu[cuda,cudnn]'`",
    "tensorrt": "install CUDA, cuDNN and TensorRT, as by `pip install 'onnxruntime-gpu[cuda,cudnn]' tensorrt`",
}

# Where a provider is of one system only: Python's name of it, and the users'.
_SYSTEMS = {"directml": ("win32", "Windows"), "coreml": ("darwin", "macOS")}

# Standard error belongs to the whole process.
_LOCK = threading.Lock()


def missing(provider: str) -> str | None:
    """Say why the installed ONNX Runtime has not got a provider at all; None where it has."""
    available = onnxruntime.get_available_providers()
    if PROVIDERS[provider] in available:
        return None
    here = ", ".join(short for short, long in PROVIDERS.items() if long in available)
    return (
        f"the installed ONNX Runtime has no provider {provider}, only {here}; {_wheel_advice(provider)}, "
        "or choose another provider"
    )


def problem(provider: str, options: Mapping[str, str], given: Collection[str] = ()) -> str | None:
    """Start a provider on a graph of one node; say why it does not start, None where it does.

    Args:
        provider: A key of `PROVIDERS` that the installed ONNX Runtime has.
        options: The provider's.
        given: The names of those that are a user's own.
    """
    wanted = PROVIDERS[provider]
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = _WARNINGS
    error: Exception | None = None
    started = False
    with _standard_error() as said:
        try:
            session = onnxruntime.InferenceSession(
                _GRAPH, settings, providers=[wanted], provider_options=[dict(options)], enable_fallback=0
            )
            started = session.get_providers()[0] == wanted
        # ONNX Runtime's exceptions share no base but this one.
        except Exception as raised:
            error = raised
    if started:
        return None
    text = "".join(said)
    reason, remedy = explain(text, error), _REMEDIES.get(provider, "mend its installation")
    if given and not _LIBRARY.search(text):
        remedy = f"check what it was given for {', '.join(given)}"
    return f"the provider {provider} does not start ({reason}); {remedy}, or choose another provider"


def explain(log: str, error: Exception | None) -> str:
    """Find the reason in what ONNX Runtime logged and threw: the library that is missing, or its last sentence."""
    if library := _LIBRARY.search(f"{log}\n{error or ''}"):
        return f"its library needs {library[1]}, which is not found"
    if error is not None:
        return sentence(str(error))
    # An entry begins with the year; some have several lines.
    lines = [match[1] for part in _COLOUR.sub("", log).split("\n20") if (match := _ERROR_LINE.search(part))]
    return sentence(lines[0]) if lines else "ONNX Runtime gives no reason"


def sentence(text: str) -> str:
    """Give what a message of ONNX Runtime says, without the places in its code."""
    lines = [line.strip() for line in _COLOUR.sub("", text).splitlines() if line.strip()]
    said = lines[-1] if lines else ""
    for clutter in (_SIGNATURE, _MARK):
        said = clutter.sub("", said)
    return said.strip().rstrip(".") or "ONNX Runtime gives no reason"


def preload(provider: str) -> None:
    """Let CUDA's libraries be found where pip installed them (nvidia-cudnn and its like)."""
    loader = getattr(onnxruntime, "preload_dlls", None)  # since 1.21
    if provider in ("cuda", "tensorrt") and loader is not None:
        # It prints what it does not find; whether that matters shows when the provider starts.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
            loader()


def _wheel_advice(provider: str) -> str:
    wheel = WHEELS.get(provider)
    if provider in _SYSTEMS and sys.platform != _SYSTEMS[provider][0]:
        return f"it is there on {_SYSTEMS[provider][1]} alone"
    if wheel is None:
        return "no wheel on PyPI brings it, and ONNX Runtime has to be built with it"
    installed = [name for name in sorted(set(WHEELS.values())) if _is_installed(name)]
    if wheel in installed and len(installed) > 1:
        others = " and ".join(name for name in installed if name != wheel)
        return (
            f"{wheel} is installed, but {others} overwrote it: "
            f"`pip uninstall -y {' '.join(installed)} && pip install {wheel}`"
        )
    remove = f"pip uninstall -y {' '.join(installed)} && " if installed else ""
    return f"its wheel is {wheel}: `{remove}pip install {wheel}`"


def _is_installed(wheel: str) -> bool:
    from importlib import metadata  # loads much, and only a failure asks

    try:
        metadata.version(wheel)
    except metadata.PackageNotFoundError:
        return False
    return True


@contextlib.contextmanager
def _standard_error() -> Iterator[list[str]]:
    """Catch what native code writes to the process's standard error."""
    import tempfile  # loads much, and only a failure asks

    said: list[str] = []
    with _LOCK, tempfile.TemporaryFile() as caught:
        try:
            before = os.dup(2)
        except OSError:  # a service may run without one
            yield said
            return
        try:
            if sys.stderr is not None:
                sys.stderr.flush()
            os.dup2(caught.fileno(), 2)
            try:
                yield said
            finally:
                os.dup2(before, 2)
        finally:
            os.close(before)
            caught.seek(0)
            said.append(caught.read().decode("utf-8", "replace"))

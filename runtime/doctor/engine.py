"""ONNX Runtime: its wheels, whether it loads, and which of its providers really start."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from .child import Outcome, attempt
from .finding import Finding, sentence
from .loading import loading
from .wheels import Wheel, reinstall, wheels

# Of two wheels, the one that was installed for its provider; the plain one is everybody's second.
_KEEP = ("onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml", "onnxruntime-qnn", "onnxruntime")

# What only one of an NVIDIA driver's ways of being installed has: a server's or a PC's, and a Jetson's.
_NVIDIA = ("proc/driver/nvidia/version", "dev/nvidia0", "dev/nvhost-gpu", "dev/nvgpu/igpu0")

_CURES = {
    "cuda": "With an NVIDIA GPU, install its driver and `pip install 'onnxruntime-gpu[cuda,cudnn]'`; "
    "without one, `pip uninstall -y onnxruntime-gpu`, then `pip install onnxruntime`.",
    "tensorrt": "Install TensorRT and name the folder of its libraries in LD_LIBRARY_PATH, or do without: the other "
    "providers need none of it.",
    "openvino": "Install its wheel anew: `pip install --force-reinstall onnxruntime-openvino`.",
}
_ANY_CURE = "Install what the provider needs, or choose another one"

# TensorRT comes with every wheel for CUDA, and most who take that wheel never install TensorRT's own libraries.
_OPTIONAL = ("tensorrt",)


def engine(root: Path = Path("/")) -> Iterator[Finding]:
    """Examine ONNX Runtime.

    Args:
        root: Where the system's files begin.
    """
    found = wheels("onnxruntime")
    values = yield from loading(
        "onnxruntime", "onnxruntime", "ONNX Runtime", found, keep=_KEEP, without="no model can run"
    )
    if values is None:
        return
    providers: list[str] = values["providers"]
    for name in providers:
        yield provider_finding(name, attempt("try_onnxruntime", name), found)
    if "cuda" not in providers and any((root / path).exists() for path in _NVIDIA):
        names = " ".join(wheel.name for wheel in found) or "onnxruntime"
        yield Finding(
            "onnxruntime.gpu",
            "note",
            "there is an NVIDIA GPU, and this ONNX Runtime has no CUDA",
            f"`pip uninstall -y {names}`, then `pip install 'vit-edge[runtime-gpu]'`; on a Jetson take the wheel that "
            "its maker builds.",
        )


def provider_finding(name: str, outcome: Outcome, found: Sequence[Wheel]) -> Finding:
    """Say whether a provider starts, and computes rightly by itself.

    Args:
        name: Its short name.
        outcome: What came of trying it.
        found: The wheels that bring ONNX Runtime.
    """
    ident = f"onnxruntime.{name}"
    if "right" in outcome.values:
        elsewhere = [place for place in outcome.values["ran_on"] if place != name]
        if elsewhere:
            return Finding(
                ident,
                "problem",
                f"{name} starts and leaves even a small product to {' and '.join(elsewhere)}",
                _CURES.get(name) or sentence(_again(found)),
                {"ran_on": list(outcome.values["ran_on"])},
            )
        if outcome.values["right"]:
            return Finding(ident, "ok", f"{name} starts and computes rightly")
        return Finding(
            ident,
            "problem",
            f"{name} starts and computes a wrong product",
            f"Update its driver and {found[0].name if found else 'ONNX Runtime'}, or choose another provider.",
        )
    refused = outcome.failure or outcome.values["refused"]
    missing = outcome.values.get("missing_libraries", [])
    why, _, cure = refused.partition("; ")
    if missing:
        few = ", ".join(missing[:4]) + (f" and {len(missing) - 4} more" if len(missing) > 4 else "")
        why = f"{name} does not start: it lacks the {'library' if len(missing) == 1 else 'libraries'} {few}"
    elif outcome.failure:
        why = f"{name} does not start: {outcome.failure}"
    if not cure:
        cure = _again(found)
    return Finding(
        ident,
        "note" if name in _OPTIONAL else "problem",
        why,
        _CURES.get(name) or sentence(cure),
        {"missing_libraries": list(missing), "reason": refused, "log": outcome.log[-4000:]},
    )


def _again(found: Sequence[Wheel]) -> str:
    return f"Install its wheel anew: {reinstall(found[0])}" if found else _ANY_CURE

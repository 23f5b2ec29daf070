"""What the processor can do that decides the speed and the answers of INT8, and how two devices differ in it."""

import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .providers import SHORT_NAMES

# As Linux names them in /proc/cpuinfo. Without one of the dot-product instructions (VNNI, asimddp), 8-bit products
# are summed in 16 bits or widened first: slower, and on x86 an unsigned-by-signed sum can saturate.
INT8_FEATURES = (
    "avx2",
    "avx512bw",
    "avx_vnni",
    "avx512_vnni",
    "amx_int8",
    "asimddp",
    "i8mm",
    "sve",
)

# Any of these sums four unsigned-by-signed products in 32 bits.
_X86_DOT_PRODUCTS = ("avx_vnni", "avx512_vnni", "amx_int8")

DOT_PRODUCTS = (*_X86_DOT_PRODUCTS, "asimddp", "i8mm")
"""The features with which several 8-bit products are summed by one instruction."""

# A recipe for one of these targets needs no more of the processor than this, wherever it was measured.
_ENOUGH = {"cpu-avx2": ("avx2",)}

# Other systems' names of what Linux calls x86_64 and aarch64.
_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}


def processor() -> dict[str, Any]:
    """Describe the processor: its architecture, its name, and its features that matter to INT8.

    Where the system does not tell the features (Linux does), they are left out.
    """
    fields = _cpuinfo()
    flags = fields.get("flags") or fields.get("Features")
    found: dict[str, Any] = {
        "architecture": platform.machine(),
        "name": fields.get("model name") or fields.get("Model") or platform.processor(),
    }
    if flags is not None:
        found["features"] = [feature for feature in INT8_FEATURES if feature in flags.split()]
    return found


def differences(recipe: Mapping[str, Any], provider: str, here: Mapping[str, Any]) -> Iterator[str]:
    """Say how a device differs from the one that a file was measured on, where that can change speed or answers.

    Args:
        recipe: The file's, with its `provider`, `target`, `precision` and `processor`; what it lacks is no difference.
        provider: ONNX Runtime's name of the execution provider that runs here.
        here: The processor here, as `processor` gives it.

    Yields:
        Sentences without their subject, the file.
    """
    measured_on = recipe.get("provider")
    made_for = str(recipe.get("target")).partition("-")[0]
    if measured_on is None and made_for != "cpu" and SHORT_NAMES.get(provider) == made_for:
        yield (
            f"was made for {made_for} and does not say where it was measured: answers and speed here are unproven; "
            "check it with `vit-edge check`"
        )
    if measured_on is not None and measured_on != provider:
        yield (
            f"was measured on {measured_on} and runs on {provider} here: answers and speed may differ; "
            "check it with `vit-edge check`, or choose the provider that it was made for"
        )
    measured = recipe.get("processor")
    if recipe.get("precision") == "int8" and isinstance(measured, Mapping):
        yield from _processor_differences(recipe.get("target"), measured, here)


def _processor_differences(
    target: Any, measured: Mapping[str, Any], here: Mapping[str, Any]
) -> Iterator[str]:
    check = "check it with `vit-edge check`"
    there, local = (_architecture(one.get("architecture")) for one in (measured, here))
    if there and local and there != local:
        yield (
            f"was measured on a processor of type {there}, and this one is {local}: "
            f"answers and speed may differ; {check}"
        )
        return
    features, present = measured.get("features"), here.get("features")
    if not isinstance(features, list) or present is None:
        return
    needed = [feature for feature in features if feature in _ENOUGH.get(str(target), features)]
    lacking = [feature for feature in needed if feature not in present]
    if not lacking:
        return
    dot_products = [feature for feature in lacking if feature in _X86_DOT_PRODUCTS]
    if dot_products and not any(feature in present for feature in _X86_DOT_PRODUCTS):
        yield (
            f"was measured on a processor with {', '.join(dot_products)}, and this one has nothing of the kind: sums "
            f"of 8-bit products can saturate, so that answers and speed may differ; {check}, "
            "or export with --target cpu-avx2"
        )
    else:
        yield (
            f"was measured on a processor with {', '.join(lacking)}, which this one lacks: "
            f"answers and speed may differ; {check}"
        )


def _architecture(name: Any) -> str:
    lower = str(name or "").lower()
    return _ARCHITECTURES.get(lower, lower)


def _cpuinfo() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines if ":" in line)
    fields: dict[str, str] = {}
    for key, _, value in pairs:
        fields.setdefault(key.strip(), value.strip())
    return fields

"""What the processor can do that decides the speed and the answers of INT8."""

import platform
from pathlib import Path

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


def processor() -> dict[str, object]:
    """Describe the processor: its architecture, its name, and its features that matter to INT8."""
    fields = _cpuinfo()
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    return {
        "architecture": platform.machine(),
        "name": fields.get("model name") or fields.get("Model") or platform.processor(),
        "features": [feature for feature in INT8_FEATURES if feature in flags],
    }


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

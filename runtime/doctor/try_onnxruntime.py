"""Loads ONNX Runtime and tells its version and providers; with a provider's name, runs a small graph on it."""

import ctypes
import re
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

from .child import give

# One product that every provider has: (2, 4) float32 times twice the identity.
_SIDE = 4


def versions() -> dict[str, Any]:
    """Load ONNX Runtime."""
    import onnxruntime  # before numpy, so that of both it is the one to be missed

    from ..providers import PROVIDERS

    available = onnxruntime.get_available_providers()
    return {
        "version": onnxruntime.__version__,
        "file": onnxruntime.__file__,
        # What is none of these (Azure's) sends the pictures away.
        "providers": [short for short, long in PROVIDERS.items() if long in available],
    }


def provider(name: str) -> dict[str, Any]:
    """Run a small graph on one provider, with the options that a model gets; check the answer, and where it ran."""
    import numpy as np
    import onnxruntime

    # None of these needs OpenCV, which may be what is missing.
    from ..cores import usable_cores
    from ..placement import RECORD, placed
    from ..probe import preload, problem
    from ..providers import PROVIDERS, Use, set_up

    preload(name)
    options = dict(set_up(name, Use(threads=usable_cores())).options)
    if refused := problem(name, options):
        return {"refused": refused, "missing_libraries": missing_libraries(name)}

    def opened(profile: Path | None = None) -> onnxruntime.InferenceSession:
        settings = onnxruntime.SessionOptions()
        settings.add_session_config_entry(*RECORD)
        if profile is not None:
            settings.enable_profiling = True
            settings.profile_file_prefix = str(profile)
        return onnxruntime.InferenceSession(
            product(), settings, providers=[PROVIDERS[name]], provider_options=[options], enable_fallback=0
        )

    session = opened()
    given = np.arange(2 * _SIDE, dtype=np.float32).reshape(2, _SIDE)
    (doubled,) = session.run(None, {"given": given})
    # Half precision is exact here; 8 bits would not be.
    right = bool(np.allclose(doubled, 2 * given, rtol=1e-2))
    # A provider that has started may still have left the graph to the processor.
    return {"right": right, "ran_on": list(placed(session, opened))}


def missing_libraries(name: str) -> list[str]:
    """Name the shared libraries that a provider's own library lacks: the loader's error names the first one only."""
    import onnxruntime

    library = Path(onnxruntime.__file__).parent / "capi" / f"libonnxruntime_providers_{name}.so"
    if not library.exists() or shutil.which("ldd") is None:
        return []
    done = subprocess.run(["ldd", str(library)], capture_output=True, text=True, timeout=60, check=False)
    absent = dict.fromkeys(re.findall(r"(\S+) => not found", done.stdout))
    return [found for found in absent if not _loads(found)]


def _loads(library: str) -> bool:
    """Tell whether a library is there for this process, which may have loaded it from a place of its own."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def product() -> bytes:
    """Write the trial graph as protobuf, by the field numbers of onnx.proto3: a device has no onnx package."""
    weights = [2.0 * (row == column) for row in range(_SIDE) for column in range(_SIDE)]
    tensor = b"".join(
        (
            _field(1, _SIDE) * 2,
            _field(2, 1),
            _field(8, b"weights"),
            _field(9, struct.pack(f"<{_SIDE**2}f", *weights)),
        )
    )
    node = b"".join((_field(1, b"given"), _field(1, b"weights"), _field(2, b"doubled"), _field(4, b"MatMul")))
    graph = b"".join(
        (
            _field(1, node),
            _field(2, b"trial"),
            _field(5, tensor),
            _field(11, _value(b"given")),
            _field(12, _value(b"doubled")),
        )
    )
    # IR version 8 and opset 13: what the oldest ONNX Runtime that vit-edge takes still reads.
    return _field(1, 8) + _field(7, graph) + _field(8, _field(1, b"") + _field(2, 13))


def _value(name: bytes) -> bytes:
    shape = b"".join(_field(1, _field(1, size)) for size in (2, _SIDE))
    return _field(1, name) + _field(2, _field(1, _field(1, 1) + _field(2, shape)))


def _field(number: int, value: int | bytes) -> bytes:
    # No number, length or value here exceeds what one or two bytes of a varint hold.
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    return bytes((value,)) if value < 128 else bytes((value & 127 | 128, value >> 7))


def _trial(name: str = "") -> dict[str, Any]:
    return provider(name) if name else versions()


if __name__ == "__main__":
    give(_trial)

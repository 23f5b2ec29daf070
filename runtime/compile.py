"""Compiles a model file for this device ahead of its first start, into the device's cache; the file stays as it is."""

import os
import statistics
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .cache import CACHE_VARIABLE, cache_folder
from .errors import VitEdgeError
from .model_file import require_file
from .opening import Compiling
from .providers import keeps
from .seal import check_seal
from .session import Started, start_session
from .shelf import files_in, forget_compiled

# The first start of a process also loads code and files; three of each kind are in turns.
_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Compiled:
    """What is in the cache now.

    Attributes:
        provider: The provider that it is for.
        folder: Where it is.
        bytes: The room that it takes.
        first_ms: The time to open the file without it; for a provider that takes long to compile, that of this very
            time. None where it was there before.
        start_ms: The time to open the file with it.
    """

    provider: str
    folder: Path
    bytes: int
    first_ms: float | None
    start_ms: float

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, ready for JSON."""
        return asdict(self) | {"folder": str(self.folder)}


def compile_model(
    model: str | os.PathLike[str],
    *,
    provider: str = "auto",
    threads: int | None = None,
    provider_options: Mapping[str, str] | None = None,
    compiling: Compiling = nullcontext,
) -> Compiled:
    """Compile a model file for this device: every later `Classifier` of it starts sooner.

    For the processor, that is the graph as ONNX Runtime rewrites it at each start; for other providers what they keep
    by themselves, made now instead of at the first start. It is tied to the file, the version of ONNX Runtime, the
    processor and the options; where one of them has changed, the next start makes it anew.

    Args:
        model: A file made by ``vit-edge export``.
        provider: As `Classifier` takes it.
        threads: As `Classifier` takes it.
        provider_options: As `Classifier` takes it.
        compiling: As `Classifier` takes it.

    Raises:
        ModelError: The file is absent, damaged, or cannot be run.
        ProviderError: The provider is missing, does not start, or did not take the model.
        VitEdgeError: The provider keeps nothing, or the cache cannot be written to.
    """
    path, seal = _sealed(model)

    def start(cached: bool, provider: str) -> tuple[Started, float]:
        begun = time.perf_counter()
        started = start_session(
            path,
            name=str(path),
            provider=provider,
            threads=threads,
            options=provider_options,
            seal=seal if cached else None,
            keep=cached,
            compiling=compiling,
        )
        return started, (time.perf_counter() - begun) * 1e3

    first, first_ms = start(True, provider)
    if first.kept is None:
        raise VitEdgeError(_why_nothing(first.provider, provider_options or {}))
    # Named from here on: options are for a provider that is named.
    plain, cached = [], []
    for _ in range(_ROUNDS):
        if first.provider == "cpu":
            plain.append(start(False, "cpu")[1])
        cached.append(start(True, first.provider)[1])
    before = statistics.median(plain) if plain else (first_ms if first.compiled else None)
    size = sum(file.stat().st_size for file in files_in(first.kept))
    return Compiled(first.provider, first.kept, size, before, statistics.median(cached))


def forget_model(model: str | os.PathLike[str]) -> bool:
    """Remove all that was compiled of a model file on this device; whether there was something.

    Raises:
        ModelError: The file is absent or damaged.
    """
    return forget_compiled(_sealed(model)[1])


def _sealed(model: str | os.PathLike[str]) -> tuple[Path, str]:
    path = Path(model)
    require_file(path)
    return path, check_seal(path, str(path))


def _why_nothing(provider: str, options: Mapping[str, str]) -> str:
    folder = cache_folder()
    if provider != "cpu" and not keeps(provider, options):
        return (
            f"the provider {provider} keeps nothing that it could read back at the next start; "
            "docs/providers.md says which ones do"
        )
    place = "this user has no home folder for a cache" if folder is None else f"{folder} cannot be written to"
    return f"nothing was kept, since {place}; set {CACHE_VARIABLE} to a folder that can be written to"

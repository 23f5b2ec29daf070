"""The execution providers of ONNX Runtime: their names and wheels, and the options that suit a ViT.

An option that a user gives wins over one from here.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from .errors import ProviderError

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
}
"""The short names of the execution providers, and ONNX Runtime's names for them."""

WHEELS = {
    "cpu": "onnxruntime",
    "cuda": "onnxruntime-gpu",
    "tensorrt": "onnxruntime-gpu",
    "openvino": "onnxruntime-openvino",
    "directml": "onnxruntime-directml",
    "coreml": "onnxruntime",
    "qnn": "onnxruntime-qnn",
}
"""The wheels that bring them: Core ML's on macOS alone, DirectML's on Windows; XNNPACK takes a build of one's own."""

SHORT_NAMES = {long: short for short, long in PROVIDERS.items()}
"""ONNX Runtime's names of the providers, and the short ones."""

TENSORRT_BATCH = 8
"""The largest batch that TensorRT's engine is built for: one engine for all sizes up to it, never built anew."""

_OPTION = "leave it out, or see docs/providers.md for what the provider takes"


class Use(NamedTuple):
    """What a provider is used for, as far as its options depend on it.

    Attributes:
        precision: The file's: ``float32``, ``float16`` or ``int8``.
        own_recipe: Whether the file was made for the provider.
        threads: How many threads compute one answer.
        folder: Where the provider may keep what it compiles; None for nowhere.
        input: Name and sides, without the batch, of the graph's input; None where they are not known.
    """

    precision: str = "float32"
    own_recipe: bool = False
    threads: int = 1
    folder: Path | None = None
    input: tuple[str, tuple[int, ...]] | None = None


class Setup(NamedTuple):
    """How a session of a provider is opened.

    Attributes:
        options: The provider's, as text.
        session_threads: ONNX Runtime's own threads, which compute what the provider leaves.
        spinning: Whether these may spin while they wait; None for ONNX Runtime's default.
        entries: Of the session's configuration.
        next_best: Providers for what it leaves, before the processor: their names and options.
        one_batch: Whether the free batch axis is fixed at 1: the provider takes only shapes that are known, or is
            faster with them.
        in_order: Whether nodes run one after another with memory of their own, as DirectML demands.
        largest_batch: The largest that it takes; None for any.
    """

    options: Mapping[str, str]
    session_threads: int
    spinning: bool | None = None
    entries: Mapping[str, str] = MappingProxyType({})
    next_best: Mapping[str, Mapping[str, str]] = MappingProxyType({})
    one_batch: bool = False
    in_order: bool = False
    largest_batch: int | None = None


COMPILED = frozenset({"tensorrt", "openvino", "coreml", "qnn"})
"""Providers that compile a graph when it is opened."""

CONTEXT = "context.onnx"
"""What QNN's compiled graph is called in its folder: a model file in the place of the one that it was made from."""

# Known shapes only, or much faster with them (each provider's page in ONNX Runtime's documentation).
_ONE_BATCH = frozenset({"directml", "coreml", "qnn", "xnnpack"})


def keeps(provider: str, options: Mapping[str, str]) -> bool:
    """Tell whether a provider can keep what it compiled, and read it back."""
    if provider == "openvino":
        # For the processor, ONNX Runtime's wheel (1.24.1) writes what it compiled and cannot read it: it lacks
        # OpenVINO's reader of its own format. So it compiles at every start, in half a second for a small network.
        return not options.get("device_type", "CPU").startswith("CPU")
    return provider in COMPILED


def set_up(provider: str, use: Use, given: Mapping[str, str] = MappingProxyType({})) -> Setup:
    """Give how a session of a provider is opened.

    Args:
        provider: A key of `PROVIDERS`.
        use: What for.
        given: A user's own options.

    Raises:
        ProviderError: An option of the user's cannot be meant.
    """
    if given and provider == "cpu":
        raise ProviderError(
            f"the provider cpu takes no options, got {', '.join(given)}; leave them out, or name another provider"
        )
    options = _OPTIONS[provider](use) | _checked(provider, given)
    return Setup(
        options=options,
        # XNNPACK has threads of its own, and those of the session would fight for the same cores.
        session_threads=1 if provider == "xnnpack" else use.threads,
        spinning=False if provider == "xnnpack" else None,
        entries=_context_entries(use.folder) if provider == "qnn" and use.folder is not None else {},
        next_best={PROVIDERS["cuda"]: _cuda(use)} if provider == "tensorrt" else {},
        one_batch=provider in _ONE_BATCH,
        in_order=provider == "directml",
        largest_batch=TENSORRT_BATCH if "trt_profile_max_shapes" in options.keys() - given.keys() else None,
    )


def _checked(provider: str, given: Mapping[str, str]) -> dict[str, str]:
    if provider == "openvino" and "load_config" in given:
        # The name of a file, which other versions took, is answered with a silent fall back (onnxruntime issue 26562).
        try:
            valid = isinstance(json.loads(given["load_config"]), dict)
        except ValueError:
            valid = False
        if not valid:
            raise ProviderError(
                'expected load_config to be a JSON object such as {"CPU": {"INFERENCE_PRECISION_HINT": "f32"}}, '
                f"got {given['load_config']!r}; {_OPTION}"
            )
    return dict(given)


def _cpu(use: Use) -> dict[str, str]:
    return {}


def _cuda(use: Use) -> dict[str, str]:
    return {
        # One convolution, the patch embedding: trying all algorithms (the default) delays the first answer of every
        # batch size, and gains nothing.
        "cudnn_conv_algo_search": "HEURISTIC",
        # TF32 has 10 bits of mantissa: enough for an INT8 or float16 graph, and less than float32 was proven with.
        "use_tf32": "0" if use.precision == "float32" else "1",
    }


def _tensorrt(use: Use) -> dict[str, str]:
    options = {
        "trt_int8_enable": "1" if use.precision == "int8" else "0",
        # What an INT8 recipe leaves in float is computed in half precision, as torch's autocast would.
        "trt_fp16_enable": "0" if use.precision == "float32" else "1",
    }
    if use.folder is not None:
        options |= {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(use.folder),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(use.folder),
        }
    if use.input is not None:
        # Without a range of shapes the engine is built at the first answer, and again at each larger batch.
        name, sides = use.input
        for end, batch in (("min", 1), ("opt", 1), ("max", TENSORRT_BATCH)):
            shape = "x".join(str(side) for side in (batch, *sides))
            options[f"trt_profile_{end}_shapes"] = f"{name}:{shape}"
    return options


def _openvino(use: Use) -> dict[str, str]:
    # bf16 is what an INT8 recipe of this provider was measured with; a processor without it ignores the hint. Left to
    # itself the provider may take bf16 for float32 too, and a recipe of another provider can answer wrongly in it.
    hint = "bf16" if use.own_recipe and use.precision == "int8" else "f32"
    options = {
        "device_type": "CPU",
        # A JSON text: the provider's own option `precision` takes no bf16.
        "load_config": json.dumps({"CPU": {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}}),
        # It does not read the session's.
        "num_of_threads": str(use.threads),
    }
    if use.folder is not None:
        options["cache_dir"] = str(use.folder)
    return options


def _coreml(use: Use) -> dict[str, str]:
    # The older format, the default, lacks LayerNormalization and Gelu; the Neural Engine takes fixed shapes only.
    options = {"ModelFormat": "MLProgram", "MLComputeUnits": "ALL", "RequireStaticInputShapes": "1"}
    if use.folder is not None:
        options["ModelCacheDirectory"] = str(use.folder)
    return options


def _qnn(use: Use) -> dict[str, str]:
    return {
        "backend_type": "htp",
        # What a recipe leaves in float would otherwise go back to the processor (onnxruntime issue 18351).
        "enable_htp_fp16_precision": "1",
        "htp_performance_mode": "sustained_high_performance",
    }


def _context_entries(folder: Path) -> dict[str, str]:
    return {
        "ep.context_enable": "1",
        "ep.context_embed_mode": "1",
        "ep.context_file_path": str(folder / CONTEXT),
    }


def _xnnpack(use: Use) -> dict[str, str]:
    return {"intra_op_num_threads": str(use.threads)}


_OPTIONS: dict[str, Any] = {
    "cpu": _cpu,
    "cuda": _cuda,
    "tensorrt": _tensorrt,
    "openvino": _openvino,
    "directml": _cpu,
    "coreml": _coreml,
    "qnn": _qnn,
    "xnnpack": _xnnpack,
}

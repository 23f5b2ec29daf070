"""Opens an ONNX Runtime session on the provider that was asked for, and on no other."""

from pathlib import Path

import onnxruntime

from .cores import usable_cores
from .errors import ModelError, ProviderError

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

# Only errors: ONNX Runtime would write its warnings to the user's terminal.
_QUIET = 3


def open_session(
    model: Path | bytes,
    *,
    name: str,
    provider: str = "cpu",
    threads: int | None = None,
    spinning: bool = True,
    profile: Path | None = None,
) -> onnxruntime.InferenceSession:
    """Open a session.

    Args:
        model: The file's path or bytes.
        name: The file's name, for the errors.
        provider: A key of `PROVIDERS`.
        threads: How many threads compute one answer; as many as the process has cores unless given.
        spinning: Whether threads that wait for work keep their cores busy meanwhile: a little faster on a machine
            with nothing else to do, a waste where answers come now and then.
        profile: How the file's name begins in which ONNX Runtime notes the time of each operator.

    Raises:
        ModelError: The file is no ONNX model that this ONNX Runtime can run.
        ProviderError: The provider is unknown, missing, or was left by ONNX Runtime for another.
    """
    if provider not in PROVIDERS:
        known = ", ".join(("auto", *PROVIDERS))
        raise ProviderError(f"there is no provider {provider!r}; choose one of {known}")
    if threads is not None and threads < 1:
        raise ProviderError(f"expected at least 1 thread, got {threads}; leave it out to use every core")
    wanted = PROVIDERS[provider]
    available = onnxruntime.get_available_providers()
    if wanted not in available:
        here = ", ".join(short for short, long in PROVIDERS.items() if long in available)
        raise ProviderError(
            f"the installed ONNX Runtime has no provider {provider}, only {here}; "
            "install the wheel that brings it, or choose another provider"
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _QUIET
    options.intra_op_num_threads = threads or usable_cores()
    if not spinning:
        for kind in ("intra_op", "inter_op"):
            options.add_session_config_entry(f"session.{kind}.allow_spinning", "0")
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    try:
        session = onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model), options, providers=[wanted]
        )
    # ONNX Runtime's exceptions share no base but this one.
    except Exception as error:
        raise refusal(error, name) from error
    if session.get_providers()[0] != wanted:
        raise ProviderError(
            f"ONNX Runtime could not start the provider {provider} and fell back to {session.get_providers()[0]}; "
            "mend its installation, or choose the provider cpu"
        )
    return session


def refusal(error: Exception, name: str) -> ModelError:
    """Make one sentence of what ONNX Runtime threw: it cannot load a model, or failed while it ran it."""
    reason = " ".join(str(error).split())
    return ModelError(
        f"ONNX Runtime {onnxruntime.__version__} cannot run {name} ({reason}); update onnxruntime, "
        "or make the file anew with `vit-edge export`"
    )

"""Traces a torch module to one ONNX graph with torch's current exporter."""

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO

import onnx
import torch
from torch import nn

from ..errors import ExportError
from ..reference import Logits, evaluating
from .graph import without_notes
from .limits import IR_VERSIONS, MAX_BYTES, OPSETS
from .network import INPUT, OUTPUT

# The exporter bakes a batch of 1 into the graph, so that the example must hold more.
_EXAMPLES = 2


def trace(module: nn.Module, *, size: tuple[int, int], opset: int) -> onnx.ModelProto:
    """Trace a classifier; the graph takes any batch size.

    Args:
        module: Maps (batch, 3, height, width) float32 to logits.
        size: Height and width in pixels.
        opset: The ONNX operator set to write, one of `OPSETS`.

    Raises:
        ExportError: The module is too large for one file, or the exporter does not take it.
    """
    if opset not in OPSETS:
        raise ExportError(f"expected an opset from {OPSETS[0]} to {OPSETS[-1]}, got {opset}")
    needed = sum(parameter.numel() * 4 for parameter in module.parameters())
    if needed > MAX_BYTES:
        raise ExportError(
            f"the weights take {needed / 2**30:.1f} GiB in float32, and one ONNX file holds less than 2 GiB; "
            "export a smaller model"
        )
    example = torch.zeros(_EXAMPLES, 3, *size)
    try:
        with _quiet(), evaluating(module):
            program = torch.onnx.export(
                Logits(_on_cpu(module)).eval(),
                (example,),
                dynamo=True,
                opset_version=opset,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
    # The exporter raises whatever its many stages raise.
    except Exception as error:
        raise ExportError(
            f"torch could not trace {type(module).__name__} ({_reason(error)}); its forward must take one tensor of "
            f"shape (batch, 3, {size[0]}, {size[1]}) and return logits, without control flow that depends on them"
        ) from error
    if program is None:
        raise ExportError("torch's exporter gave no graph; update torch")
    model: onnx.ModelProto = program.model_proto
    model.ir_version = IR_VERSIONS[opset]
    return without_notes(model)


def _on_cpu(module: nn.Module) -> nn.Module:
    """Give the module itself where it is on the processor, else a copy: moving is in place, and it is the caller's."""
    if all(parameter.device.type == "cpu" for parameter in module.parameters()):
        return module
    return copy.deepcopy(module).cpu()


def _reason(error: BaseException) -> str:
    """Give the first line of what went wrong first; the exporter wraps it in pages of advice on itself."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's chatter from the user: its optional packages, and the programs that it failed on."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)

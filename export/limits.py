"""What the ONNX format and the runtimes in the field allow."""

import onnx

MAX_BYTES = 2**31 - 2**26
"""One protobuf message holds at most 2 GiB; the graph around the weights needs some room in it."""

IR_VERSIONS = {17: 8, 18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11}
"""The IR version to write with each opset: the highest that the oldest ONNX Runtime with that opset reads."""

OPSETS = tuple(IR_VERSIONS)
"""The opsets that can be written."""

# From ONNX Runtime's table of versions and opsets.
_OLDEST_ONNXRUNTIME = {17: "1.12", 18: "1.14", 19: "1.15", 20: "1.17", 21: "1.18", 22: "1.20", 23: "1.23"}


def oldest_onnxruntime(model: onnx.ModelProto) -> str:
    """Give the oldest ONNX Runtime that reads a graph's opset and IR version."""
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return _OLDEST_ONNXRUNTIME[opset]

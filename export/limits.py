"""What the ONNX format and the runtimes in the field allow."""

import onnx

MAX_BYTES = 2**31 - 2**26
"""One protobuf message holds at most 2 GiB; the graph around the weights needs some room in it."""

IR_VERSIONS = {17: 8, 18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11}
"""The IR version to write with each opset: the highest that the oldest ONNX Runtime with that opset reads."""

OPSETS = tuple(IR_VERSIONS)
"""The opsets that can be written."""

# From ONNX Runtime's table of versions and opsets, and the release notes for its own operators; minor versions of 1.
_OLDEST_OF_OPSET = {17: 12, 18: 14, 19: 15, 20: 17, 21: 18, 22: 20, 23: 23}
_OLDEST_OF_OPERATOR = {"MultiHeadAttention": 14}


def oldest_onnxruntime(model: onnx.ModelProto) -> str:
    """Give the oldest ONNX Runtime that reads a graph's opset and IR version, and has its operators."""
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    needed = (_OLDEST_OF_OPERATOR.get(node.op_type, 0) for node in model.graph.node if node.domain)
    return f"1.{max(_OLDEST_OF_OPSET[opset], *needed, 0)}"

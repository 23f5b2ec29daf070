"""Simplification by onnxsim: constants folded, shapes computed, dead nodes dropped."""

from dataclasses import dataclass

import onnx

from ...errors import ExportError


@dataclass(frozen=True)
class Simplify:
    """Simplify the graph with onnxsim.

    It is native code over the whole graph and has crashed on some, so that the pipeline runs it in a process apart.
    """

    def __call__(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """Give the simplified graph.

        Raises:
            ExportError: onnxsim could not prove its own result.
        """
        import onnxsim

        simplified, proven = onnxsim.simplify(model)
        if not proven:
            raise ExportError("onnxsim's result differs from its input")
        del simplified.graph.value_info[:]
        # onnxsim may write the newest IR version, which an older runtime would refuse.
        simplified.ir_version = model.ir_version
        return simplified  # type: ignore[no-any-return]

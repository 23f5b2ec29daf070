"""Lets linear layers work on tokens as they are, without the reshapes that simplifiers put around them."""

from dataclasses import dataclass

import onnx
import onnx_ir as ir

from ..rewrite import affine, constant, consumers, observe_shapes, to_proto, walk


@dataclass(frozen=True)
class Unflatten:
    """Drop reshapes of (batch, tokens, channels) to (batch · tokens, channels) and back around a product.

    A product over the last axis does not care; the reshapes hide the structure that other passes look for.
    """

    def __call__(self, model: onnx.ModelProto) -> onnx.ModelProto:
        shapes = observe_shapes(model)
        twin = ir.from_proto(model)
        for node in walk(twin.graph, "MatMul"):
            flat = node.inputs[0]
            before = flat.producer() if flat is not None else None
            if before is None or before.op_type != "Reshape" or constant(node.inputs[1]) is None:
                continue
            tokens = before.inputs[0]
            assert tokens is not None
            assert flat is not None
            inner, outer = shapes.get(flat.name or ""), shapes.get(tokens.name or "")
            if inner is None or outer is None or len(inner) != 2 or len(outer) < 3 or inner[-1] != outer[-1]:
                continue
            # Everything up to the reshape back must be indifferent to the number of axes as well.
            after = node.outputs[0]
            following = consumers(after)
            if len(following) == 1 and following[0].op_type == "Add" and affine(following[0].outputs[0]):
                after = following[0].outputs[0]
                following = consumers(after)
            if not following or any(
                user.op_type != "Reshape" or 0 in (constant(user.inputs[1]) if constant(user.inputs[1]) is not None else [0])
                for user in following
            ):
                continue
            node.replace_input_with(0, tokens)
            wanted = (*outer[:-1], shapes[after.name or ""][-1])
            for user in following:
                if shapes.get(user.outputs[0].name or "") == wanted and not user.outputs[0].is_graph_output():
                    ir.convenience.replace_all_uses_with(user.outputs[0], after)
        return to_proto(twin)

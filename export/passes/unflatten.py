"""Lets linear layers work on tokens as they are, without the reshapes and transposes put around them."""

from dataclasses import dataclass

import onnx
import onnx_ir as ir

from ..rewrite import Observed, affine, constant, consumers, observe, to_proto, walk


@dataclass(frozen=True)
class Unflatten:
    """Drop changes of the token axes before a product, and their reverse behind it.

    A product over the last axis does not care whether tokens lie as (batch, tokens, channels), flat as
    (batch · tokens, channels), or tokens first; the changes cost time and hide the structure that other passes
    look for.
    """

    def __call__(self, model: onnx.ModelProto) -> onnx.ModelProto:
        dropped = True
        # A reshape may hide a transpose.
        while dropped:
            observed = observe(model)
            twin = ir.from_proto(model)
            dropped = False
            for node in walk(twin.graph, "MatMul"):
                dropped |= _drop(node, observed)
            model = to_proto(twin)
        return model


def _drop(node: ir.Node, observed: Observed) -> bool:
    before = node.inputs[0].producer() if node.inputs[0] is not None else None
    if before is None or constant(node.inputs[1]) is None:
        return False
    after, users = _behind(node)
    if before.op_type == "Reshape":
        return _drop_reshapes(node, before, after, users, observed)
    return before.op_type == "Transpose" and _drop_transposes(node, before, after, users)


def _behind(node: ir.Node) -> tuple[ir.Value, list[ir.Node]]:
    """Give what a product comes to with its bias, and what takes it."""
    after = node.outputs[0]
    users = consumers(after)
    if len(users) == 1 and users[0].op_type == "Add" and affine(users[0].outputs[0]):
        after = users[0].outputs[0]
        users = consumers(after)
    return after, users


def _drop_reshapes(
    node: ir.Node, before: ir.Node, after: ir.Value, users: list[ir.Node], observed: Observed
) -> bool:
    tokens = before.inputs[0]
    inner, outer, end = observed.shape(before.outputs[0]), observed.shape(tokens), observed.shape(after)
    if tokens is None or inner is None or outer is None or end is None:
        return False
    flattens = len(inner) == 2 and len(outer) >= 3 and inner[-1] == outer[-1]
    if not flattens or not users or not all(_reshapes_freely(user) for user in users):
        return False
    node.replace_input_with(0, tokens)
    for user in users:
        result = user.outputs[0]
        if observed.shape(result) == (*outer[:-1], end[-1]) and not result.is_graph_output():
            ir.convenience.replace_all_uses_with(result, after)
    return True


def _drop_transposes(node: ir.Node, before: ir.Node, after: ir.Value, users: list[ir.Node]) -> bool:
    # Swapping the first two of three axes is its own reverse.
    swapped, tokens = [1, 0, 2], before.inputs[0]
    transposes = [before, *users]
    if tokens is None or not users or any(user.op_type != "Transpose" for user in transposes):
        return False
    if any(list(user.attributes.get_ints("perm", ())) != swapped for user in transposes):
        return False
    if any(user.outputs[0].is_graph_output() for user in users):
        return False
    node.replace_input_with(0, tokens)
    for user in users:
        ir.convenience.replace_all_uses_with(user.outputs[0], after)
    return True


def _reshapes_freely(node: ir.Node) -> bool:
    """Tell whether a node is a reshape to sides that are all its own: a 0 would copy one of its input's."""
    sides = constant(node.inputs[1]) if node.op_type == "Reshape" else None
    return sides is not None and 0 not in sides

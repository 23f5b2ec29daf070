"""The last block computed for the class token alone, where only that one reaches the head."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from ..rewrite import (
    TOKENWISE,
    Observed,
    add_constant,
    constant,
    consumers,
    insert_before,
    observe,
    to_proto,
    walk,
)
from .fuse_attention import CONTRIB, Fused


@dataclass(frozen=True)
class ClassTokenOnly:
    """Select the token that the head reads before the last block, not after it.

    Keys and values still need every token; queries, the projection, the MLP and the norms of the last block are then
    computed for one. Runs after `FuseAttention`.
    """

    def __call__(self, model: onnx.ModelProto) -> onnx.ModelProto:
        observed = observe(model)
        twin = ir.from_proto(model)
        for gather in walk(twin.graph, "Gather"):
            source, index = gather.inputs[0], constant(gather.inputs[1])
            axis = gather.attributes.get_int("axis", 0)
            if source is not None and index is not None and index.ndim == 0 and axis == 1:
                _Selection(twin.graph, observed, gather, int(index)).apply()
        return to_proto(twin)


class _Selection:
    """Moves the selection of one token up the graph, through every node of which only that token is read."""

    def __init__(self, graph: ir.Graph, observed: Observed, gather: ir.Node, token: int) -> None:
        self._graph = graph
        self._is_tokens = observed.is_tokens
        self._gather = gather
        self._token = token

    def apply(self) -> None:
        nodes = self._lone_nodes()
        if not any(_is_attention(node) for node in nodes):
            return
        index = add_constant(self._graph, "token", np.array([self._token], np.int64))
        lone = {output for node in nodes for output in node.outputs}
        picked: dict[ir.Value, ir.Value] = {}

        def pick(value: ir.Value, before: ir.Node) -> ir.Value:
            if value not in picked:
                select = ir.node("Gather", [value, index], {"axis": 1}, name=f"{value.name}_token")
                insert_before(before, [select])
                picked[value] = select.outputs[0]
            return picked[value]

        for node in nodes:
            if _is_attention(node):
                self._narrow_attention(node, pick)
                continue
            for place, value in enumerate(node.inputs):
                if value is not None and value not in lone and self._is_tokens(value):
                    node.replace_input_with(place, pick(value, node))
        self._gather.replace_input_with(1, add_constant(self._graph, "first", np.array(0, np.int64)))

    def _lone_nodes(self) -> list[ir.Node]:
        """Give, in graph order, the nodes whose output is read at the one token only."""
        lone: list[ir.Node] = []
        found = {self._gather}
        for node in reversed(self._graph):
            if (
                len(node.outputs) != 1
                or not self._is_tokens(node.outputs[0])
                or node.outputs[0].is_graph_output()
            ):
                continue
            users = consumers(node.outputs[0])
            if (
                users
                and all(user in found and not _is_attention(user) for user in users)
                and self._tokenwise(node)
            ):
                found.add(node)
                lone.append(node)
        return lone[::-1]

    def _tokenwise(self, node: ir.Node) -> bool:
        """Tell whether each token of the output depends on that token of the inputs only, or can be made to."""
        if _is_attention(node):
            return True
        rest = [value for value in node.inputs if value is not None and not self._is_tokens(value)]
        if node.op_type == "MatMul":
            return self._is_tokens(node.inputs[0]) and constant(node.inputs[1]) is not None
        return node.op_type in TOKENWISE and all(
            (array := constant(value)) is not None and array.ndim <= 1 for value in rest
        )

    def _narrow_attention(self, node: ir.Node, pick: Callable[[ir.Value, ir.Node], ir.Value]) -> None:
        """Compute attention's queries for the one token, keys and values for all."""
        fused = Fused.of(node)
        parts = []
        for name, source, columns in zip(
            ("query", "key", "value"),
            (pick(fused.tokens, node), fused.tokens, fused.tokens),
            np.split(fused.weight, 3, axis=1),
            strict=True,
        ):
            matrix = add_constant(self._graph, f"{node.name}_{name}", np.ascontiguousarray(columns))
            parts.append(ir.node("MatMul", [source, matrix], name=f"{node.name}_{name}"))
        narrow = ir.node(
            "MultiHeadAttention",
            [
                *(part.outputs[0] for part in parts),
                add_constant(self._graph, f"{node.name}_qkv_bias", fused.bias),
            ],
            {"num_heads": fused.heads},
            domain=CONTRIB,
            name=f"{node.name}_token",
        )
        insert_before(node, [*parts, narrow])
        ir.convenience.replace_all_uses_with(node.outputs[0], narrow.outputs[0])


def _is_attention(node: ir.Node) -> bool:
    return node.domain == CONTRIB and node.op_type == "Attention"

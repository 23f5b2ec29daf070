"""Token merging: alike tokens become one between attention and the MLP, and later blocks have fewer to compute.

Bolya et al. 2023, "Token Merging: Your ViT But Faster", without retraining, at a few blocks instead of at each: a site
costs about as much as a norm and an activation, so that many small ones would eat what they save.
"""

from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from ...errors import ExportError
from ..graph import copy
from ..rewrite import TOKENWISE, Builder, Observed, constant, observe, to_proto
from ..schedule import Sites, check_schedule
from .fuse_attention import CONTRIB, Fused
from .token_sizes import Sizes, carry_sizes, weigh

# Lies below every cosine, so that the class token is the last to be merged: never, since one always stays.
_NEVER = -4.0


@dataclass(frozen=True)
class MergeTokens:
    """Merge the most alike tokens of some blocks, and weigh what is left by how many patches it stands for.

    Runs after `FuseAttention` and `ClassTokenOnly`, on a network whose head reads the class token, the first one.
    Tokens are alike by the cosine of their keys, averaged over heads. Each second token, the class token aside, is
    matched with its likest among the others; of these pairs the best r become one, the mean weighted by size. In
    every later attention the logarithm of a key's size is added to its scores (section 3 of the paper: bipartite
    soft matching, and equation 1).

    Attributes:
        sites: Blocks in ascending order, each with the number of tokens that go there.
        fused: Whether attention behind a merge stays ONNX Runtime's fused operator, which knows no additions to its
            scores once it is quantized. One channel of each head's queries and keys then carries the sizes, in place
            of the direction in which the scores vary least: faster, and not quite the same in float.
    """

    sites: Sites
    fused: bool = False

    def __call__(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """Give the graph with fewer tokens.

        Raises:
            ExportError: The graph has no fused attention, its head reads more than the class token, or something
                on the way holds on to the number of tokens.
            OptionError: The sites do not fit the network's depth and tokens.
        """
        if not any(count for _, count in self.sites):
            return copy(model)
        observed = observe(model)
        twin = ir.from_proto(model)
        # What follows finds descendants in one sweep.
        twin.graph.sort()
        attentions = [node for node in twin.graph if _is_attention(node)]
        if not attentions:
            raise ExportError(
                "expected a graph with fused attention, got one without; run FuseAttention before MergeTokens"
            )
        check_schedule(self.sites, depth=len(attentions), tokens=_length(attentions[0], observed))
        chosen = {block: count for block, count in self.sites if count}
        residuals = {block: _residual(attentions[block], twin.graph, observed) for block in chosen}
        _check_behind(residuals[min(chosen)], twin.graph, observed)
        sizes: Sizes | None = None
        for block, attention in enumerate(attentions):
            if block < min(chosen):
                continue
            if block in chosen:
                length = _length(attention, observed) - sum(
                    n for before, n in chosen.items() if before < block
                )
                site = _Site(twin.graph, attention, residuals[block], length, chosen[block])
            if sizes is not None:
                if self.fused and attention.op_type == "Attention":
                    carry_sizes(attention, sizes, twin.graph)
                else:
                    weigh(attention, sizes, twin.graph)
            if block in chosen:
                sizes = site.merge(sizes)
        return to_proto(twin)


class _Site:
    """Merges tokens behind one block's attention.

    Legend: T tokens come in, of which A = ⌈T/2⌉, those at even places, may go into one of the B = ⌊T/2⌋ others;
    r go, U = A - r stay as they are.
    """

    def __init__(
        self, graph: ir.Graph, attention: ir.Node, residual: ir.Value, length: int, count: int
    ) -> None:
        self._build = Builder(graph, f"{attention.name}_merge")
        self._length = length
        self._count = count
        self._staying = (length + 1) // 2 - count
        self._residual = residual
        self._readers = [(use.node, use.idx) for use in residual.uses()]
        fused = Fused.of(attention)
        # The mean of the keys over heads is a product with the mean of their weights.
        self._tokens = fused.tokens
        self._weight = _mean_key(fused.weight, fused.heads)
        self._bias = _mean_key(fused.bias[None], fused.heads)[0]

    def merge(self, sizes: Sizes | None) -> Sizes:
        build = self._build
        places = (
            build.integers("even", *range(0, self._length, 2)),
            build.integers("odd", *range(1, self._length, 2)),
        )
        staying, going, matched = self._matching(*places)
        everything = self._residual
        stay = build("GatherND", "stay", everything, staying, batch_dims=1)  # (batch, U, channels)
        go = build("GatherND", "go", everything, going, batch_dims=1)  # (batch, r, channels)
        take = build("Gather", "take", everything, places[1], axis=1)  # (batch, B, channels)
        if sizes is None:
            ones = build.constant("one_each", np.ones((self._count, 1), np.float32))
            taken = build(
                "Add",
                "size",
                build("MatMul", "gain", matched, ones),
                build.constant("one", np.ones(1, np.float32)),
            )
            pads = build.integers("pads", 0, self._staying, 0, 0, 0, 0)
            size = build("Pad", "sizes", taken, pads, build.constant("alone", np.array(1, np.float32)))
        else:
            go_size = build("GatherND", "go_size", sizes.value, going, batch_dims=1)
            take_size = build("Gather", "take_size", sizes.value, places[1], axis=1)
            stay_size = build("GatherND", "stay_size", sizes.value, staying, batch_dims=1)
            go, take = build("Mul", "go_sum", go, go_size), build("Mul", "take_sum", take, take_size)
            taken = build("Add", "size", build("MatMul", "gain", matched, go_size), take_size)
            size = build("Concat", "sizes", stay_size, taken, axis=1)
        mean = build("Div", "mean", build("Add", "sum", take, build("MatMul", "gather", matched, go)), taken)
        merged = build("Concat", "tokens", stay, mean, axis=1)
        for node, place in self._readers:
            node.replace_input_with(place, merged)
        left = self._length - self._count
        row = build("Reshape", "row", size, build.integers("row_shape", -1, 1, 1, left))
        return Sizes(size, build("Log", "log", row))

    def _matching(self, even: ir.Value, odd: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Give the places of the tokens that stay, of those that go, and the matrix (batch, B, r) of who takes whom."""
        build = self._build
        product = build("MatMul", "metric", self._tokens, build.constant("metric_weight", self._weight))
        metric = build("Add", "metric_bias", product, build.constant("metric_bias", self._bias))
        unit = build("LpNormalization", "unit", metric, axis=-1, p=2)
        others = build("Transpose", "others", build("Gather", "odd_unit", unit, odd, axis=1), perm=[0, 2, 1])
        cosines = build("MatMul", "cosines", build("Gather", "even_unit", unit, even, axis=1), others)
        best = build.node("TopK", "best", 2, cosines, build.integers("one_best", 1), axis=2)
        # The class token, never merged, ranks last.
        handicap = np.zeros(((self._length + 1) // 2, 1), np.float32)
        handicap[0] = _NEVER
        ranked = build("Add", "ranked", best.outputs[0], build.constant("handicap", handicap))
        order = build.node(
            "TopK", "order", 2, ranked, build.integers("all", len(handicap)), axis=1, largest=0
        )
        parts = build.node(
            "Split",
            "parts",
            2,
            order.outputs[1],
            build.integers("part_sizes", self._staying, self._count),
            axis=1,
        )
        # In their old order, in which the class token is the first and neighbours stay neighbours.
        sorted_ = build.node(
            "TopK", "sorted", 2, parts.outputs[0], build.integers("staying", self._staying), axis=1, largest=0
        )
        going = parts.outputs[1]
        taker = build("GatherND", "taker", best.outputs[1], going, batch_dims=1)
        taker = build("Transpose", "taker_row", taker, perm=[0, 2, 1])
        rows = build.constant("rows", np.arange(self._length // 2, dtype=np.int64)[:, None])
        matched = build(
            "Cast", "matched", build("Equal", "match", taker, rows), to=int(onnx.TensorProto.FLOAT)
        )
        two = build.integers("two", 2)
        staying = build("Mul", "staying_places", sorted_.outputs[0], two)
        return staying, build("Mul", "going_places", going, two), matched


def _mean_key(array: NDArray[np.generic], heads: int) -> NDArray[np.float32]:
    """Average the columns that make keys, the second third, over the heads."""
    keys = np.split(array, 3, axis=1)[1]
    mean: NDArray[np.float32] = keys.reshape(len(keys), heads, -1).mean(axis=1, dtype=np.float32)
    return mean


def _is_attention(node: ir.Node) -> bool:
    return node.domain == CONTRIB and node.op_type in ("Attention", "MultiHeadAttention")


def _length(attention: ir.Node, observed: Observed) -> int:
    """Give the number of tokens that an attention attends to."""
    shape = observed.shape(attention.inputs[0 if attention.op_type == "Attention" else 1])
    assert shape is not None
    return shape[1][0]


def _residual(attention: ir.Node, graph: ir.Graph, observed: Observed) -> ir.Value:
    """Find the sum of attention's result and what it was computed from."""
    before = {attention.inputs[0]}
    for node in reversed(graph):
        if before.intersection(node.outputs):
            before.update(node.inputs)
    behind = {attention.outputs[0]}
    for node in graph:
        if behind.isdisjoint(node.inputs):
            continue
        behind.update(node.outputs)
        if node.op_type == "Add" and any(
            value in before and observed.is_tokens(value) for value in node.inputs if value not in behind
        ):
            return node.outputs[0]
    raise ExportError(
        f"expected the result of attention {attention.name} to be added to its input, got a network that does not; "
        "export without token merging"
    )


def _check_behind(start: ir.Value, graph: ir.Graph, observed: Observed) -> None:
    """Make sure that nothing behind the first merge cares how many tokens there are, or which is which."""
    merged, read = {start}, False
    for node in graph:
        places = [place for place, value in enumerate(node.inputs) if value in merged]
        if not places:
            continue
        if _selects_class_token(node):
            read = True
            continue
        if not _keeps_tokens(node, places, observed):
            raise ExportError(
                "expected a network that computes every token alike and whose head reads the class token at place 0, "
                f"got {node.op_type} {node.name}, which would have to know the merged tokens; "
                "export without token merging"
            )
        if 0 in places or node.op_type != "MultiHeadAttention":
            merged.update(node.outputs)
    if not read or any(value.is_graph_output() for value in merged):
        raise ExportError(
            "expected a network whose head reads the class token at place 0, got one that does not; "
            "export without token merging"
        )


def _selects_class_token(node: ir.Node) -> bool:
    index = constant(node.inputs[1]) if node.op_type == "Gather" else None
    return (
        index is not None
        and index.size == 1
        and int(index.reshape(())) == 0
        and node.attributes.get_int("axis", 0) in (1, -2)
    )


def _keeps_tokens(node: ir.Node, places: list[int], observed: Observed) -> bool:
    """Tell whether each token that a node gives depends on that token alone, or attends to all alike."""
    others = [value for place, value in enumerate(node.inputs) if value is not None and place not in places]
    if node.op_type == "MatMul":
        weight = constant(node.inputs[1])
        return places == [0] and weight is not None and weight.ndim == 2
    if node.op_type == "Gather":
        return places == [0] and node.attributes.get_int("axis", 0) in (2, -1)
    if _is_attention(node):
        # More inputs would be masks, or what earlier calls left behind.
        fused = node.op_type == "Attention"
        return len(others) == (2 if fused else 4 - len(places)) and (fused or {1, 2} <= set(places))
    return node.op_type in TOKENWISE and all(
        (array := constant(value)) is not None and (array.ndim <= 1 or array.shape[-2] == 1)
        for value in others
    )

"""Token merging: alike tokens become one between attention and the MLP, and later blocks have fewer to compute.

Bolya et al. 2023, "Token Merging: Your ViT But Faster", without retraining, at a few blocks instead of at each: a site
costs about as much as a norm and an activation, so that many small ones would eat what they save.
"""

import math
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from ...errors import ExportError, OptionError
from ..graph import copy
from ..rewrite import Observed, add_constant, constant, observe, to_proto
from .class_token import _TOKENWISE
from .fuse_attention import CONTRIB

Sites = tuple[tuple[int, int], ...]
"""Where tokens are merged: blocks, counted from 0, each with the number of tokens that go there."""

# Lies below every cosine, so that the class token is the last to be merged: never, since one always stays.
_NEVER = -4.0

# Singular values below this share of the largest are float32's rounding.
_RANK = 1e-6


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
        sizes: _Sizes | None = None
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
                    _carry_sizes(attention, sizes, twin.graph)
                else:
                    _weigh(attention, sizes, twin.graph)
            if block in chosen:
                sizes = site.merge(sizes)
        return to_proto(twin)


def parse_schedule(text: str) -> Sites:
    """Read a schedule as typed.

    >>> parse_schedule("5:32,7:32,9:32")
    ((5, 32), (7, 32), (9, 32))

    Args:
        text: BLOCK:TOKENS, with commas between sites.

    Raises:
        OptionError: The text is no schedule, or its blocks do not ascend.
    """
    pairs = [site.split(":") for site in text.split(",")]
    if not all(len(pair) == 2 and all(part.strip().isdecimal() for part in pair) for pair in pairs):
        raise OptionError(
            f"expected a schedule as BLOCK:TOKENS,BLOCK:TOKENS, such as 5:32,7:32, got {text!r}; "
            "blocks are counted from 0"
        )
    sites = tuple((int(block), int(count)) for block, count in pairs)
    _check_order(sites)
    return sites


def format_schedule(sites: Sites) -> str:
    """Write a schedule as `parse_schedule` reads it.

    >>> format_schedule(((5, 32), (7, 32)))
    '5:32,7:32'
    """
    return ",".join(f"{block}:{count}" for block, count in sites)


def check_schedule(sites: Sites, *, depth: int, tokens: int) -> None:
    """Check that a network can merge as a schedule says.

    Args:
        sites: The schedule.
        depth: The network's number of blocks.
        tokens: How many tokens its first block takes, the class token among them.

    Raises:
        OptionError: Blocks do not ascend, there is no such block, nothing follows it, or fewer tokens can go.
    """
    _check_order(sites)
    for block, count in sites:
        if block > depth - 2:
            raise OptionError(
                f"expected to merge tokens in blocks 0 to {depth - 2} of {depth}, since fewer tokens pay in the blocks "
                f"behind, got block {block}; choose an earlier one"
            )
        most = (tokens - 1) // 2
        if count > most:
            raise OptionError(
                f"expected to merge at most {most} of the {tokens} tokens in block {block}, since each second one is "
                f"matched with another, got {count}; merge fewer there or more in another block"
            )
        tokens -= count


def schedules(depth: int, tokens: int) -> tuple[Sites, ...]:
    """Give the schedules to try on a network, from mild to strong.

    They are stated by relative depth and by share of the tokens, so that a schedule that one network bears means the
    same work on another.

    Args:
        depth: The network's number of blocks.
        tokens: How many tokens its first block takes, the class token among them.
    """
    found: set[Sites] = set()
    for depths, share in _CANDIDATES:
        count = round(share * tokens)
        # In a shallow network, sites fall together or behind the last block that gains: what is left is milder.
        blocks = sorted({block for part in depths if (block := round(part * depth)) <= depth - 2})
        sites = tuple((block, count) for block in blocks)
        if sites and count:
            found.add(sites)
    return tuple(sorted(found, key=lambda sites: sum((depth - block) * count for block, count in sites)))


# Relative depths of the sites, and the share of all tokens that goes at each. Few sites at which many tokens go, past
# the middle, drift less for the time they save than many sites at which few go, and than early ones.
_CANDIDATES: tuple[tuple[tuple[float, ...], float], ...] = (
    ((6 / 12, 8 / 12, 10 / 12), 0.10),
    ((8 / 12, 10 / 12), 0.24),
    ((6 / 12, 8 / 12), 0.15),
    ((6 / 12, 8 / 12, 10 / 12), 0.15),
    ((7 / 12, 9 / 12), 0.24),
    ((6 / 12, 9 / 12), 0.24),
    ((5 / 12, 7 / 12, 9 / 12), 0.15),
    ((6 / 12, 8 / 12), 0.24),
    ((5 / 12, 7 / 12), 0.24),
)


def _check_order(sites: Sites) -> None:
    blocks = [block for block, _ in sites]
    if blocks != sorted(set(blocks)) or any(number < 0 for site in sites for number in site):
        raise OptionError(
            f"expected ascending blocks and counts of at least 0, got {format_schedule(sites)}; "
            "name each block once, the first in front"
        )


@dataclass(frozen=True, slots=True)
class _Sizes:
    """How many patches each token stands for.

    Attributes:
        value: (batch, tokens, 1) float32.
        logarithms: (batch, 1, 1, tokens) float32, ready to be added to scores.
    """

    value: ir.Value
    logarithms: ir.Value


class _Build:
    """Appends nodes to a graph under one prefix; the graph is sorted when it is done."""

    def __init__(self, graph: ir.Graph, prefix: str) -> None:
        self._graph = graph
        self._prefix = prefix

    def constant(self, name: str, array: NDArray[np.generic]) -> ir.Value:
        return add_constant(self._graph, f"{self._prefix}_{name}", array)

    def integers(self, name: str, *numbers: int) -> ir.Value:
        return self.constant(name, np.array(numbers, np.int64))

    def node(
        self,
        op_type: str,
        name: str,
        outputs: int,
        *inputs: ir.Value,
        **attributes: int | list[int],
    ) -> ir.Node:
        node = ir.node(op_type, list(inputs), attributes, num_outputs=outputs, name=f"{self._prefix}_{name}")
        self._graph.append(node)
        return node

    def __call__(self, op_type: str, name: str, *inputs: ir.Value, **attributes: int | list[int]) -> ir.Value:
        return self.node(op_type, name, 1, *inputs, **attributes).outputs[0]


class _Site:
    """Merges tokens behind one block's attention.

    Legend: T tokens come in, of which A = ⌈T/2⌉, those at even places, may go into one of the B = ⌊T/2⌋ others;
    r go, U = A - r stay as they are.
    """

    def __init__(
        self, graph: ir.Graph, attention: ir.Node, residual: ir.Value, length: int, count: int
    ) -> None:
        self._build = _Build(graph, f"{attention.name}_merge")
        self._length = length
        self._count = count
        self._staying = (length + 1) // 2 - count
        self._residual = residual
        self._readers = [(use.node, use.idx) for use in residual.uses()]
        tokens, weight, bias = (
            attention.inputs[0],
            constant(attention.inputs[1]),
            constant(attention.inputs[2]),
        )
        assert tokens is not None
        assert weight is not None
        assert bias is not None
        heads = attention.attributes.get_int("num_heads")
        assert heads is not None
        # The mean of the keys over heads is a product with the mean of their weights.
        self._tokens = tokens
        self._weight = _mean_key(weight, heads)
        self._bias = _mean_key(bias[None], heads)[0]

    def merge(self, sizes: _Sizes | None) -> _Sizes:
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
        return _Sizes(size, build("Log", "log", row))

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


def _weigh(attention: ir.Node, sizes: _Sizes, graph: ir.Graph) -> None:
    """Write a fused attention in single operators, with the logarithms of the sizes added to its scores.

    The fused operators take additions to the scores too, but Attention no more once it is quantized, and
    MultiHeadAttention only in newer runtimes, spelled out for every query; it was slower than this.
    """
    build = _Build(graph, str(attention.name))
    heads = attention.attributes.get_int("num_heads")
    assert heads is not None
    if attention.op_type == "Attention":
        query, key, value = _split_heads(attention, heads, build, graph)
    else:
        query, key, value = _narrow_heads(attention, heads, build)
    scores = build("MatMul", "scores", query, build("Transpose", "keys", key, perm=[0, 1, 3, 2]))
    shares = build("Softmax", "shares", build("Add", "weighed", scores, sizes.logarithms), axis=-1)
    mixed = build("Transpose", "tokens", build("MatMul", "mixed", shares, value), perm=[0, 2, 1, 3])
    joined = build("Reshape", "joined", mixed, build.integers("joined_shape", 0, 0, -1))
    ir.convenience.replace_all_uses_with(attention.outputs[0], joined)


def _carry_sizes(attention: ir.Node, sizes: _Sizes, graph: ir.Graph) -> None:
    """Give the sizes to a fused attention as one more channel of its input, which one channel of each head carries."""
    build = _Build(graph, str(attention.name))
    tokens, weight, bias = attention.inputs[0], constant(attention.inputs[1]), constant(attention.inputs[2])
    heads = attention.attributes.get_int("num_heads")
    assert tokens is not None
    assert weight is not None
    assert bias is not None
    assert heads is not None
    norm = tokens.producer()
    weights, biases = weight.astype(np.float64), bias.astype(np.float64)
    gain, shift = np.ones(len(weights)), np.zeros(len(weights))
    if norm is not None and norm.op_type == "LayerNormalization" and len(norm.inputs) == 3:
        gain, shift = (np.asarray(constant(value), np.float64) for value in norm.inputs[1:])
    width = weights.shape[1] // 3
    side = width // heads
    rows = np.concatenate([weights, np.zeros((1, 3 * width))])
    for start in range(0, width, side):
        query, key = slice(start, start + side), slice(width + start, width + start + side)
        to_query, to_key = _make_room(
            np.concatenate([gain[:, None] * weights[:, query], [shift @ weights[:, query] + biases[query]]]),
            gain[:, None] * weights[:, key],
        )
        rows[:, query], biases[query] = rows[:, query] @ to_query, biases[query] @ to_query
        # What a bias adds to the keys, it adds to the scores of all keys alike, and a softmax forgets it.
        rows[:, key], biases[key] = rows[:, key] @ to_key, 0
        # The operator divides by the root of the head's width.
        biases[query.stop - 1], rows[-1, key.stop - 1] = math.sqrt(side), 1
    column = build("Log", "log_sizes", sizes.value)
    with_sizes = build("Concat", "with_sizes", tokens, column, axis=-1)
    attention.replace_input_with(0, with_sizes)
    attention.replace_input_with(1, build.constant("weight", rows.astype(np.float32)))
    attention.replace_input_with(2, build.constant("bias", biases.astype(np.float32)))


def _make_room(
    query: NDArray[np.float64], key: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give changes of basis of a head's queries and keys after which the last channel of both is zero.

    Behind a norm, tokens are its gains times values of about equal spread. For such tokens the singular value
    decomposition of the scores' form names the direction in which scores vary least, and the others make do without.

    Args:
        query: (inputs + 1, channels) float64, weights for values of equal spread, and in the last row the bias.
        key: (inputs, channels) weights likewise.

    Returns:
        Two matrices (channels, channels) to multiply queries and keys with from the right.
    """
    query, key = np.linalg.qr(query).R, np.linalg.qr(key).R
    left, values, right = np.linalg.svd(query @ key.T)
    kept = len(values) - 1
    roots = np.sqrt(values[:kept])
    bases = np.zeros((2, len(values), len(values)))
    bases[0, :, :kept] = np.linalg.pinv(query, rcond=_RANK) @ left[:, :kept] * roots
    bases[1, :, :kept] = np.linalg.pinv(key, rcond=_RANK) @ right[:kept].T * roots
    return bases[0], bases[1]


def _split_heads(
    attention: ir.Node, heads: int, build: _Build, graph: ir.Graph
) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Give queries, keys and values, each (batch, heads, tokens, channels of a head), of the fused operator."""
    tokens, weight, bias = attention.inputs[0], constant(attention.inputs[1]), constant(attention.inputs[2])
    assert tokens is not None
    assert weight is not None
    assert bias is not None
    width = weight.shape[1] // 3
    scales = np.ones(3 * width, np.float32)
    scales[:width] = (width / heads) ** -0.5
    # The name stays, so that what is known of a layer by its name, such as that it keeps to float, holds on.
    product = ir.node("MatMul", [tokens, build.constant("qkv", weight * scales)], name=attention.name)
    graph.append(product)
    sums = build("Add", "qkv_bias", product.outputs[0], build.constant("qkv_bias", bias * scales))
    apart = build("Reshape", "apart", sums, build.integers("apart_shape", 0, 0, 3 * heads, width // heads))
    turned = build("Transpose", "heads", apart, perm=[0, 2, 1, 3])
    parts = build.node("Split", "parts", 3, turned, build.integers("part_sizes", heads, heads, heads), axis=1)
    query, key, value = parts.outputs
    return query, key, value


def _narrow_heads(attention: ir.Node, heads: int, build: _Build) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Give queries, keys and values of the operator that takes them apart."""
    bias = constant(attention.inputs[3])
    assert bias is not None
    width = len(bias) // 3
    shape = build.integers("apart_shape", 0, 0, heads, width // heads)
    found = []
    for name, part, bias_part in zip("qkv", attention.inputs, np.split(bias, 3), strict=False):
        assert part is not None
        sums = build("Add", f"{name}_sum", part, build.constant(f"{name}_bias", bias_part))
        if name == "q":
            sums = build(
                "Mul",
                "q_scaled",
                sums,
                build.constant("q_scale", np.full(1, (width / heads) ** -0.5, np.float32)),
            )
        apart = build("Reshape", f"{name}_apart", sums, shape)
        found.append(build("Transpose", f"{name}_heads", apart, perm=[0, 2, 1, 3]))
    query, key, value = found
    return query, key, value


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
    return node.op_type in _TOKENWISE and all(
        (array := constant(value)) is not None and (array.ndim <= 1 or array.shape[-2] == 1)
        for value in others
    )

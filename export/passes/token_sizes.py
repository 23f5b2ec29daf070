"""Attention in which each key counts as often as the size of its token says."""

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..rewrite import Builder, constant
from .fuse_attention import Fused

# Singular values below this share of the largest are float32's rounding.
_RANK = 1e-6


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many patches each token stands for.

    Attributes:
        value: (batch, tokens, 1) float32.
        logarithms: (batch, 1, 1, tokens) float32, ready to be added to scores.
    """

    value: ir.Value
    logarithms: ir.Value


def weigh(attention: ir.Node, sizes: Sizes, graph: ir.Graph) -> None:
    """Write a fused attention in single operators, with the logarithms of the sizes added to its scores.

    The fused operators take additions to the scores too, but Attention no more once it is quantized, and
    MultiHeadAttention only in newer runtimes, spelled out for every query; it was slower than this.
    """
    build = Builder(graph, str(attention.name))
    if attention.op_type == "Attention":
        query, key, value = _split_heads(attention, build, graph)
    else:
        query, key, value = _narrow_heads(attention, build)
    scores = build("MatMul", "scores", query, build("Transpose", "keys", key, perm=[0, 1, 3, 2]))
    shares = build("Softmax", "shares", build("Add", "weighed", scores, sizes.logarithms), axis=-1)
    mixed = build("Transpose", "tokens", build("MatMul", "mixed", shares, value), perm=[0, 2, 1, 3])
    joined = build("Reshape", "joined", mixed, build.integers("joined_shape", 0, 0, -1))
    ir.convenience.replace_all_uses_with(attention.outputs[0], joined)


def carry_sizes(attention: ir.Node, sizes: Sizes, graph: ir.Graph) -> None:
    """Give the sizes to a fused attention as one more channel of its input, which one channel of each head carries."""
    build = Builder(graph, str(attention.name))
    fused = Fused.of(attention)
    norm = fused.tokens.producer()
    weights, biases = fused.weight.astype(np.float64), fused.bias.astype(np.float64)
    gain, shift = np.ones(len(weights)), np.zeros(len(weights))
    if norm is not None and norm.op_type == "LayerNormalization" and len(norm.inputs) == 3:
        gain, shift = (np.asarray(constant(value), np.float64) for value in norm.inputs[1:])
    width = weights.shape[1] // 3
    side = width // fused.heads
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
    with_sizes = build("Concat", "with_sizes", fused.tokens, column, axis=-1)
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


def _split_heads(attention: ir.Node, build: Builder, graph: ir.Graph) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Give queries, keys and values, each (batch, heads, tokens, channels of a head), of the fused operator."""
    fused = Fused.of(attention)
    heads, width = fused.heads, fused.weight.shape[1] // 3
    scales = np.ones(3 * width, np.float32)
    scales[:width] = (width / heads) ** -0.5
    # The name stays, so that what is known of a layer by its name, such as that it keeps to float, holds on.
    product = ir.node(
        "MatMul", [fused.tokens, build.constant("qkv", fused.weight * scales)], name=attention.name
    )
    graph.append(product)
    sums = build("Add", "qkv_bias", product.outputs[0], build.constant("qkv_bias", fused.bias * scales))
    apart = build("Reshape", "apart", sums, build.integers("apart_shape", 0, 0, 3 * heads, width // heads))
    turned = build("Transpose", "heads", apart, perm=[0, 2, 1, 3])
    parts = build.node("Split", "parts", 3, turned, build.integers("part_sizes", heads, heads, heads), axis=1)
    query, key, value = parts.outputs
    return query, key, value


def _narrow_heads(attention: ir.Node, build: Builder) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Give queries, keys and values of the operator that takes them apart."""
    bias, heads = constant(attention.inputs[3]), attention.attributes.get_int("num_heads")
    assert bias is not None
    assert heads is not None
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

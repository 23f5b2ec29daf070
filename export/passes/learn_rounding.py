"""Rounding learned on images: each weight goes up or down so that the errors of a column cancel out."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from ...quantizers import column_scales, largest_integer
from ..graph import stands_apart
from ..moments import Moments
from ..rewrite import add_constant, constant, to_proto
from .fuse_attention import CONTRIB

# Rows that are rounded between two large products.
_BLOCK = 64


@dataclass(frozen=True)
class LearnRounding:
    """Put the weights of linear layers on the quantizer's grid, each row's errors balanced by the rows after it.

    This is GPTQ (Frantar et al. 2023) on the grid that per-channel symmetric quantizers choose for themselves: a
    column's largest weight stays the largest integer, so that quantizing the result gives these very integers.

    Attributes:
        moments: For the name of each product's input its moments; products of other inputs stay as they are.
        keep_float: Names of the linear nodes that stay as they are.
        bits: Of the weights: 8, or 7 where ONNX Runtime's quantizer reduces the range.
        damping: Added to the second moment's diagonal, as a share of its mean (Frantar et al. 2023, section 3.3). On
            top of it comes channels / rows: what few rows say of many channels holds for these rows alone.
    """

    moments: Mapping[str, Moments] = field(repr=False, compare=False)
    keep_float: tuple[str, ...] = ()
    bits: int = 8
    damping: float = 0.01

    def __call__(self, model: onnx.ModelProto) -> onnx.ModelProto:
        twin = ir.from_proto(model)
        for node, moments, weight in _measured(twin.graph, self.moments, self.keep_float):
            damping = self.damping + len(weight) / moments.rows
            learned = round_columns(weight, moments.second, bits=self.bits, damping=damping)
            node.replace_input_with(1, add_constant(twin.graph, f"{node.name}_rounded", learned))
        return to_proto(twin)


def round_columns(
    weight: NDArray[np.float32], second: NDArray[np.float64], *, bits: int = 8, damping: float = 0.01
) -> NDArray[np.float32]:
    """Round a layer's weights to each column's grid such that the layer's output moves little.

    Rounding row by row, each weight first takes over the errors of the rows before it: with H = R Rᵀ, R upper
    triangular, the cost of an error D is the sum over i of |R_ii D_i + Σ_{j<i} R_ji D_j|², and each term is as small as
    the grid lets it be. GPTQ's updates with the inverse of H come to the same numbers (Chen et al. 2025, "The geometry
    of LLM quantization").

    Args:
        weight: (inputs, outputs).
        second: (inputs, inputs), H: the second moment of the layer's input; it may be singular.
        bits: Of the weights.
        damping: Added to the diagonal of H, as a share of its mean.

    Returns:
        (inputs, outputs): integers times the scale of their column.
    """
    largest, scales = largest_integer(bits), column_scales(weight, bits=bits)
    diagonal = np.diag(second)
    # Rows of large inputs first: those after them, which are cheaper to change, balance their errors.
    order = np.argsort(-diagonal, kind="stable")
    damped = second[np.ix_(order, order)]
    # Where nothing ever came in, every rounding is as good.
    damped[np.diag_indices_from(damped)] += damping * diagonal.mean() if diagonal.any() else 1.0
    factor = np.linalg.cholesky(damped[::-1, ::-1])[::-1, ::-1]
    # In float32 from here on: shares of errors, each of which is rounded to an integer.
    shares = (factor / np.diag(factor)).astype(np.float32)
    exact = (weight[order] / scales).astype(np.float32)
    top = np.abs(exact).argmax(axis=0)
    # Rows that hold the largest weight of some columns, and those columns.
    columns = {int(row): np.flatnonzero(top == row) for row in np.unique(top)}
    rounded, errors = np.empty_like(exact), np.zeros_like(exact)
    for start in range(0, len(exact), _BLOCK):
        end = min(start + _BLOCK, len(exact))
        block = exact[start:end] + shares[:start, start:end].T @ errors[:start]
        for row in range(start, end):
            wanted = block[row - start] + shares[start:row, row] @ errors[start:row]
            integers = np.clip(np.rint(wanted), -largest, largest)
            if row in columns:
                integers[columns[row]] = np.rint(exact[row, columns[row]])
            rounded[row], errors[row] = integers, exact[row] - integers
    learned = np.empty_like(exact)
    learned[order] = rounded * scales
    return learned


def _measured(
    graph: ir.Graph, moments: Mapping[str, Moments], keep_float: tuple[str, ...]
) -> list[tuple[ir.Node, Moments, NDArray[np.float32]]]:
    """Give the linear layers that will be quantized and whose input was measured, with their weights."""
    found = []
    for node in graph:
        product = (node.domain, node.op_type) in (("", "MatMul"), (CONTRIB, "Attention"))
        stays = node.name in keep_float or stands_apart(node.name)
        if not product or stays or node.inputs[0] is None:
            continue
        taken, weight = moments.get(node.inputs[0].name or ""), constant(node.inputs[1])
        if taken is not None and weight is not None and weight.ndim == 2:
            found.append((node, taken, weight.astype(np.float32)))
    return found

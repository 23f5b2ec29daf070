"""Ranges span what they say, whatever order the values come in."""

import io
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from vit_edge.errors import ExportError
from vit_edge.export.ranges import collect
from vit_edge.quantizers import METHODS, Grid, Histogram, Method


def doubling() -> onnx.ModelProto:
    """Make a graph that doubles its input, and then adds it once more."""
    nodes = [
        helper.make_node("Add", ["pixels", "pixels"], ["doubled"]),
        helper.make_node("Add", ["doubled", "pixels"], ["logits"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "values"])
        for name in ("pixels", "logits")
    ]
    graph = helper.make_graph(nodes, "doubling", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def histogram(values: NDArray[np.floating[Any]], parts: int = 7) -> Histogram:
    batches = np.array_split(values.astype(np.float32)[None], parts, axis=1)
    return collect(doubling(), ["pixels"], batches).tensors["pixels"]


def squared_error(values: NDArray[np.float64], span: tuple[float, float], *, symmetric: bool) -> float:
    grid = Grid.over(span, symmetric=symmetric)
    return float(((grid.values(grid.levels(values)) - values) ** 2).mean())


NOISE = np.random.default_rng(0)
GELU_LIKE = np.concatenate([NOISE.uniform(-0.17, 0, 60_000), NOISE.exponential(0.5, 40_000)])
HEAVY = NOISE.standard_t(3, 100_000)


def test_the_extremes_are_exact_wherever_they_come() -> None:
    """A histogram that outgrows its reach on the way must not lose what it held, nor round the ends."""
    values = np.array([0.001, -0.002, 3.0, -700.0, 0.5, 1e-30, 64.0], np.float32)
    for order in (values, values[::-1], np.sort(values)):
        found = histogram(order)
        assert (found.low, found.high) == (-700.0, 64.0)
        assert found.counts.sum() == len(values)
        assert found.range("minmax") == (-700.0, 64.0)
        assert found.range("minmax", symmetric=True) == (-700.0, 700.0)


def test_counts_are_those_of_one_histogram_over_all() -> None:
    """Doubling the reach merges bins exactly, so that the order of the images cannot matter."""
    found = histogram(HEAVY)
    places = np.arange(len(found.counts) + 1) - len(found.counts) // 2
    expected, _ = np.histogram(HEAVY.astype(np.float32), places * found.width)
    # A value on an edge may fall to either side in float32.
    assert np.abs(np.cumsum(found.counts - expected)).max() <= 2
    assert found.counts.sum() == len(HEAVY)


def test_tensors_inside_the_graph_and_its_input_are_collected() -> None:
    """The patch embedding's input is the graph's own input, which no node gives out."""
    batches = [np.array([[-1.0, 2.0]], np.float32), np.array([[0.5, 0.25]], np.float32)]
    ranges = collect(doubling(), ["doubled", "pixels", "logits", "doubled"], batches).ranges("minmax")
    assert dict(ranges) == {"doubled": (-2.0, 4.0), "pixels": (-1.0, 2.0), "logits": (-3.0, 6.0)}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("values", [np.full(100, 3.0), np.full(100, -3.0), np.zeros(100), np.array([1e-20])])
def test_every_range_holds_zero(method: Method, values: NDArray[np.float64]) -> None:
    """Zero padding and masked channels are exactly zero, which the grid must be able to say."""
    for symmetric in (False, True):
        low, high = histogram(values, 1).range(method, symmetric=symmetric)
        assert low <= 0 <= high
        grid = Grid.over((low, high), symmetric=symmetric)
        assert grid.values(grid.levels(np.zeros(1)))[0] == 0
        assert grid.lowest <= grid.zero <= grid.highest
        assert np.isfinite(grid.scale)
        assert grid.scale > 0


def test_percentile_cuts_one_value_in_ten_thousand() -> None:
    """Half of them at either side, or of the absolute values where the grid is symmetric."""
    found = histogram(HEAVY)
    low, high = found.range("percentile")
    # Five of 100,000 at either side; the last of them may share its bin with one that stays.
    assert 3 <= (low > HEAVY).sum() <= 5
    assert 3 <= (high < HEAVY).sum() <= 5
    low, high = found.range("percentile", symmetric=True)
    assert low == -high
    assert 8 <= (np.abs(HEAVY) > high).sum() <= 10
    # Nothing is cut off where nothing sticks out.
    assert histogram(np.linspace(-1, 2, 1000)).range("percentile") == (-1.0, 2.0)


@pytest.mark.parametrize("values", [GELU_LIKE, HEAVY], ids=["gelu", "heavy"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_mse_errs_less_than_any_other_method(values: NDArray[np.float64], symmetric: bool) -> None:
    """That is its definition, here over the values themselves instead of a histogram."""
    found = histogram(values)
    errors = {
        method: squared_error(values, found.range(method, symmetric=symmetric), symmetric=symmetric)
        for method in METHODS
    }
    assert errors["mse"] == min(errors.values())
    shares = [
        squared_error(values, (found.low * f, found.high * f), symmetric=symmetric) for f in (1, 0.7, 0.5)
    ]
    assert errors["mse"] <= 1.01 * min(shares)


def test_mixed_cuts_the_tail_of_one_sided_tensors_only() -> None:
    """After a GELU a large value is rare; in tokens it is a channel that every image has."""
    cases: tuple[tuple[NDArray[np.float64], Method], ...] = ((GELU_LIKE, "mse"), (HEAVY, "minmax"))
    for values, same in cases:
        found = histogram(values)
        for symmetric in (False, True):
            assert found.range("mixed", symmetric=symmetric) == found.range(same, symmetric=symmetric)
    assert histogram(GELU_LIKE).range("mixed")[1] < GELU_LIKE.max()


def test_entropy_is_near_the_calibrator_of_onnxruntime() -> None:
    """Both follow Migacz's description; its loops over Python lists would take minutes for a network."""
    from onnxruntime.quantization.calibrate import HistogramCollector

    values = NOISE.standard_t(5, 200_000).astype(np.float32)
    counts, edges = np.histogram(values, 2049, (-np.abs(values).max(), np.abs(values).max()))
    collector = HistogramCollector("entropy", True, 2049, 256, 99.99, "same")
    with redirect_stdout(io.StringIO()):
        _, theirs = collector.get_entropy_threshold(
            (counts, edges, values.min(), values.max(), edges[-1]), 256
        )
    ours = histogram(values).range("entropy", symmetric=True)[1]
    assert 0.7 < ours / float(theirs) < 1.4
    assert ours < 0.8 * np.abs(values).max()


def test_values_that_are_no_numbers_are_refused() -> None:
    """A range of infinity would make a scale that turns every answer into NaN on the device."""
    for bad in (np.nan, np.inf):
        with pytest.raises(ExportError, match="doubled on the calibration images, got infinity or NaN"):
            collect(doubling(), ["doubled"], [np.array([[1.0, bad]], np.float32)])


def test_no_images_are_refused() -> None:
    """Ranges of nothing would all be zero, and so would all answers."""
    with pytest.raises(ExportError, match="at least one calibration image"):
        collect(doubling(), ["doubled"], [])

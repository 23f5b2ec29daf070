"""The options of an export, and which bounds they make for which precision."""

import pytest

from vit_edge.errors import OptionError
from vit_edge.export import DEFAULT_BOUNDS, Options


def test_the_defaults_are_int8_where_it_passes_and_any_batch() -> None:
    """What a user who knows nothing gets: the smallest file that can be vouched for."""
    options = Options()
    assert (options.precision, options.batch, options.opset, options.simplify) == ("auto", None, 20, True)
    assert options.bounds == DEFAULT_BOUNDS
    assert not options.force


def test_given_bounds_are_for_the_precision_asked_for() -> None:
    """A loose bound for INT8 must not loosen the float32 graph that all else is made from."""
    auto = Options(min_agreement=0.5, max_drift=1.0, max_drop=7.0).bounds
    assert (auto["int8"].min_agreement, auto["int8"].max_drift, auto["int8"].max_drop) == (0.5, 1.0, 7.0)
    assert auto["float32"] == DEFAULT_BOUNDS["float32"]
    half = Options(precision="float16", max_drift=0.5).bounds
    assert half["float16"].max_drift == 0.5
    assert half["float16"].min_agreement == DEFAULT_BOUNDS["float16"].min_agreement
    assert half["int8"] == DEFAULT_BOUNDS["int8"]


def test_a_bound_of_zero_is_a_bound() -> None:
    """Zero is false in Python, and the strictest of all bounds would be lost."""
    bounds = Options(precision="int8", max_drop=0.0, max_drift=0.0, min_agreement=0.0).bounds["int8"]
    assert (bounds.max_drop, bounds.max_drift, bounds.min_agreement) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"precision": "int4"}, "--precision to be one of auto, float32, float16, int8, got int4"),
        ({"batch": 0}, "--batch of at least 1, got 0"),
        ({"samples": 0}, "--samples of at least 1, got 0"),
        ({"min_agreement": 95}, "--min-agreement as a share from 0 to 1, got 95"),
        ({"max_drift": -0.1}, "--max-drift of at least 0, got -0.1"),
        ({"min_speedup": float("nan")}, "--min-speedup of at least 0, got nan"),
    ],
)
def test_an_option_that_means_nothing_is_refused_at_once(values: dict[str, object], sentence: str) -> None:
    """It would otherwise be found after the tracing, or never."""
    with pytest.raises(OptionError) as caught:
        Options(**values)  # type: ignore[arg-type]
    assert sentence in str(caught.value)

"""The numbers that all decisions rest on, against values worked out by hand."""

import json
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from vit_edge.errors import OptionError
from vit_edge.evaluation import Bounds, compare, drop_interval

LOOSE = {"min_agreement": 0.0, "max_drift": 9.0, "max_drop": 90.0, "min_batched_agreement": 0.0}


def logits(*rows: tuple[float, ...]) -> NDArray[np.float32]:
    return np.array(rows, np.float32)


def answers(*classes: int, of: int = 10) -> NDArray[np.float32]:
    """Give logits whose largest is that of each class: 1 among zeros."""
    return np.eye(of, dtype=np.float32)[list(classes)]


def test_flips_are_the_images_whose_top_answer_differs() -> None:
    """Agreement is the first number that a user reads, and the list is what they look at next."""
    reference = logits((3, 1, 2), (0, 5, 1), (1, 2, 9), (4, 3, 0))
    model = logits((3, 2, 1), (6, 5, 1), (1, 2, 9), (3, 4, 0))
    comparison = compare(reference, model)
    assert comparison.flips == (1, 3)
    assert comparison.agreement == 0.5
    assert comparison.images == 4
    assert comparison.accuracy is None


def test_drift_is_relative_to_the_spread_of_the_references_logits() -> None:
    """The same bound is to fit a model whose logits go to 5 and one whose go to 50."""
    # Around their means the rows are (-1, 1) and (-3, 0, 3)-like: norms sqrt(2) and sqrt(18).
    reference = logits((1, 3, 2), (2, 5, 8))
    model = logits((1, 3, 2.5), (2, 4, 8))
    comparison = compare(reference, model)
    assert comparison.max_abs_drift == 1.0
    assert comparison.drift == pytest.approx((0.5 / math.sqrt(2) + 1 / math.sqrt(18)) / 2)
    scaled = compare(10 * reference, 10 * model)
    assert scaled.drift == pytest.approx(comparison.drift)
    assert scaled.max_abs_drift == 10.0


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_an_answer_that_is_no_number_is_a_flip_and_never_right(broken: float) -> None:
    """Argmax alone calls the first NaN the top class, and so could call a dead model right."""
    reference = answers(0, 1, 2)
    model = reference.copy()
    model[0, 0] = broken
    comparison = compare(reference, model, [0, 1, 2])
    assert comparison.flips == (0,)
    assert comparison.accuracy is not None
    assert comparison.accuracy.model_top1 == pytest.approx(2 / 3)
    assert comparison.accuracy.model_top5 == pytest.approx(2 / 3)
    assert "logit drift" in str(Bounds(**LOOSE).broken_by(comparison))
    values = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
    assert values["max_abs_drift"] is None


def test_the_right_class_counts_among_the_first_five_and_no_further() -> None:
    """Top-5 is promised as a key of the JSON, and the fifth place is where it is easily off by one."""
    row = tuple(float(value) for value in range(10, 0, -1))
    reference = logits(*[row] * 6)
    comparison = compare(reference, reference, [0, 1, 4, 4, 5, 9])
    assert comparison.accuracy is not None
    assert comparison.accuracy.reference_top1 == pytest.approx(1 / 6)
    assert comparison.accuracy.reference_top5 == pytest.approx(4 / 6)
    assert comparison.accuracy.drop == 0.0
    assert comparison.accuracy.lost == ()


def test_a_model_of_three_classes_has_a_top_five_too() -> None:
    """Small models are the usual ones on devices; their top-5 is always right."""
    accuracy = compare(answers(0, 1, of=3), answers(0, 1, of=3), [2, 1]).accuracy
    assert accuracy is not None
    assert (accuracy.reference_top1, accuracy.reference_top5) == (0.5, 1.0)


def test_the_drop_is_in_points_and_the_losing_classes_come_first() -> None:
    """A person looks for the class that lost, and a gain elsewhere must not hide it."""
    # Class 0 loses two images, class 1 gains one, class 2 loses one and gains one, class 3 loses one.
    reference = answers(0, 0, 9, 2, 9, 3, 4, 4)
    model = answers(9, 9, 1, 9, 2, 9, 4, 4)
    accuracy = compare(reference, model, [0, 0, 1, 2, 2, 3, 4, 4]).accuracy
    assert accuracy is not None
    assert (accuracy.reference_top1, accuracy.model_top1) == (6 / 8, 4 / 8)
    assert accuracy.drop == 25.0
    assert accuracy.lost == ((0, 2), (3, 1), (1, -1))


def test_the_interval_is_that_of_bonett_and_price() -> None:
    """Equation 7 of their paper, worked out by hand for 10 and 5 discordant images of 100.

    (11 - 6) / 102 = 0.0490196; its square 0.0024029; 17 / 102 = 0.1666667; the root of
    (0.1666667 - 0.0024029) / 102 is 0.0401302, and 1.959964 times that is 0.0786537.
    """
    low, high = drop_interval(10, 5, 100)
    assert low == pytest.approx(-2.96341, abs=1e-4)
    assert high == pytest.approx(12.76733, abs=1e-4)
    assert drop_interval(5, 10, 100) == pytest.approx((-high, -low))


def test_no_discordant_image_is_no_proof_of_no_drop() -> None:
    """A plain Wald interval would be empty here, and would call ten images enough."""
    # 2 / 12 without its square: 1.959964 * sqrt(0.1666667 / 12) = 0.2309840.
    assert drop_interval(0, 0, 10) == pytest.approx((-23.0984, 23.0984), abs=1e-3)
    assert drop_interval(1, 0, 1)[1] == 100.0


@pytest.mark.parametrize("kept", range(90, 101))
def test_a_share_of_exactly_the_bound_keeps_it(kept: int) -> None:
    """1 - 7 / 100 is a little less than 0.93 in floating point, which would break a bound that is kept."""
    reference = answers(*[0] * 100)
    model = answers(*[0] * kept, *[1] * (100 - kept))
    comparison = compare(reference, model, [0] * 100)
    bounds = Bounds(kept / 100, max_drift=math.inf, max_drop=100.0 - kept, min_batched_agreement=0.0)
    assert bounds.broken_by(comparison) is None
    assert comparison.accuracy is not None
    assert comparison.accuracy.drop == 100 - kept


def test_a_broken_bound_is_named_with_what_was_measured_and_wanted() -> None:
    """The sentence goes to the user, and into the file as the reason why it isn't INT8."""
    comparison = compare(answers(0, 1, 2, 3), answers(0, 1, 2, 4), [0, 1, 2, 3])
    agreement = Bounds(**LOOSE | {"min_agreement": 0.95}).broken_by(comparison)
    assert agreement == "agreement 75.00 % on 4 images, at least 95 % wanted"
    drift = Bounds(**LOOSE | {"max_drift": 0.01}).broken_by(comparison)
    # One row in four moved by sqrt(2), its spread is sqrt(0.9): 1.4907 / 4.
    assert drift == "logit drift 0.373, at most 0.01 wanted"
    drop = Bounds(**LOOSE | {"max_drop": 0.5}).broken_by(comparison)
    assert drop == "top-1 drop 25.00 points on 4 images, at most 0.5 wanted"
    assert Bounds(**LOOSE).broken_by(comparison) is None
    unlabelled = compare(answers(0, 1, 2, 3), answers(0, 1, 2, 4))
    assert Bounds(**LOOSE | {"max_drop": 0.5}).broken_by(unlabelled) is None


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("min_agreement", 98, "write 0.98 for 98 %"),
        ("min_agreement", math.nan, "--min-agreement as a share from 0 to 1, got nan"),
        ("min_batched_agreement", -0.1, "--min-batched-agreement as a share from 0 to 1, got -0.1"),
        ("max_drift", -1.0, "--max-drift of at least 0, got -1.0"),
        ("max_drift", math.nan, "--max-drift of at least 0, got nan"),
        ("max_drop", math.nan, "--max-drop in points, such as 1 or 0.5, got nan"),
    ],
)
def test_a_bound_that_means_nothing_is_refused(name: str, value: float, sentence: str) -> None:
    """A bound that can never break would let anything pass, unseen."""
    with pytest.raises(OptionError) as caught:
        Bounds(**LOOSE | {name: value})
    assert sentence in str(caught.value)


def test_logits_of_other_images_are_no_comparison() -> None:
    """Numpy would broadcast one row over all, and an empty folder would divide by zero."""
    with pytest.raises(ValueError, match="logits of one shape"):
        compare(answers(0, 1), answers(0))
    with pytest.raises(ValueError, match="logits of one shape"):
        compare(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32))


def test_the_plain_values_are_json_with_the_promised_keys() -> None:
    """Scripts read them from `vit-edge check --json` and from inside the file."""
    values = compare(answers(0, 1, 2, 3), answers(0, 1, 2, 4), [0, 1, 2, 4]).to_dict()
    assert json.loads(json.dumps(values)) == {
        "images": 4,
        "agreement": 0.75,
        "flips": 1,
        "max_abs_drift": 1.0,
        "drift": pytest.approx(math.sqrt(2 / 0.9) / 4),
        "reference_top1": 0.75,
        "model_top1": 1.0,
        "reference_top5": 1.0,
        "model_top5": 1.0,
        "drop": -25.0,
        "drop_interval": list(drop_interval(0, 1, 4)),
    }

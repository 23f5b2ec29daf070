"""The last word on a finished graph: other batch sizes, the target's own provider, and images that can only veto."""

import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ..evaluation import Bounds, Comparison, compare
from ..runtime.cores import usable_cores
from .elsewhere import Elsewhere
from .images import Images, Runner, Tick
from .network import Network

# Batch sizes that the dynamic axis is proven at, beside one; the last is also the one whose agreement is stored.
_BATCHES = (2, 5)


@dataclass
class Verdict:
    """What was measured on a finished graph before it ships.

    Attributes:
        fitted: On the calibration images.
        fitted_on: Their folder.
        checked, checked_on: On the images that only veto, where there are any.
        batched_agreement: The share of images whose answer in a batch is the one that they get alone.
        fitted_logits, checked_logits: The graph's own answers on both, (images, classes) float32; None where it did
            not come to that.
        problem: Why it does not ship; None where it does.
    """

    fitted: Comparison
    fitted_on: str
    checked: Comparison | None = None
    checked_on: str = ""
    batched_agreement: float | None = None
    fitted_logits: NDArray[np.float32] | None = None
    checked_logits: NDArray[np.float32] | None = None
    problem: str | None = None

    def to_dict(self, bounds: Bounds) -> dict[str, Any]:
        """Give what the file says of its agreement with the reference."""
        proof: dict[str, Any] = {
            "calibration": {"set": self.fitted_on, **self.fitted.to_dict()},
            "bounds": {
                "min_agreement": bounds.min_agreement,
                "max_drift": bounds.max_drift,
                "max_drop": bounds.max_drop,
            },
        }
        if self.checked is not None:
            proof["check"] = {"set": self.checked_on, **self.checked.to_dict()}
        if self.batched_agreement is not None:
            proof["batched"] = {"batch": _BATCHES[-1], "agreement_with_alone": self.batched_agreement}
        return proof


def veto(
    model: onnx.ModelProto,
    fitted: Comparison,
    *,
    network: Network,
    fitting: Images,
    checking: Images | None,
    bounds: Bounds,
    any_batch: bool,
    elsewhere: Elsewhere | None,
) -> Generator[Tick, None, Verdict]:
    """Check a finished graph at other batch sizes, on the target's provider, and on the images that only veto.

    Args:
        model: The graph.
        fitted: Its answers on the calibration images, on the CPU provider.
        network: What it was made from.
        fitting: The calibration images.
        checking: The images that only veto.
        bounds: What its answers must keep.
        any_batch: Whether it takes any batch size.
        elsewhere: Where the target's provider is at hand; None where the CPU provider has to stand in.
    """
    verdict = Verdict(fitted, fitting.name, problem=bounds.broken_by(fitted))
    if verdict.problem is None and any_batch:
        runner = Runner(model)
        pixels = np.concatenate([fitting.given(model, path) for path in fitting.paths])
        verdict.fitted_logits = alone = np.concatenate([runner(one[None]) for one in pixels])
        for size in _BATCHES:
            agreement = yield from _batched_agreement(runner, pixels, alone, size)
            if agreement < bounds.min_batched_agreement:
                verdict.problem = (
                    f"in batches of {size}, {100 * agreement:.2f} % of the images keep the answer that they get "
                    f"alone, at least {100 * bounds.min_batched_agreement:g} % wanted"
                )
                return verdict
        verdict.batched_agreement = agreement
    if verdict.problem is None and elsewhere is not None:
        verdict.fitted_logits = yield from answers(model, fitting, elsewhere)
        verdict.fitted = _compared(fitting, verdict.fitted_logits)
        verdict.problem = _there(bounds.broken_by(verdict.fitted), elsewhere)
    if verdict.problem is None and checking is not None:
        if checking.reference is None:
            yield from checking.answer(network)
        verdict.checked_logits = yield from answers(model, checking, elsewhere)
        verdict.checked = _compared(checking, verdict.checked_logits)
        verdict.checked_on = checking.name
        verdict.problem = _there(bounds.broken_by(verdict.checked), elsewhere)
    return verdict


def _there(problem: str | None, elsewhere: Elsewhere | None) -> str | None:
    if problem is None or elsewhere is None:
        return problem
    return f"{problem} (on the provider {elsewhere.target.provider})"


def answers(
    model: onnx.ModelProto, images: Images, elsewhere: Elsewhere | None, *, stage: str = "checking"
) -> Generator[Tick, None, NDArray[np.float32]]:
    """Give a graph's logits, (images, classes) float32, on the provider that it is for, where that is at hand."""
    if elsewhere is None:
        measurement = images.measure(model, stage)
        yield from measurement
        return measurement.logits
    with tempfile.TemporaryDirectory(prefix="vit-edge-") as folder:
        pixels = Path(folder, "pixels.npy")
        rows = [images.given(model, path) for path in images.paths]
        np.save(pixels, np.concatenate(rows))
        return (yield from elsewhere.answers(model, pixels, threads=usable_cores()))


def _compared(images: Images, logits: NDArray[np.float32]) -> Comparison:
    assert images.reference is not None
    return compare(images.reference, logits, images.targets)


def _batched_agreement(
    runner: Runner, pixels: NDArray[Any], alone: NDArray[np.float32], size: int
) -> Generator[Tick, None, float]:
    """Run images in batches, and give the share of the answers that they get alone."""
    # Full batches only, and one at least, however few images there are.
    places = np.arange(len(pixels) + -len(pixels) % size) % len(pixels)
    batched = []
    for start in range(0, len(places), size):
        batched.append(runner(pixels[places[start : start + size]]))
        yield Tick(f"batches of {size}", start + size, len(places))
    return compare(alone[places], np.concatenate(batched)).agreement

"""Start and memory are those of fresh processes, each with one model alone."""

from pathlib import Path

import numpy as np
import pytest

from vit_edge.bench import Setting, Step, made_pictures, measure_starts
from vit_edge.errors import VitEdgeError

from ..drain import drained
from .conftest import LARGE_SIDE


@pytest.mark.slow
def test_the_memory_is_that_of_the_model_alone(small: Path, large: Path) -> None:
    """Peaks that ran together in one process would be those of the largest model."""
    ballast = np.ones(300_000_000, np.uint8)
    cases = [(small, Setting()), (large, Setting(batch=8)), (small, Setting())]
    _, starts = drained(measure_starts(cases, made_pictures(), count=1))
    peaks = [start.peak_mb for start in starts]
    assert None not in peaks
    first, batch, last = (float(peak or 0) for peak in peaks)
    # Eight large images, and the inputs in float32 of those that are computed side by side, one at least.
    assert batch > first + (8 + 4) * 3 * LARGE_SIDE**2 / 1e6
    assert abs(first - last) < 20
    assert 20 < first < ballast.nbytes / 1e6


@pytest.mark.slow
def test_the_start_of_the_interpreter_counts(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who waits for a device's first answer waits for its imports as well."""
    steps, (before,) = drained(measure_starts([(small, Setting())], made_pictures(), count=2))
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow" / "sitecustomize.py").write_text("import time; time.sleep(2)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "slow"))
    _, (after,) = drained(measure_starts([(small, Setting())], made_pictures(), count=1))
    assert after.first_answer.p50_ms > before.first_answer.p50_ms + 1000
    assert after.first_answer.p50_ms > 2000
    # The first round, which reads the files from the disk, is not counted.
    assert before.first_answer.count == 2
    assert steps[-1] == Step("starting", 3, 3)


def test_threads_that_share_the_classifier_run_there_too(small: Path) -> None:
    """Each keeps its own images and buffers."""
    setting = Setting("cpu", 2, batch=2, concurrency=3)
    _, (start,) = drained(measure_starts([(small, setting)], made_pictures(), count=1))
    assert start.setting == setting
    assert start.to_dict()["peak_mb"] == start.peak_mb
    assert start.to_dict()["first_answer"]["count"] == 1


def test_a_process_that_fails_is_one_sentence(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what it said last, since nobody saw its screen."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "cv2.py").write_text("raise RuntimeError('a broken wheel')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    with pytest.raises(VitEdgeError) as caught:
        drained(measure_starts([(small, Setting())], made_pictures(), count=1))
    assert str(caught.value) == (
        f"a process with {small} ended with status 1 (RuntimeError: a broken wheel); "
        "see whether `vit-edge classify` runs it, or leave the start out with --starts 0"
    )

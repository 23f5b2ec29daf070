"""Work is repeated in so many threads for so long, and its times are described as they were."""

import threading
import time

import numpy as np
import pytest

from vit_edge.bench import Times
from vit_edge.bench.load import Load


def test_the_figures_are_the_quantiles_of_the_times() -> None:
    """A p99 that is really the mean hides the frames that people notice."""
    times = Times.of([ms / 1e3 for ms in range(1, 102)])
    assert (times.count, times.p50_ms, times.p90_ms, times.p99_ms) == pytest.approx((101, 51, 91, 100))
    assert times.spread == pytest.approx(50 / 51)
    assert times.to_dict() == {
        "count": 101,
        "p50_ms": times.p50_ms,
        "p90_ms": times.p90_ms,
        "p99_ms": times.p99_ms,
        "spread": times.spread,
    }


def test_one_thread_is_the_callers_own() -> None:
    """Handing work to another thread costs time that is not the model's."""
    with Load(1) as load:
        ran = load.run(lambda number: (number, threading.current_thread()), 0, at_least=3)
    assert ran.results == [(number, threading.current_thread()) for number in range(3)]


def test_several_threads_work_at_the_same_time() -> None:
    """One after the other they would show no contention."""
    meet = threading.Barrier(3)
    with Load(3) as load:
        # Work that ends only once all three are at it.
        ran = load.run(lambda number: meet.wait(timeout=30), 0, at_least=4)
    assert len(ran.results) == 12
    assert sorted(ran.results) == sorted([0, 1, 2] * 4)


@pytest.mark.parametrize("threads", [1, 3])
def test_work_goes_on_until_its_time_is_over(threads: int) -> None:
    """The seconds are those from the first call to the last one's end, of all threads together."""
    with Load(threads) as load:
        start = time.perf_counter()
        ran = load.run(lambda number: time.sleep(0.01), 0.1)
        elapsed = time.perf_counter() - start
    assert 0.1 <= ran.seconds <= elapsed
    assert threads <= len(ran.results) <= 10 * threads


@pytest.mark.parametrize("threads", [1, 2])
def test_what_goes_wrong_in_a_thread_comes_out(threads: int) -> None:
    """A benchmark of calls that failed at once would look fast."""

    def fail(number: int) -> None:
        raise ValueError("no")

    with Load(threads) as load, pytest.raises(ValueError, match="no"):
        load.run(fail, 0)


def test_each_thread_begins_with_other_images() -> None:
    """All threads on one image at a time would be a kinder load than any real one."""
    with Load(2) as load:
        ran = load.run(lambda number: number, 0, at_least=2)
    assert sorted(np.ravel(ran.results).tolist()) == [0, 1, 1, 2]

"""Stages, whole calls, throughput and ratios of several models, measured on real sessions."""

from pathlib import Path

import cv2
import pytest

from vit_edge.bench import (
    Pictures,
    Plan,
    Setting,
    Step,
    candidates,
    made_pictures,
    measure,
    run,
    sweep_threads,
)
from vit_edge.errors import ModelError, ProviderError
from vit_edge.runtime import Classifier
from vit_edge.runtime.cores import usable_cores
from vit_edge.runtime.image import read_image

from ..drain import drained
from ..runtime import openvino
from ..runtime.openvino import needs_openvino


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    """Give a made picture at a quarter of its size, so that the tests are quick."""
    image = cv2.resize(read_image(made_pictures().files[0]), (320, 180))
    return Pictures("quarter", (cv2.imencode(".jpg", image)[1].tobytes(),), ((320, 180),))


def test_a_heavier_model_takes_longer_and_the_first_is_the_measure(
    small: Path, large: Path, pictures: Pictures
) -> None:
    """Ratios are what people decide by."""
    for models in ((small, large), (large, small)):
        seen, rows = drained(measure(models, [[Setting("cpu", 1)]] * 2, pictures, seconds=0.2))
        assert [row.model for row in rows] == list(models)
        assert rows[0].ratio == 1
        assert (rows[1].ratio > 1.5) == (models[1] == large)
        assert seen[-1] == Step("timing", 10, 10)
        for row in rows:
            assert row.seal == Classifier(row.model).seal
            stages = (row.decode, row.preprocess, row.inference)
            assert all(0 < stage.p50_ms <= stage.p90_ms <= stage.p99_ms for stage in stages)
            # They are timed apart, and are still the parts of the whole.
            assert 0.1 < sum(stage.p50_ms for stage in stages) / row.end_to_end.p50_ms < 10
            assert row.end_to_end.count >= 20
    # Resizing to a million pixels, against to 64.
    by_model = {row.model: row for row in rows}
    assert by_model[large].preprocess.p50_ms > 2 * by_model[small].preprocess.p50_ms


def test_a_row_tells_what_really_ran(small: Path, pictures: Pictures) -> None:
    """`auto` and the classifier's own choice of threads are no answer."""
    _, (row,) = drained(measure([small], [[Setting()]], pictures, seconds=0.1))
    assert row.setting == Setting("cpu", usable_cores(), 1, 1)
    assert row.to_dict()["end_to_end"]["count"] == row.end_to_end.count
    assert row.to_dict()["threads"] == usable_cores()
    # What that provider really runs, and not the CPU in its place.
    assert row.to_dict()["placement"] == Classifier(small).placement


def test_a_batch_is_one_call_with_so_many_images(small: Path, pictures: Pictures) -> None:
    """Times are those of a call, throughput is that of images."""
    settings = [Setting("cpu", 1), Setting("cpu", 1, batch=64)]
    _, (one, many) = drained(measure([small], [settings], pictures, seconds=0.2))
    assert many.decode.p50_ms > 4 * one.decode.p50_ms
    assert many.end_to_end.p50_ms > 4 * one.end_to_end.p50_ms
    for row in (one, many):
        # Half of the calls take the median at least; calls counted for images would be far below.
        assert 0.1 < row.images_per_s * row.end_to_end.p50_ms / 1e3 / row.setting.batch <= 2
    # An image takes about as long in either: decoding is most of it here.
    assert 0.1 < many.ratio < 10


def test_threads_that_share_a_classifier_all_count(small: Path, pictures: Pictures) -> None:
    """Of two threads at once each sees its own latency, and both make the throughput."""
    _, (row,) = drained(measure([small], [[Setting("cpu", 1, concurrency=3)]], pictures, seconds=0.2))
    assert row.setting.concurrency == 3
    # Ten rounds of at least two calls in each of three threads.
    assert row.end_to_end.count >= 60
    assert 0.1 < row.images_per_s * row.end_to_end.p50_ms / 1e3 <= 6


def test_a_file_of_a_fixed_batch_is_measured_too(tmp_path: Path, small: Path, pictures: Pictures) -> None:
    """It fills its batch up, which is what it costs there."""
    from ..runtime.onnx_writer import colour_model

    path = tmp_path / "fixed.onnx"
    path.write_bytes(colour_model(batch=4))
    _, (row,) = drained(measure([path], [[Setting()]], pictures, seconds=0.1))
    assert row.images_per_s > 0


def test_a_model_or_provider_that_is_missing_ends_it_before_any_timing(
    small: Path, tmp_path: Path, pictures: Pictures
) -> None:
    """After minutes of measuring the others, that would be late."""
    seen: list[Step] = []
    with pytest.raises(ModelError, match="there is no file"):
        seen += measure([small, tmp_path / "absent.onnx"], [[Setting()]] * 2, pictures)
    with pytest.raises(ProviderError, match="no provider 'gpu'"):
        seen += measure([small], [[Setting(), Setting("gpu")]], pictures)
    with pytest.raises(ProviderError, match="no_such_option"):
        seen += measure([small], [[Setting("cpu", provider_options=(("no_such_option", "1"),))]], pictures)
    assert {step.stage for step in seen} <= {"opening"}


def test_the_search_tries_every_count_and_takes_one_of_them(small: Path, pictures: Pictures) -> None:
    """What it gives is a thread count that was measured here."""
    seen, sweep = drained(sweep_threads(small, Setting(), pictures))
    assert tuple(sweep.ms) == candidates(usable_cores())
    assert sweep.best in sweep.ms
    assert sweep.ms[sweep.best] <= 1.03 * min(sweep.ms.values())
    assert sweep.provider == "cpu"
    assert seen[-1] == Step("threads for small.onnx", 9, 9)


def test_a_plan_measures_each_model_in_each_setting(small: Path, middle: Path, pictures: Pictures) -> None:
    """Per provider, thread count, batch and concurrency."""
    plan = Plan((small, middle), ("cpu",), (1, 2), (1, 2), (1, 2), seconds=0.01, starts=0)
    _, report = drained(run(plan, pictures))
    found = [(row.model, row.setting) for row in report.rows]
    settings = [
        Setting("cpu", threads, batch, loads) for threads in (1, 2) for batch in (1, 2) for loads in (1, 2)
    ]
    assert found == [(model, setting) for setting in settings for model in (small, middle)]
    # Each is compared with the first model in its own setting.
    assert [row.ratio for row in report.rows[::2]] == [1] * 8
    assert (report.starts, report.sweeps) == ((), ())
    assert report.to_dict()["device"]["cores"] == usable_cores()


def test_auto_threads_are_each_models_own(small: Path, middle: Path, pictures: Pictures) -> None:
    """What suits one file does not suit another."""
    plan = Plan((small, middle), threads="auto", seconds=0.1, starts=0)
    _, report = drained(run(plan, pictures))
    assert [sweep.model for sweep in report.sweeps] == [small, middle]
    assert [row.setting.threads for row in report.rows] == [sweep.best for sweep in report.sweeps]


COMPILES = """
from contextlib import contextmanager
from pathlib import Path
from vit_edge.bench import Plan, made_pictures, run

told = []

@contextmanager
def compiling(title):
    told.append(title)
    yield

for threads in ((1,), "auto"):
    plan = Plan((Path(sys.argv[1]),), ("openvino",), threads, seconds=0.1, starts=0)
    for _ in run(plan, made_pictures(), compiling=compiling):
        pass
tell(told=told)
"""


@needs_openvino
def test_a_provider_that_compiles_is_shown_at_work(small: Path) -> None:
    """TensorRT builds an engine for minutes: whoever waits must not think that it hangs."""
    (found,), _ = openvino.run(COMPILES, small)
    # One to measure, then each that the search for a thread count opens, and the best once more.
    assert found["told"] == [f"compiling {small} for openvino"] * (1 + len(candidates(usable_cores())) + 1)

"""The loop classifies the newest frame of what is live and every frame of a file, and tells how old its answers are."""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from vit_edge.runtime import (
    Answer,
    Capture,
    Classifier,
    ImageError,
    ModelError,
    SourceError,
    Watch,
    WatchError,
    open_source,
    watch,
)

from ..streams import mjpeg_server, read_clock
from .onnx_writer import METADATA, colour_model, flat_colour

Pixels = NDArray[Any]


class SlowClassifier(Classifier):
    """A small model that takes its time, in the place of a large one."""

    def __init__(self, seconds: float) -> None:
        super().__init__(colour_model(), spinning=False)
        self.seconds = seconds
        self.runs = 0

    def logits(self, pixels: Pixels) -> NDArray[np.float32]:
        self.runs += 1
        time.sleep(self.seconds)
        return super().logits(pixels)


@pytest.fixture
def classifier() -> Classifier:
    return Classifier(colour_model(), spinning=False)


COLOURS = ("red", "green", "blue")


def pictures(count: int) -> list[NDArray[np.uint8]]:
    return [flat_colour(COLOURS[place % 3]) for place in range(count)]


def camera(
    rate_hz: float, count: int = 10**9, picture: Callable[[int], NDArray[np.uint8]] | None = None
) -> Iterator[NDArray[np.uint8]]:
    """A program that makes pictures at its own rate, like a game or a simulator."""
    start = time.monotonic()
    for place in range(count):
        time.sleep(max(0.0, start + place / rate_hz - time.monotonic()))
        yield picture(place) if picture else flat_colour(COLOURS[place % 3])


def live(*args: Any, **options: Any) -> Any:
    return open_source(camera(*args, **options), capture=Capture(live=True))


def test_every_frame_of_a_file_is_answered_in_order(classifier: Classifier) -> None:
    """Whoever counts the cars in a recording counts all of them, whatever the model's speed."""
    with watch(classifier, pictures(50), steady_s=0) as answers:
        found = list(answers)
    assert [answer.frame for answer in found] == list(range(50))
    assert [answer.label for answer in found] == [COLOURS[place % 3] for place in range(50)]
    assert {answer.dropped for answer in found} == {0}
    assert answers.summary.answers == answers.summary.frames == 50


def test_an_answer_is_what_the_classifier_says(classifier: Classifier) -> None:
    """The loop adds nothing of its own to a frame taken by itself."""
    picture = flat_colour("green", shade=40)
    (answer,) = watch(classifier, [picture], steady_s=0, top=2)
    alone = classifier(picture, top=2)
    assert answer.label == alone.label
    assert answer.probability == pytest.approx(alone.probability)
    assert [score.label for score in answer.top] == [score.label for score in alone.top]
    assert answer.image is picture or np.array_equal(answer.image, picture)
    values = answer.to_dict()
    assert list(values)[:8] == ["time", "source", "frame", "label", "probability", "top", "age_ms", "dropped"]
    assert values["top"][0] == {"label": "green", "probability": answer.probability, "id": "n00000002"}
    assert abs(values["time"] - time.time()) < 60


def test_the_stages_work_at_the_same_time() -> None:
    """Two cores are not to wait for each other: reading, preprocessing and the model take turns in none of them."""
    model = SlowClassifier(0.02)

    def slow_pictures() -> Iterator[NDArray[np.uint8]]:
        for picture in pictures(30):
            time.sleep(0.02)
            yield picture

    start = time.monotonic()
    with watch(model, slow_pictures()) as answers:
        for _ in answers:
            time.sleep(0.02)
    # One after another it would be 3 * 20 ms for each.
    assert time.monotonic() - start < 30 * 0.06 * 0.75


def test_a_model_slower_than_the_camera_works_on_the_newest_frame() -> None:
    """Frames that queue up are how a camera falls minutes behind."""
    model = SlowClassifier(0.1)
    with watch(model, live(50, 100)) as answers:
        found = list(answers)
    numbers = [answer.frame for answer in found]
    assert numbers == sorted(set(numbers))
    assert 10 <= len(found) <= 25
    # A frame is taken just before the model is free: it waits for it no more than a frame's time.
    assert np.median([answer.age_ms for answer in found]) < 200
    last = found[-1]
    # Those that came while the model worked on the last one are counted as well.
    assert 0 <= last.dropped - (last.frame + 1 - len(found)) < 20


def test_a_camera_slower_than_the_model_loses_no_frame(classifier: Classifier) -> None:
    """And its frames are answered as they come."""
    with watch(classifier, live(20, 30)) as answers:
        found = list(answers)
    assert [answer.frame for answer in found] == list(range(30))
    assert answers.summary.dropped == 0
    assert answers.summary.age_p50_ms < 50  # the time from frame to frame


def test_a_slow_program_gets_the_newest_answer(classifier: Classifier) -> None:
    """A slow screen must not make what it shows old."""
    ages = []
    with watch(classifier, live(100, 150)) as answers:
        for answer in answers:
            ages.append(answer.age_ms)
            time.sleep(0.1)
    assert len(ages) <= 20
    assert np.median(ages) < 100
    assert answers.summary.dropped > 100


def test_the_age_is_that_of_the_picture(classifier: Classifier) -> None:
    """Told by a clock in the picture itself, so that no buffer on the way can hide: a real stream over HTTP."""
    with mjpeg_server(fps=30) as server, watch(classifier, server.url) as answers:
        found = []
        for answer in answers:
            found.append(((time.monotonic() - read_clock(answer.image)) * 1e3, answer.age_ms))
            if len(found) == 60:
                break
    true, told = np.median(found[10:], axis=0)
    # The picture is made, packed, sent and unpacked before its frame counts as taken.
    assert told <= true + 1
    assert true - told < 50


def test_a_cut_stream_costs_only_the_frames_of_the_gap(classifier: Classifier) -> None:
    """A camera whose plug is pulled is no reason to start the program anew."""
    with mjpeg_server(fps=30) as server, watch(classifier, server.url, steady_s=0) as answers:
        before = [next(answers) for _ in range(10)]
        server.stop()
        threading.Timer(0.5, server.start).start()
        after = []
        for answer in answers:
            if answer.frame > before[-1].frame + 3:
                after.append(answer)
            if len(after) == 20:
                break
        summary = answers.summary
    assert summary.gaps == 1
    assert summary.gap_s > 0.3
    assert "1 gap, " in str(summary)


def ended(before: set[threading.Thread]) -> bool:
    """Wait until there are no more threads than *before*."""
    until = time.monotonic() + 10
    while set(threading.enumerate()) - before:
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize("waiting", [False, True])
def test_closing_ends_the_threads_and_lets_go_of_the_source(waiting: bool, classifier: Classifier) -> None:
    """Else the camera's light stays on."""
    before = set(threading.enumerate())
    source = live(0.5 if waiting else 50)
    answers = watch(classifier, source)
    next(answers)
    if waiting:
        threading.Timer(0.2, answers.close).start()
        assert list(answers) == []
    else:
        answers.close()
    assert list(answers) == []
    assert ended(before)
    answers.close()


def test_a_loop_that_nobody_holds_any_more_ends(classifier: Classifier) -> None:
    """`for answer in watch(...): break` is what people write."""
    before = set(threading.enumerate())
    for _ in watch(classifier, live(50)):
        break
    assert ended(before)


def test_a_stop_does_not_wait_for_a_slow_model() -> None:
    """Ctrl-C is answered within a second, also where an answer takes ten."""
    model = SlowClassifier(0.0)
    answers = watch(model, live(50))
    next(answers)
    model.seconds = 2.5
    time.sleep(0.2)
    start = time.monotonic()
    answers.close()
    assert time.monotonic() - start < 1.5


def collect(answers: Watch, found: list[Answer]) -> None:
    for answer in answers:
        found.append(answer)


def test_a_failing_source_is_raised_after_the_answers_before_it(classifier: Classifier) -> None:
    """Nothing that was answered is lost."""

    def breaking() -> Iterator[NDArray[np.uint8]]:
        yield from pictures(3)
        raise SourceError("the cable broke")

    found: list[Answer] = []
    answers = watch(classifier, breaking())
    with pytest.raises(SourceError, match="the cable broke"):
        collect(answers, found)
    assert len(found) == 3


def test_a_picture_that_is_none_is_raised(classifier: Classifier) -> None:
    """With the sentence of whoever found it."""
    with pytest.raises(ImageError, match="expected"):
        list(watch(classifier, [np.zeros((4, 4), np.float64)]))


def test_a_failing_model_is_raised() -> None:
    """Rather than a loop that stands still."""
    with pytest.raises(ModelError, match="infinite values or NaN"):
        list(watch(Classifier(colour_model(gain=float("nan"))), pictures(2)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"top": 0}, "expected top of at least 1, got 0"),
        ({"steady_s": -1.0}, "expected steady_s of at least 0, got -1.0"),
        ({"threshold": 1.5}, "expected a threshold of 0 to 1, got 1.5"),
        ({"threshold": float("nan")}, "expected threshold of at least 0, got nan"),
        ({"max_age_ms": 0.0}, "expected max_age_ms above 0, got 0.0"),
        (
            {"rate_hz": 2.0},
            "rate_hz is for a live source; arrays gives every frame as fast as it is answered",
        ),
        ({"max_age_ms": 50.0}, "max_age_ms is for a live source"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(
    options: dict[str, Any], sentence: str, classifier: Classifier
) -> None:
    """Before any camera's light goes on for nothing."""
    with pytest.raises(WatchError, match=sentence.replace("(", r"\(")):
        watch(classifier, pictures(1), **options)


def test_a_rate_lowers_the_work_and_the_summary_tells() -> None:
    """A battery lasts longer on five looks a second than on fifty."""
    model = SlowClassifier(0.0)
    with watch(model, live(50, 100), rate_hz=5) as answers:
        found = list(answers)
    assert 8 <= len(found) <= 13
    summary = answers.summary
    assert summary.rested > 60
    assert 0.6 < summary.saved <= 1
    assert "% of the frames spared the model" in str(summary)


def test_a_scene_that_nobody_answered_is_not_taken_for_the_one_before() -> None:
    """Its first frame may be passed over while the model works; the next ones stand still, and show something else."""

    class HeldClassifier(SlowClassifier):
        working, released = threading.Event(), threading.Event()

        def logits(self, pixels: Pixels) -> NDArray[np.float32]:
            if self.runs == 2:  # after the two that warm up
                self.working.set()
                assert self.released.wait(10)
            return super().logits(pixels)

    model = HeldClassifier(0.0)

    def scenes() -> Iterator[NDArray[np.uint8]]:
        yield flat_colour("red")
        assert model.working.wait(10)
        for _ in range(4):
            yield flat_colour("blue")
            time.sleep(0.1)
        model.released.set()

    source = open_source(scenes(), capture=Capture(live=True))
    with watch(model, source, still=True, steady_s=0) as answers:
        first, *others = answers
    assert first.label == "red"
    assert {answer.label for answer in others} == {"blue"}


def test_a_scene_that_stands_still_spares_the_model() -> None:
    """A door is closed most of the day; its answer is repeated, and a change is seen at once."""
    model = SlowClassifier(0.0)

    def door(place: int) -> NDArray[np.uint8]:
        return flat_colour("blue" if place < 30 else "red")

    with watch(model, live(60, 60, picture=door), still=True, steady_s=0) as answers:
        found = list(answers)
    assert [answer.label for answer in found][-1] == "red"
    # Two runs warm it up.
    assert model.runs - 2 == 2
    assert sum(answer.repeated for answer in found) == len(found) - 2
    assert {answer.label for answer in found if answer.frame < 30} == {"blue"}
    assert {answer.label for answer in found if answer.frame >= 30} == {"red"}
    assert answers.summary.saved > 0.9
    assert answers.summary.infer_ms > 0


def test_without_asking_every_frame_is_looked_at() -> None:
    """Saving is a choice: what is too small for the small picture may matter."""
    model = SlowClassifier(0.0)
    with watch(model, [flat_colour("blue")] * 10) as answers:
        assert len(list(answers)) == 10
    assert model.runs == 10


def video(path: Path, colours: list[str], fps: float = 30.0) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (64, 48))
    for colour in colours:
        writer.write(np.ascontiguousarray(flat_colour(colour, height=48, width=64)[..., ::-1]))
    writer.release()
    return path


def test_a_video_is_steadied_by_its_own_clock(classifier: Classifier, tmp_path: Path) -> None:
    """The answers to a recording must not depend on how fast the computer is."""
    clip = video(tmp_path / "clip.avi", ["red"] * 10 + ["green"] + ["red"] * 10 + ["green"] * 30)

    def labels(model: Classifier) -> list[tuple[str, float]]:
        return [(answer.label, answer.probability) for answer in watch(model, clip)]

    fast = labels(classifier)
    assert [label for label, _ in fast[:21]] == ["red"] * 21
    assert fast[-1][0] == "green"
    assert labels(SlowClassifier(0.01)) == fast


def test_pictures_of_a_folder_are_never_averaged(classifier: Classifier, tmp_path: Path) -> None:
    """They have nothing to do with each other."""
    for place in range(9):
        cv2.imwrite(str(tmp_path / f"{place}.png"), flat_colour(COLOURS[place % 3])[..., ::-1])
    found = [answer.label for answer in watch(classifier, tmp_path)]
    assert found == [COLOURS[place % 3] for place in range(9)]


def test_a_less_probable_answer_is_unknown(classifier: Classifier) -> None:
    """Rather than a guess that looks like an answer; the likeliest classes are still told."""
    gray = np.full((20, 30, 3), 120, np.uint8)
    gray[..., 0] += 10
    (answer,) = watch(classifier, [gray], threshold=0.5)
    assert (answer.label, answer.known) == ("unknown", False)
    assert answer.top[0].label == "red"
    assert answer.probability == answer.top[0].probability < 0.5
    (answer,) = watch(classifier, [gray])
    assert (answer.label, answer.known) == ("red", True)


def test_the_threshold_of_the_file_is_the_default() -> None:
    """It was found with the model, on labelled images."""
    model = Classifier(colour_model(replace(METADATA, scores={"temperature": 1.0, "threshold": 0.99})))
    picture = flat_colour("red", shade=60)
    assert [answer.label for answer in watch(model, [picture])] == ["unknown"]
    assert [answer.label for answer in watch(model, [picture], threshold=0.0)] == ["red"]


def test_frames_that_would_be_too_old_are_passed_over() -> None:
    """An answer that comes too late is not waited for, where a newer one can come in time."""
    model = SlowClassifier(0.02)
    with watch(model, live(100), max_age_ms=80) as answers:
        for answer in answers:
            if answer.frame > 20:
                break
        model.seconds = 0.3  # a hiccup, in which what was prepared grows old
        next(answers)
        model.seconds = 0.02
        next(answers)
        found = [next(answers) for _ in range(30)]
        summary = answers.summary
    assert np.median([answer.age_ms for answer in found]) < 80
    assert summary.late >= 1


def test_a_limit_that_no_shedding_can_hold_is_said_and_answers_still_come(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A contract that is silently broken is none; and a late answer is better than silence."""
    model = SlowClassifier(0.06)
    with caplog.at_level(logging.WARNING), watch(model, live(50), max_age_ms=30) as answers:
        found: list[Answer] = []
        for answer in answers:
            found.append(answer)
            if len(found) == 30:
                break
    (said,) = [record.getMessage() for record in caplog.records if "limit" in record.getMessage()]
    assert "the limit of 30 ms cannot be held" in said
    assert answers.relief > 0
    assert answers.summary.late == 30


def test_a_waiting_loop_leaves_the_processor_alone(classifier: Classifier) -> None:
    """A camera at two frames a second, on a battery."""
    with watch(classifier, live(2)) as answers:
        next(answers)
        before = time.process_time()
        start = time.monotonic()
        for _ in range(4):
            next(answers)
        used, passed = time.process_time() - before, time.monotonic() - start
    assert used / passed < 0.25


def test_wait_gives_nothing_while_nothing_comes(classifier: Classifier) -> None:
    """A program with a window has other things to do meanwhile."""
    with watch(classifier, live(1)) as answers:
        assert answers.wait(5.0) is not None
        assert answers.wait(0.05) is None
        assert not answers.behind


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory's size as Linux tells it")
def test_memory_stays_flat(classifier: Classifier) -> None:
    """A cupboard is not looked into for months: half a minute at some hundred frames a second shows a leak."""

    def frame(place: int) -> NDArray[np.uint8]:
        return flat_colour(COLOURS[place % 3], height=480, width=640)

    with watch(classifier, live(200, picture=frame)) as answers:
        start = time.monotonic()
        base = None
        for _ in answers:
            passed = time.monotonic() - start
            if base is None and passed > 5:
                base = resident_bytes()
            if passed > 25:
                break
        assert base is not None
        assert resident_bytes() - base < 5e6

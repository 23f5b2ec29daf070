"""Outputs take answers without holding up the loop, and one that fails does not stop the others."""

import io
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Self

import cv2
import numpy as np
import pytest

from vit_edge.runtime import (
    Answer,
    Fan,
    GrabSink,
    JsonSink,
    RecordSink,
    Score,
    SinkError,
    TextSink,
    WindowSink,
)
from vit_edge.runtime.draw import annotate
from vit_edge.runtime.sinks import window as window_module

from .onnx_writer import flat_colour


def answer(label: str = "red", *, frame: int = 0, age_ms: float = 5.0, **changed: object) -> Answer:
    scores = (Score(label, 0.8, 0), Score("other", 0.1, 1))
    picture = flat_colour("red", height=240, width=320)
    given = Answer(time.time(), "camera 0", frame, label, 0.8, scores, age_ms, 0, 4.0, picture)
    return replace(given, **changed)  # type: ignore[arg-type]


# -- lines


def test_each_answer_is_one_json_object_a_line() -> None:
    """Whatever the label holds: a line break in it would split the object."""
    stream = io.BytesIO()
    with JsonSink(stream) as sink:
        for place, label in enumerate(("red", "two\nlines", "猫")):
            assert sink.show(answer(label, frame=place))
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["label"] for line in lines] == ["red", "two\nlines", "猫"]
    assert [line["frame"] for line in lines] == [0, 1, 2]
    assert {"time", "source", "frame", "label", "probability", "top", "age_ms", "dropped"} <= set(lines[0])


def test_text_has_a_line_for_each_change() -> None:
    """Thirty equal lines a second hide the one that matters."""
    stream = io.BytesIO()
    with TextSink(stream, place=lambda _: "12:00:00") as sink:
        for label in ("red", "red", "blue", "blue", "red"):
            sink.show(answer(label))
    assert stream.getvalue().decode().splitlines() == [
        "12:00:00   80.0 %     5.0 ms  red",
        "12:00:00   80.0 %     5.0 ms  blue",
        "12:00:00   80.0 %     5.0 ms  red",
    ]


def pipe() -> tuple[int, io.FileIO]:
    reading, writing = os.pipe()
    return reading, open(writing, "wb", buffering=0)  # noqa: PTH123


def fill(sink: JsonSink, count: int) -> None:
    with sink:
        for place in range(count):
            sink.show(answer(frame=place))


def test_a_reader_that_stands_still_does_not_hold_up_a_live_loop() -> None:
    """`vit-edge camera --json | less`: the camera goes on, and what is missing is told."""
    reading, stream = pipe()
    start = time.monotonic()
    with stream, pytest.raises(SinkError, match="nobody reads them"):
        fill(JsonSink(stream), 2000)
    assert time.monotonic() - start < 3
    os.close(reading)


def test_a_slow_reader_gets_every_line_of_a_file() -> None:
    """There the loop waits: every frame counts."""
    reading, stream = pipe()
    got: list[bytes] = []

    def read() -> None:
        with open(reading, "rb") as lines:  # noqa: PTH123
            for line in lines:
                got.append(line)
                if len(got) < 50:
                    time.sleep(0.01)

    thread = threading.Thread(target=read)
    thread.start()
    with stream, JsonSink(stream, live=False) as sink:
        for place in range(1500):
            sink.show(answer(frame=place))
    thread.join(20)
    assert [json.loads(line)["frame"] for line in got] == list(range(1500))


def test_a_hurry_frees_whoever_waits_for_a_reader() -> None:
    """Ctrl-C in front of a pipe that is stuck."""
    reading, stream = pipe()
    sink = JsonSink(stream, live=False)
    threading.Timer(0.5, sink.hurry).start()
    with stream, pytest.raises(SinkError, match="nobody reads them"):
        fill(sink, 5000)
    os.close(reading)


# -- several


class Memory:
    """Remembers what it was shown."""

    name = "memory"

    def __init__(
        self, *, costly: bool = False, fails_at: int | None = None, stops_at: int | None = None
    ) -> None:
        self.costly, self._fails_at, self._stops_at = costly, fails_at, stops_at
        self.seen: list[int] = []
        self.open = self.was_open = False

    def __enter__(self) -> Self:
        self.open = self.was_open = True
        return self

    def __exit__(self, *_: object) -> None:
        self.open = False

    def show(self, answer: Answer) -> bool:
        if answer.frame == self._fails_at:
            raise OSError(28, "No space left on device", "/media/card")
        self.seen.append(answer.frame)
        return answer.frame != self._stops_at


def test_one_that_fails_is_said_once_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    """A full disk must not end what the screen shows."""
    good, bad = Memory(), Memory(fails_at=2)
    with Fan([bad, good]) as fan:
        assert all(fan.show(answer(frame=place)) for place in range(5))
        assert not bad.open
        assert len(fan) == 1
    assert good.seen == [0, 1, 2, 3, 4]
    assert not good.open
    assert [record.getMessage() for record in caplog.records] == [
        "the memory stopped: no space left on device (/media/card)"
    ]


def test_with_none_left_the_loop_is_asked_to_stop() -> None:
    """To work on for nobody wastes a battery."""
    with Fan([Memory(fails_at=1)]) as fan:
        assert fan.show(answer(frame=0))
        assert not fan.show(answer(frame=1))


def test_a_sink_that_cannot_be_opened_is_said_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The others are what the user has."""
    good = Memory()
    with Fan([RecordSink(tmp_path / "absent" / "x.mp4"), good]) as fan:
        assert fan.show(answer())
    assert good.seen == [0]
    (record,) = caplog.records
    assert record.getMessage() == f"no recording: there is no folder {tmp_path / 'absent'}; make it first"


def test_a_user_who_closes_the_window_ends_the_loop() -> None:
    """And the other outputs still get the answer."""
    last = Memory()
    with Fan([Memory(stops_at=1), last]) as fan:
        assert fan.show(answer(frame=0))
        assert not fan.show(answer(frame=1))
    assert last.seen == [0, 1]


def test_a_mistake_in_a_sink_is_not_hidden() -> None:
    """What no disk or reader can cause is for whoever wrote it."""

    class Broken(Memory):
        def show(self, answer: Answer) -> bool:
            raise TypeError("a mistake")

    broken = Broken()
    with pytest.raises(TypeError, match="a mistake"), Fan([broken]) as fan:
        fan.show(answer())
    assert not broken.open


def test_a_signal_while_sinks_are_opened_closes_those_that_are() -> None:
    """A recording that has begun must be finished, whenever Ctrl-C comes."""

    class Stopped(BaseException):
        """What a signal raises."""

    class Interrupted(Memory):
        def __enter__(self) -> Self:
            raise Stopped

    first, last = Memory(), Memory()
    with pytest.raises(Stopped), Fan([first, Interrupted(), last]):
        pass
    assert first.was_open
    assert not first.open
    assert not last.was_open


@pytest.mark.parametrize("sink", [WindowSink, RecordSink])
def test_windows_and_recordings_give_way(sink: type, monkeypatch: pytest.MonkeyPatch) -> None:
    """They draw, which takes longest of all that is not an answer."""
    shown: list[int] = []

    def show(_: object, answer: Answer) -> bool:
        shown.append(answer.frame)
        return True

    monkeypatch.setattr(sink, "__enter__", lambda self: self)
    monkeypatch.setattr(sink, "show", show)
    with Fan([sink("x.mp4")], relief=lambda: 5) as fan:
        assert all(fan.show(answer(frame=place)) for place in range(5))
    assert shown == [0]


def test_what_is_costly_is_shown_less_often_under_load() -> None:
    """Lines for programs are cheap and all of them count; pictures are for people."""
    costly, cheap, load = Memory(costly=True), Memory(), [0]
    with Fan([costly, cheap], relief=lambda: load[0]) as fan:
        for step, expected in ((0, 30), (1, 25), (5, 3)):
            load[0] = step
            costly.seen.clear()
            start = time.monotonic()
            for place in range(30):
                fan.show(answer(frame=place))
                if step:
                    time.sleep(max(0, start + place * 0.05 - time.monotonic()))
            # A second holds 15 pictures at the first step, and one at the last.
            assert len(costly.seen) <= expected
            assert costly.seen
    assert len(cheap.seen) == 90


# -- recordings


def probe(path: Path) -> tuple[int, float, list[float]]:
    """Decode a video: the number of its pictures, its rate, and the mean of each picture's red."""
    video = cv2.VideoCapture(str(path))
    fps = video.get(cv2.CAP_PROP_FPS)
    reds = []
    while (read := video.read())[0]:
        reds.append(float(read[1][60:180, :, 2].mean()))
    video.release()
    return len(reds), fps, reds


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".avi"])
def test_a_file_is_recorded_frame_by_frame(suffix: str, tmp_path: Path) -> None:
    """At its own rate, so that both play side by side."""
    path = tmp_path / f"out{suffix}"
    with RecordSink(path, fps=12.0, live=False) as sink:
        for place in range(24):
            sink.show(answer(frame=place))
    count, fps, _ = probe(path)
    assert count == 24
    assert fps == pytest.approx(12.0)
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_a_live_recording_plays_as_fast_as_the_world_went(tmp_path: Path) -> None:
    """Answers come at an uneven rate, and with a break; each picture stands in the video where it stood in time."""
    path = tmp_path / "out.mp4"
    dark = np.zeros((240, 320, 3), np.uint8)
    start = time.monotonic()
    with RecordSink(path, fps=20.0) as sink:
        for moment, image in ((0.0, None), (0.05, None), (0.1, None), (0.7, dark), (1.3, None)):
            time.sleep(max(0.0, start + moment - time.monotonic()))
            given = answer()
            sink.show(given if image is None else replace(given, image=image))
        time.sleep(0.2)
    count, fps, reds = probe(path)
    assert fps == pytest.approx(20.0)
    assert count == pytest.approx(1.5 * 20, abs=4)
    bright = [red > 100 for red in reds]
    first = bright.index(False)
    assert first == pytest.approx(0.7 * 20, abs=2)
    assert bright.index(True, first) == pytest.approx(1.3 * 20, abs=2)


def test_a_recording_survives_a_clock_that_is_set(tmp_path: Path) -> None:
    """A small computer learns the time from the network minutes after its start, and jumps by years."""
    path = tmp_path / "out.avi"
    with RecordSink(path, fps=10.0) as sink:
        for time_s in (0.0, 1.8e9, 1.0):
            sink.show(answer(time=time_s))
            time.sleep(0.1)
    assert probe(path)[0] < 10


def test_a_frame_of_another_size_fits_into_the_recording(tmp_path: Path) -> None:
    """Images of a folder have all sizes, and a camera may come back with another."""
    path = tmp_path / "out.mp4"
    with RecordSink(path, fps=10.0, live=False) as sink:
        for shape in ((241, 321), (480, 200), (8, 8), (720, 1280)):
            sink.show(answer(image=np.full((*shape, 3), 200, np.uint8)))
    video = cv2.VideoCapture(str(path))
    sizes = []
    while (read := video.read())[0]:
        sizes.append(read[1].shape[:2])
    assert sizes == [(242, 322)] * 4


def test_without_an_answer_there_is_no_file(tmp_path: Path) -> None:
    """An empty video would look like a broken one; and what was there before stays."""
    path = tmp_path / "out.mp4"
    path.write_bytes(b"the last one")
    with RecordSink(path):
        pass
    assert path.read_bytes() == b"the last one"
    assert [item.name for item in tmp_path.iterdir()] == ["out.mp4"]


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("out.gif", {}, "expected a recording's name to end in .mp4, .mov, .mkv, .avi, got "),
        ("out", {}, "expected a recording's name to end in"),
        ("out.mp4", {"fps": 0.0}, "expected a recording of more than 0 pictures a second, got 0.0"),
    ],
)
def test_a_recording_that_cannot_be_is_refused(
    name: str, options: dict[str, float], sentence: str, tmp_path: Path
) -> None:
    """Before the camera runs for an hour."""
    with pytest.raises(SinkError, match=sentence.replace(".", r"\.")):
        RecordSink(tmp_path / name, **options)  # type: ignore[arg-type]


def test_a_disk_that_fills_up_ends_the_recording_while_it_can_be_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A recording without its end cannot be played. The disk's own report stands in for a full disk."""
    path, other = tmp_path / "out.mp4", Memory()
    usage = shutil.disk_usage(tmp_path)
    free = [10**12]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free[0]))
    monkeypatch.setattr("vit_edge.runtime.sinks.record._CHECK_S", 0.0)
    with Fan([RecordSink(path, fps=10.0, live=False), other]) as fan:
        for place in range(20):
            if place == 10:
                time.sleep(0.3)
                free[0] = 10_000_000
            assert fan.show(answer(frame=place))
            time.sleep(0.01)
    assert len(other.seen) == 20
    assert 8 <= probe(path)[0] <= 12
    (record,) = caplog.records
    assert record.getMessage() == (
        f"the recording stopped: less than 50 MB are free beside {path}; make room there"
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 200 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)], capture_output=True, check=False
        )
        if os.geteuid() == 0
        else None
    )
    if done is None or done.returncode:
        pytest.skip("needs to mount a small disk, which only root may, and not in every container")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_is_really_full_is_said(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Frames are saved whole or not at all, and a recording does not begin where it has no room."""
    grabbed, other = small_disk / "grabbed", Memory()
    noise = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
    with Fan([RecordSink(small_disk / "out.mp4"), GrabSink(grabbed, every_s=1e-9), other]) as fan:
        for place in range(20):
            assert fan.show(answer(frame=place, image=noise))
            time.sleep(0.02)
    said = [record.getMessage() for record in caplog.records]
    assert said[0].startswith("no recording: less than 50 MB are free beside")
    assert said[1].startswith("the grabbing of frames stopped: no space left on device")
    assert len(said) == 2
    assert len(other.seen) == 20
    for path in grabbed.iterdir():
        assert np.asarray(cv2.imread(str(path))).shape == (240, 320, 3)


def test_a_recording_shows_the_answers(tmp_path: Path) -> None:
    """Without the label in the picture nobody knows afterwards what was said when."""
    given = answer("red", fps=20.0)
    with RecordSink(tmp_path / "out.avi", fps=20.0, live=False) as sink:
        for place in range(3):
            sink.show(replace(given, frame=place))
    video = cv2.VideoCapture(str(tmp_path / "out.avi"))
    found, picture = video.read()
    video.release()
    assert found
    picture = np.asarray(picture)[..., ::-1].astype(int)
    title = picture[:22, :80]
    assert (title.min(axis=2) > 200).sum() > 20, "no white letters"
    assert np.abs(picture - annotate(given)).mean() < 6


# -- grabbed frames


def grabbed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_frames_are_saved_now_and_then(tmp_path: Path) -> None:
    """As they came: without what is drawn for people."""
    folder = tmp_path / "new" / "grabbed"
    with GrabSink(folder, every_s=0.3) as sink:
        for place in range(10):
            sink.show(answer(frame=place))
            time.sleep(0.05)
    names = grabbed(folder)
    assert len(names) == 2
    assert all(name.endswith(".jpg") and "unsure" not in name for name in names)
    assert names[0].endswith("-0000000.jpg")
    picture = np.asarray(cv2.imread(str(folder / names[0])))[..., ::-1]
    assert np.abs(picture.astype(int) - answer().image).max() < 12


def test_unsure_frames_are_always_saved(tmp_path: Path) -> None:
    """They teach a network most; the same doubt thirty times a second teaches nothing."""
    close = (Score("red", 0.45, 0), Score("blue", 0.4, 1))
    moved = flat_colour("blue", height=240, width=320)
    with GrabSink(tmp_path, every_s=1000.0) as sink:
        sink.show(answer(frame=0))
        sink.show(answer(frame=1))
        sink.show(answer(frame=2, top=close))
        sink.show(answer(frame=3, top=close))
        sink.show(answer(frame=4, image=moved, known=False, label="unknown"))
    assert [name.partition("Z-")[2] for name in grabbed(tmp_path)] == [
        "0000000.jpg",
        "0000002-unsure.jpg",
        "0000004-unsure.jpg",
    ]


def test_a_folder_has_its_bound(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A cupboard's disk must not fill up over months; what is there from the last run counts."""
    other = Memory()
    for expected in (3, 3):
        with Fan([GrabSink(tmp_path, every_s=1e-9, most_files=3), other]) as fan:
            for place in range(8):
                assert fan.show(answer(frame=place))
                time.sleep(0.02)
        assert len(grabbed(tmp_path)) == expected
    assert len(other.seen) == 16
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert all("holds 3 frames of 0 MB, which is as much as it may" in sentence for sentence in said)
    with pytest.raises(SinkError, match="as much as it may"), GrabSink(tmp_path, most_bytes=100):
        pass


# -- windows


def test_a_headless_opencv_is_said_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel without windows is the right one on a server, and installed by mistake on many desktops."""
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  GUI:                           NONE\n")
    with (
        pytest.raises(SinkError, match="the installed OpenCV has no windows; for one, `pip uninstall"),
        WindowSink(),
    ):
        pass


@pytest.mark.skipif(os.name != "posix", reason="screens are named so on Unix")
def test_without_a_screen_there_is_no_window(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One sentence, and the other outputs go on."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(window_module, "_has_windows", lambda: True)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    other = Memory()
    with caplog.at_level(logging.WARNING), Fan([WindowSink(), other]) as fan:
        assert fan.show(answer())
    assert other.seen == [0]
    assert [record.getMessage() for record in caplog.records] == [
        "no window: there is no screen (neither DISPLAY nor WAYLAND_DISPLAY is set)"
    ]

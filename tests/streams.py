"""Cameras on the network, for tests and benchmarks: real servers on loopback whose pictures carry a clock.

    with rtsp_server(size=(1280, 720)) as server, open_source(server.url) as source:
        for frame in source:
            age_s = time.monotonic() - read_clock(frame.image)

`stop` and `start` cut and restore a stream on the same port; `freeze` leaves its connections open and dead.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from numpy.typing import NDArray

from .servers.clock import COLUMNS, STRIP, time_of

SERVERS = Path(__file__).parent / "servers"

DEBIAN_PYTHON = "/usr/bin/python3"

USER, PASSWORD = "porter", "open-sesame-42"
"""The credentials of a server that asks for some."""

_RTSP_NEEDS = """
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
names = {"appsrc": "base", "x264enc": "ugly", "jpegenc": "good", "rtph264pay": "good"}
missing = {names[name] for name in names if not Gst.ElementFactory.find(name)}
print(*(f"gstreamer1.0-plugins-{name}" for name in sorted(missing)))
"""


def read_clock(image: NDArray[np.uint8]) -> float:
    """Read the clock burned into a picture.

    Args:
        image: (height, width, 3) uint8, 0..255, in either order of the channels.

    Returns:
        The value of `time.monotonic` when the picture was made, in any process of this machine, to 0.1 ms. Off Linux
        that clock may be another in each process.

    Raises:
        ValueError: The picture carries no clock, or it is damaged.
    """
    height, width = image.shape[:2]
    strip = height // STRIP
    rows = image[strip // 4 : strip - strip // 4].mean(axis=(0, 2))
    edges = np.linspace(0, width, COLUMNS + 1)
    middles = [
        rows[int(left + (right - left) / 4) : int(right - (right - left) / 4) + 1].mean()
        for left, right in pairwise(edges)
    ]
    return time_of([int(middle > 126) for middle in middles])


class Server:
    """A server in a process of its own.

    Attributes:
        url: The address, with the credentials if it asks for some.
        bare_url: The address without them.
    """

    def __init__(self, command: list[str], address: str, *, credentials: bool) -> None:
        self._command = command
        self._port = 0
        self._process: subprocess.Popen[str] | None = None
        self.start()
        self.bare_url = address.format(port=self._port)
        self.url = self.bare_url.replace("://", f"://{USER}:{PASSWORD}@") if credentials else self.bare_url

    def start(self) -> None:
        """Serve, on the same port as before; returns when clients can connect."""
        assert self._process is None
        self._process = subprocess.Popen(
            [*self._command, "--port", str(self._port)], stdout=subprocess.PIPE, text=True, cwd=SERVERS
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._command} does not serve")
        self._port = int(line)

    def stop(self) -> None:
        """Cut the stream: the process dies and its connections with it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._process = None

    def freeze(self) -> None:
        """Stop sending without closing anything, like a server that lost its power or its cable."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on after `freeze`."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self.stop()


@contextmanager
def rtsp_server(
    *, size: tuple[int, int] = (640, 480), fps: int = 30, codec: str = "h264", credentials: bool = False
) -> Iterator[Server]:
    """Serve RTSP by GStreamer, which is Debian's; a test skips where it is missing.

    Args:
        size: Width and height of the pictures.
        fps: Pictures a second.
        codec: ``h264`` or ``jpeg``.
        credentials: Whether it asks for `USER` and `PASSWORD`.
    """
    missing = rtsp_missing()
    if missing:
        pytest.skip(f"needs Debian's {missing} for an RTSP server")
    command = [DEBIAN_PYTHON, "rtsp.py", *_options(size, fps, credentials), "--codec", codec]
    with Server(command, "rtsp://127.0.0.1:{port}/camera", credentials=credentials) as server:
        yield server


@contextmanager
def mjpeg_server(
    *, size: tuple[int, int] = (640, 480), fps: int = 30, credentials: bool = False
) -> Iterator[Server]:
    """Serve MJPEG over HTTP, as many network cameras do; takes the options of `rtsp_server`."""
    command = [sys.executable, "mjpeg.py", *_options(size, fps, credentials)]
    with Server(command, "http://127.0.0.1:{port}/camera", credentials=credentials) as server:
        yield server


def rtsp_missing() -> str:
    """Give the Debian packages that `rtsp_server` lacks here, by name; nothing where it can run."""
    basics = "python3-gi and gir1.2-gst-rtsp-server-1.0"
    if not Path(DEBIAN_PYTHON).exists():
        return basics
    done = subprocess.run(
        [DEBIAN_PYTHON, "-c", _RTSP_NEEDS], capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else basics


def _options(size: tuple[int, int], fps: int, credentials: bool) -> list[str]:
    options: dict[str, object] = {"width": size[0], "height": size[1], "fps": fps}
    if credentials:
        options |= {"user": USER, "password": PASSWORD}
    return [text for name, value in options.items() for text in (f"--{name}", str(value))]

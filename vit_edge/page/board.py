"""Between the loop and the browsers: it holds the newest answer alone, and turns it into a message when one asks."""

import asyncio
import json
import math
import secrets
import struct
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from .history import KEPT_S, STEP_S, History, finite

if TYPE_CHECKING:
    from ..runtime.answer import Answer

# Pictures a second for all browsers together, and their size and quality: good to look at, and light for a device
# that has a model to run. A browser on a fast line sees more than enough at this rate.
_PICTURES_PER_S = 20.0
_LONGEST_SIDE = 1280
_QUALITY = 80

# A browser that asks while no answer comes hears that after this long, so that it knows the device lives.
_PATIENCE_S = 3.0


class _Shown(NamedTuple):
    """An answer with the picture that browsers get, a JPEG."""

    number: int
    answer: "Answer | None"
    picture: bytes = b""


class Board:
    """The newest answer. The loop's thread puts answers up; everything else happens in the server's thread."""

    def __init__(self, about: Mapping[str, Any]) -> None:
        self.run = secrets.token_hex(8)
        self.about = about
        self._start_s = time.monotonic()
        self._asked_s = -math.inf
        self._heard = threading.Event()
        self._lock = threading.Lock()
        self._history = History()
        self._newest: Answer | None = None
        self._number = 0
        self._closed = False
        self._server: asyncio.AbstractEventLoop | None = None
        # The server's thread alone touches these, but for the flag, which the lock guards.
        self._waiting = 0
        self._wake_sent = False
        self._changed = asyncio.Event()
        # Browsers share a picture. When it was made is told by the event loop's clock.
        self._shown = _Shown(0, None)
        self._made_s = -1.0

    def serve_from(self, server: asyncio.AbstractEventLoop) -> None:
        """Name the event loop in which browsers wait."""
        self._server = server

    def put(self, answer: "Answer") -> None:
        """Put up an answer in place of the one before; from any thread, and at once."""
        with self._lock:
            self._number += 1
            self._newest = answer
            self._history.add(
                time.monotonic() - self._start_s,
                age_ms=answer.age_ms,
                latency_ms=None if answer.repeated else answer.latency_ms,
                dropped=answer.dropped,
            )
            self._wake()

    def close(self, *, wait_s: float) -> None:
        """Tell the browsers that the run has ended.

        Args:
            wait_s: How long to wait until one has heard it, where one has asked of late and will ask again at once.
        """
        with self._lock:
            self._closed = True
            self._wake()
        if time.monotonic() - self._asked_s < _PATIENCE_S:
            self._heard.wait(wait_s)

    async def message(self, *, run: str, after: int, since: int) -> bytes:
        """Wait for an answer newer than the browser's, and give it.

        Args:
            run: The run that the browser has seen; what it knows of another run does not count.
            after: The number of its newest answer.
            since: The place of its newest step of the history.

        Returns:
            The length of a JSON text as 4 bytes, big-endian; the JSON text; a JPEG, or nothing where there is no
            newer answer.
        """
        patience_s, self._asked_s = _PATIENCE_S, time.monotonic()
        if run != self.run:
            # A browser that has just come wants to know at once how things stand.
            after, since, patience_s = 0, 0, 2 / _PICTURES_PER_S
        await self._news(after, patience_s)
        shown = self._shown
        with self._lock:
            closed, steps, gaps = self._closed, self._history.since(since), self._history.to_dict()
        content: dict[str, Any] = {
            "run": self.run,
            "number": max(after, shown.number),
            "now": round((time.monotonic() - self._start_s) / STEP_S, 3),
            "step_s": STEP_S,
            "kept_s": KEPT_S,
            "ended": closed,
            "steps": steps,
            **gaps,
        }
        picture = b""
        if shown.answer is not None and shown.number > after:
            content["answer"] = _plain(shown.answer)
            picture = shown.picture
        if closed:
            self._heard.set()
        text = json.dumps(content, ensure_ascii=False, allow_nan=False).encode(errors="replace")
        return struct.pack(">I", len(text)) + text + picture

    async def _news(self, after: int, patience_s: float) -> None:
        """Wait until an answer newer than *after* has its picture, the browser's patience ends, or the run does."""
        clock = asyncio.get_running_loop().time
        end_s = clock() + patience_s
        while clock() < end_s:
            with self._lock:
                newest = _Shown(self._number, self._newest)
                closed = self._closed
                # An answer that comes after this look sets the event that is waited for.
                changed = self._changed
                self._waiting += 1
            pause_s = self._made_s + 1 / _PICTURES_PER_S - clock()
            try:
                if (
                    newest.answer is not None
                    and newest.number > self._shown.number
                    and (pause_s <= 0 or closed)
                ):
                    self._made_s = clock()
                    self._shown = newest._replace(picture=encode(newest.answer.image))
                if closed or self._shown.number > after:
                    return
                if newest.number > after:
                    await asyncio.sleep(pause_s)
                else:
                    async with asyncio.timeout_at(end_s):
                        await changed.wait()
            except TimeoutError:
                return
            finally:
                with self._lock:
                    self._waiting -= 1

    def _wake(self) -> None:
        # One call at a time, and none where nobody waits: a fast loop never fills the server's queue.
        if self._server is None or self._wake_sent or not self._waiting:
            return
        self._wake_sent = True
        try:
            self._server.call_soon_threadsafe(self._wake_all)
        except RuntimeError:  # the server has ended
            self._server = None

    def _wake_all(self) -> None:
        with self._lock:
            self._wake_sent = False
            self._changed.set()
            self._changed = asyncio.Event()


def encode(image: NDArray[np.uint8]) -> bytes:
    """Make a JPEG of an image.

    Args:
        image: (height, width, 3) uint8, RGB, 0..255; a large one is made smaller first.

    Returns:
        The JPEG, or nothing where the image cannot be one.
    """
    try:
        height, width = image.shape[:2]
        scale = _LONGEST_SIDE / max(height, width)
        if scale < 1:
            size = max(1, round(width * scale)), max(1, round(height * scale))
            image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        made, data = cv2.imencode(
            ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
        )
    except (cv2.error, ValueError, ZeroDivisionError):
        return b""
    return data.tobytes() if made else b""


def _plain(answer: "Answer") -> dict[str, Any]:
    return {
        "source": answer.source,
        "frame": answer.frame,
        "label": answer.label,
        "probability": finite(answer.probability),
        "top": [{"label": score.label, "probability": finite(score.probability)} for score in answer.top],
        "age_ms": finite(answer.age_ms),
        "latency_ms": finite(answer.latency_ms),
        "dropped": answer.dropped,
        "known": answer.known,
        "repeated": answer.repeated,
    }

"""Sources of which only the newest frame counts: a thread reads the device into one slot, and opens it again."""

import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Self
from weakref import WeakSet

from ..errors import SourceError
from ..frame import Frame
from .source import Capture, Device, EndedError, Gap, GoneError

_LOG = logging.getLogger(__name__)

# Before opening again, seconds, and how the pause grows after every try in vain, up to the last.
_FIRST_PAUSE_S, _GROWTH, _LAST_PAUSE_S = 0.2, 1.5, 10.0

# A device that stayed for less is flapping, and the pauses go on growing.
_STEADY_S = 2.0

# After so many pictures that nobody took, no more are decoded until someone asks: a model that is far slower than
# the camera, or that rests on purpose, doesn't pay for pictures that it never sees.
_UNTAKEN = 3

# A driver that hangs is given up this much later than its own limit would have ended it, seconds.
_GRACE_S = 1.0

# How long close waits for the device to be let go of; a driver that hangs keeps its thread, and nothing else.
_CLOSE_S = 0.5

# As many of the last gaps are kept, so that a bad cable doesn't fill the memory in a year.
_GAPS = 1000

# Waiting is cut into pieces, so that Ctrl-C comes through on Windows, seconds.
_TICK_S = 0.2


_reading: "WeakSet[LiveSource]" = WeakSet()


@atexit.register
def _close_all() -> None:
    """Stop the readers of sources that nobody closed: Python ends threads in the middle of C++, which aborts."""
    for source in list(_reading):
        source.stop()
    for source in list(_reading):
        source.close()


class LiveSource:
    """Gives the newest frame of a device whenever it is asked for one.

    A thread grabs without pause, so no buffer of a driver or a decoder can fill up with old pictures. Whoever
    iterates gets the picture in the slot, or waits for the next. A driver call that hangs is abandoned with its
    thread, and the device opened anew by another.
    """

    live = True

    def __init__(
        self,
        name: str,
        open_device: Callable[[], Device],
        *,
        capture: Capture,
        explain: Callable[[str | None], str],
        closed: threading.Event | None = None,
    ) -> None:
        """Open the device and wait for its first picture.

        Args:
            name: For people; never with credentials.
            open_device: Opens it, the first time and again; raises GoneError or SourceError where it cannot.
            capture: How frames are taken.
            explain: Makes of why it could not be opened, or of None for a driver that hangs, a sentence for the user.
            closed: Is set by `close`, for a device that waits meanwhile.

        Raises:
            SourceError: The device cannot be opened, or gives no first picture.
        """
        self.name = name
        self._open_device = open_device
        self._explain = explain
        self._closed = closed or threading.Event()
        self._capture = capture
        self._change = threading.Condition()
        self._slot: tuple[Device, Any, float, int] | None = None
        self._grabbed = 0
        self._dropped = 0
        self._untaken = 0
        self._waiting = 0
        self._fps: float | None = None
        self._gaps: deque[Gap] = deque(maxlen=_GAPS)
        # When the reader last had a picture, and when it last opened the device.
        self._last_s = self._opened_s = time.monotonic()
        self._gone: str | None = None
        self._pause_s = _FIRST_PAUSE_S
        self._error: BaseException | None = None
        self._ended = False
        self._closed_s: float | None = None
        # When the call that the reader is in must have come back; None while it is in none.
        self._due_s: float | None = None
        # The reader's number: one that was abandoned finds another here, and has no more say.
        self._turn = 0
        _reading.add(self)
        self._thread = self._start()
        self._await_first()

    @property
    def fps(self) -> float | None:
        """The frames a second that the device says it gives."""
        return self._fps

    @property
    def dropped(self) -> int:
        """How many frames were passed over so far; one that waits in the slot is not."""
        with self._change:
            return self._dropped

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """The outages so far, one that goes on included; of very many the last."""
        with self._change:
            return tuple(self._gaps if self._gone is None else [*self._gaps, self._gap()])

    def __iter__(self) -> Iterator[Frame]:
        while (frame := self._next()) is not None:
            yield frame

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the device, from any thread; iterating then ends at once, also while the driver hangs."""
        left_s = self.stop() + _CLOSE_S - time.monotonic()
        if self._thread is not threading.current_thread():
            self._thread.join(max(0.0, left_s))
        _reading.discard(self)

    def stop(self) -> float:
        """End iterating and reading without waiting for it; give when that was asked first."""
        with self._change:
            if self._closed_s is None:
                self._closed_s = time.monotonic()
            self._closed.set()
            self._slot = None
            self._change.notify_all()
            return self._closed_s

    # -- the side of those who iterate

    def _next(self) -> Frame | None:
        while (taken := self._take()) is not None:
            device, picture, captured_s, number = taken
            image = device.to_rgb(picture)
            if image is not None:
                return Frame(image, captured_s, number, self.name)
            with self._change:
                self._dropped += 1
        return None

    def _take(self) -> tuple[Device, Any, float, int] | None:
        """Wait for a picture in the slot and take it; None when there will be none."""
        with self._change:
            self._waiting += 1
            try:
                while True:
                    self._watch()
                    if self._closed_s is not None:
                        return None
                    if self._slot is not None:
                        taken, self._slot = self._slot, None
                        self._untaken = 0
                        return taken
                    if self._error is not None:
                        raise self._error
                    if self._ended:
                        return None
                    self._change.wait(_TICK_S)
            finally:
                self._waiting -= 1

    def _await_first(self) -> None:
        """Wait until there is a picture, so that what is wrong with a camera is said when it is opened."""
        with self._change:
            while self._grabbed == 0 and self._error is None and not self._ended:
                self._watch()
                try:
                    self._change.wait(_TICK_S)
                except BaseException:
                    self._closed_s = time.monotonic()
                    raise
            if self._error is not None and self._grabbed == 0:
                raise self._error

    def _watch(self) -> None:
        """Abandon a reader whose driver hangs, and drop a picture that has become old meanwhile."""
        now = time.monotonic()
        if self._slot is not None and now - self._slot[2] > self._capture.stall_s:
            self._empty()
        if self._due_s is None or now < self._due_s or self._closed_s is not None:
            return
        self._due_s = None
        self._turn += 1
        if self._grabbed == 0:
            self._error = SourceError(self._explain(None))
            return
        self._lose(f"no picture for {self._capture.stall_s:g} s")
        if self._error is None:
            self._thread = self._start()

    def _empty(self) -> None:
        """Pass over what is in the slot."""
        if self._slot is not None:
            self._slot = None
            self._dropped += 1

    # -- the side of the reader

    def _start(self) -> threading.Thread:
        thread = threading.Thread(
            target=self._read, args=(self._turn,), daemon=True, name=f"vit-edge {self.name}"
        )
        thread.start()
        return thread

    def _read(self, turn: int) -> None:
        """Open the device and fill the slot, again and again, until closed, abandoned, or at an end."""
        while self._rest(turn):
            device: Device | None = None
            try:
                device = self._open_device()
                self._fps = device.fps
                self._opened(turn)
                while self._put(turn, device, device.grab()):
                    pass
                return
            except EndedError:
                with self._change:
                    self._ended = turn == self._turn
                    self._change.notify_all()
                return
            except (GoneError, SourceError) as error:
                if not self._reopens(turn, error):
                    return
            except BaseException as error:  # an iterator may raise anything, which is for those who iterate
                with self._change:
                    if turn == self._turn:
                        self._error = error
                        self._change.notify_all()
                return
            finally:
                if device is not None:
                    device.release()

    def _rest(self, turn: int) -> bool:
        """Pause before opening again; tell whether to go on at all."""
        with self._change:
            if self._goes_on(turn) and self._gone is not None:
                self._due_s = None
                until = time.monotonic() + self._pause_s
                self._pause_s = min(_GROWTH * self._pause_s, _LAST_PAUSE_S)
                while self._goes_on(turn) and (left := until - time.monotonic()) > 0:
                    self._change.wait(left)
            if not self._goes_on(turn):
                return False
            # Opening a stream may take a second try, and saying why it failed a third.
            self._due_s = time.monotonic() + self._capture.open_s + 2 * _GRACE_S
            return True

    def _goes_on(self, turn: int) -> bool:
        return turn == self._turn and self._closed_s is None

    def _opened(self, turn: int) -> None:
        with self._change:
            if turn == self._turn:
                self._opened_s = time.monotonic()
                self._due_s = self._opened_s + self._capture.stall_s + _GRACE_S

    def _put(self, turn: int, device: Device, captured_s: float) -> bool:
        """Put what was grabbed into the slot; tell whether to go on."""
        with self._change:
            if not self._goes_on(turn):
                return False
            now = time.monotonic()
            if now - self._opened_s > _STEADY_S:
                self._pause_s = _FIRST_PAUSE_S
            self._due_s = now + self._capture.stall_s + _GRACE_S
            number = self._grabbed
            self._grabbed += 1
            wanted = self._waiting > 0 or self._untaken < _UNTAKEN
            self._untaken += 1
            if number == 0:
                self._change.notify_all()
        picture = device.retrieve() if wanted else None
        with self._change:
            if not self._goes_on(turn):
                return False
            self._empty()
            now = time.monotonic()
            if picture is not None or not wanted:
                self._found(now)
            elif now - max(self._last_s, self._opened_s) > self._capture.stall_s:
                raise GoneError(f"only damaged pictures for {self._capture.stall_s:g} s")
            if picture is None:
                self._dropped += 1
            else:
                self._slot = device, picture, captured_s, number
                self._change.notify_all()
            return True

    def _found(self, now_s: float) -> None:
        """Note that there is a picture, perhaps after a gap."""
        if self._gone is not None:
            gap = self._gap(now_s)
            self._gaps.append(gap)
            self._gone = None
            _LOG.warning("%s is back after %.1f s (%s)", self.name, gap.seconds, gap.reason)
        self._last_s = now_s

    def _reopens(self, turn: int, error: GoneError | SourceError) -> bool:
        """Note that the device went away or could not be opened; tell whether to try again."""
        with self._change:
            if not self._goes_on(turn):
                return False
            first = self._grabbed == 0
            # Letting go of it may hang too.
            self._due_s = time.monotonic() + self._capture.open_s + 2 * _GRACE_S
            if not first:
                self._lose(str(error))
                return self._error is None
        if not isinstance(error, SourceError):
            error = SourceError(self._explain(str(error)))
        with self._change:
            self._error = error
            self._change.notify_all()
        return False

    def _lose(self, reason: str) -> None:
        if self._gone is not None:
            _LOG.info("%s cannot be opened yet: %s", self.name, reason)
            return
        self._gone = reason
        if self._capture.reconnect:
            _LOG.warning("%s went away (%s); opening it again", self.name, reason)
        else:
            self._error = SourceError(f"{self.name} went away ({reason}); connect it and start again")
            self._change.notify_all()

    def _gap(self, now_s: float | None = None) -> Gap:
        assert self._gone is not None
        now_s = now_s or self._closed_s or time.monotonic()
        return Gap(max(0.0, now_s - self._last_s), self._gone)

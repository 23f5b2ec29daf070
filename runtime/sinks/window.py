"""A window with the annotated frame, where there is a screen and an OpenCV that has windows."""

import os
import subprocess
import sys
import time
from types import TracebackType
from typing import Self

import cv2

from ..answer import Answer
from ..draw import annotate
from ..errors import SinkError

_KEYS_THAT_STOP = frozenset({ord("q"), ord("Q"), 27})

# Faster than this no eye sees it.
_MOST_HZ = 30.0

# How long a desktop may take to show a window.
_OPEN_S = 20.0


class WindowSink:
    """Shows the newest answer in a window, until it is closed or q or Esc is pressed in it.

    It has to be used in the program's main thread: some desktops serve no other.
    """

    name = "window"
    costly = True

    def __init__(self, title: str = "vit-edge") -> None:
        """Store the title."""
        self._title = title
        self._shown_s = 0.0
        self._open = False

    def __enter__(self) -> Self:
        if (reason := why_no_window()) is not None:
            raise SinkError(reason)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open:
            self._open = False
            cv2.destroyWindow(self._title)
            cv2.waitKey(1)  # the desktop's part of closing it

    def show(self, answer: Answer) -> bool:
        """Show an answer; False once the user has closed the window."""
        # Asked before anything is shown: a picture would open the window anew.
        if self._open and not self._going():
            return False
        now = time.monotonic()
        if now - self._shown_s >= 1 / _MOST_HZ - 0.002:
            self._shown_s = now
            picture = annotate(answer)
            if not self._open:
                cv2.namedWindow(self._title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | _PLAIN)
                cv2.resizeWindow(self._title, picture.shape[1], picture.shape[0])
                self._open = True
            cv2.imshow(self._title, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        return self._going()

    def idle(self) -> bool:
        """Let the window answer its user while there is nothing to show; False once it has been closed."""
        return not self._open or self._going()

    def _going(self) -> bool:
        if (cv2.pollKey() & 0xFF) in _KEYS_THAT_STOP:
            return False
        try:
            self._open = cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) >= 1
        except cv2.error:  # Qt's answer once its last window is closed
            self._open = False
        return self._open


# Without Qt's tool bar.
_PLAIN = getattr(cv2, "WINDOW_GUI_NORMAL", 0)


def why_no_window() -> str | None:
    """Tell why no window can be opened here; None where one can.

    On Linux it is tried in another process: where OpenCV's toolkit cannot reach the screen, it ends the process.
    """
    if not _has_windows():
        return (
            "the installed OpenCV has no windows; for one, "
            "`pip uninstall -y opencv-python-headless && pip install opencv-python`"
        )
    if sys.platform != "linux":
        return None
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "there is no screen (neither DISPLAY nor WAYLAND_DISPLAY is set)"
    try:
        tried = subprocess.run(
            [sys.executable, "-c", _TRY],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_OPEN_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"the screen {_screen()} did not answer within {_OPEN_S:.0f} s"
    if tried.returncode == 0:
        return None
    said = tried.stderr.decode("utf-8", "replace").strip().splitlines()
    reason = f" ({' '.join(said[0].split())[:200]})" if said else ""
    return f"the screen {_screen()} cannot be used{reason}"


# A window that nobody sees is enough to reach the screen.
_TRY = """
import cv2
cv2.namedWindow("vit-edge", cv2.WINDOW_AUTOSIZE)
cv2.destroyAllWindows()
"""


def _screen() -> str:
    return os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or ""


def _has_windows() -> bool:
    lines = cv2.getBuildInformation().splitlines()
    return not any(line.split() == ["GUI:", "NONE"] for line in lines)

"""A screen without a monitor for tests of windows, and what a person does to a window on it."""

import ctypes
import ctypes.util
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from numpy.typing import NDArray

# Numbers of X11's headers (X.h).
_CLIENT_MESSAGE, _KEY_PRESS, _KEY_RELEASE, _Z_PIXMAP = 33, 2, 3, 2


@contextmanager
def screen(width: int = 1024, height: int = 768) -> Iterator["Screen"]:
    """Start Xvfb; a test skips where it is missing."""
    program = shutil.which("Xvfb")
    library = ctypes.util.find_library("X11")
    if program is None or library is None:
        pytest.skip("needs Debian's xvfb and libx11-6 for a screen")
    ours, theirs = os.pipe()
    process = subprocess.Popen(
        [program, "-displayfd", str(theirs), "-screen", "0", f"{width}x{height}x24", "-nolisten", "tcp"],
        pass_fds=[theirs],
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs)
    try:
        with os.fdopen(ours) as numbers:
            name = f":{int(numbers.readline())}"
        yield Screen(name, ctypes.CDLL(library))
    finally:
        process.terminate()
        process.wait()


class Screen:
    """An X display.

    Attributes:
        name: What ``DISPLAY`` is to be.
    """

    def __init__(self, name: str, library: ctypes.CDLL) -> None:
        self.name = name
        self._x = library
        self._x.XOpenDisplay.restype = ctypes.c_void_p
        self._x.XDefaultRootWindow.restype = ctypes.c_ulong
        self._x.XInternAtom.restype = ctypes.c_ulong
        self._x.XGetImage.restype = ctypes.POINTER(_Image)
        # A window that is gone meanwhile is no reason to end the program, which is what Xlib does.
        self._forgive = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(lambda *_: 0)
        self._x.XSetErrorHandler(self._forgive)
        self._display = ctypes.c_void_p(self._x.XOpenDisplay(name.encode()))
        assert self._display.value
        self._root = ctypes.c_ulong(self._x.XDefaultRootWindow(self._display))

    def window(self, title: str, *, timeout_s: float = 30.0) -> int:
        """Wait for a window whose title holds *title*, and give its number."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            for window in self._children():
                if title in self._title(window):
                    return window
            time.sleep(0.05)
        raise AssertionError(f"no window {title!r} on {self.name}")

    def close(self, window: int) -> None:
        """Do what a window manager does when a person clicks on a window's cross (ICCCM, WM_DELETE_WINDOW)."""
        event = _ClientMessage(type=_CLIENT_MESSAGE, window=window, format=32)
        event.message_type = self._atom("WM_PROTOCOLS")
        event.data[0] = self._atom("WM_DELETE_WINDOW")
        self._send(window, event, 0)

    def press(self, window: int, key: str) -> None:
        """Press and release a key, named as X names it, in a window."""
        self._x.XSetInputFocus(self._display, ctypes.c_ulong(window), 1, ctypes.c_ulong(0))
        self._x.XStringToKeysym.restype = ctypes.c_ulong
        symbol = ctypes.c_ulong(self._x.XStringToKeysym(key.encode()))
        code = self._x.XKeysymToKeycode(self._display, symbol) & 0xFF
        for kind in (_KEY_PRESS, _KEY_RELEASE):
            event = _Key(type=kind, window=window, root=self._root.value, keycode=code, same_screen=1)
            self._send(window, event, kind - 1)

    def picture(self) -> NDArray[np.uint8]:
        """Take a picture of the screen: (height, width, 3) uint8 RGB."""
        width = self._x.XDisplayWidth(self._display, 0)
        height = self._x.XDisplayHeight(self._display, 0)
        planes = ctypes.c_ulong(0xFFFFFFFF)
        image = self._x.XGetImage(self._display, self._root, 0, 0, width, height, planes, _Z_PIXMAP)
        found = image.contents
        data = ctypes.string_at(found.data, found.bytes_per_line * height)
        rows = np.frombuffer(data, np.uint8).reshape(height, found.bytes_per_line)[:, : 4 * width]
        return np.ascontiguousarray(rows.reshape(height, width, 4)[..., 2::-1])

    def _send(self, window: int, event: ctypes.Structure, mask: int) -> None:
        # XSendEvent reads a whole XEvent, which is longer than each of its kinds.
        whole = ctypes.create_string_buffer(bytes(event), 192)
        self._x.XSendEvent(self._display, ctypes.c_ulong(window), 0, ctypes.c_long(mask), whole)
        self._x.XSync(self._display, 0)

    def _atom(self, name: str) -> int:
        return int(self._x.XInternAtom(self._display, name.encode(), 0))

    def _children(self) -> list[int]:
        root, parent, count = ctypes.c_ulong(), ctypes.c_ulong(), ctypes.c_uint()
        children = ctypes.POINTER(ctypes.c_ulong)()
        self._x.XQueryTree(
            self._display,
            self._root,
            ctypes.byref(root),
            ctypes.byref(parent),
            ctypes.byref(children),
            ctypes.byref(count),
        )
        return [children[place] for place in range(count.value)]

    def _title(self, window: int) -> str:
        name = ctypes.c_char_p()
        found = self._x.XFetchName(self._display, ctypes.c_ulong(window), ctypes.byref(name))
        return (name.value or b"").decode("utf-8", "replace") if found else ""


class _ClientMessage(ctypes.Structure):
    """XClientMessageEvent of Xlib.h, with its data as longs."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("serial", ctypes.c_ulong),
        ("send_event", ctypes.c_int),
        ("display", ctypes.c_void_p),
        ("window", ctypes.c_ulong),
        ("message_type", ctypes.c_ulong),
        ("format", ctypes.c_int),
        ("data", ctypes.c_long * 5),
    )


class _Key(ctypes.Structure):
    """XKeyEvent of Xlib.h."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("serial", ctypes.c_ulong),
        ("send_event", ctypes.c_int),
        ("display", ctypes.c_void_p),
        ("window", ctypes.c_ulong),
        ("root", ctypes.c_ulong),
        ("subwindow", ctypes.c_ulong),
        ("time", ctypes.c_ulong),
        ("x", ctypes.c_int),
        ("y", ctypes.c_int),
        ("x_root", ctypes.c_int),
        ("y_root", ctypes.c_int),
        ("state", ctypes.c_uint),
        ("keycode", ctypes.c_uint),
        ("same_screen", ctypes.c_int),
    )


class _Image(ctypes.Structure):
    """The beginning of XImage of Xlib.h."""

    _fields_ = (
        ("width", ctypes.c_int),
        ("height", ctypes.c_int),
        ("xoffset", ctypes.c_int),
        ("format", ctypes.c_int),
        ("data", ctypes.c_void_p),
        ("byte_order", ctypes.c_int),
        ("bitmap_unit", ctypes.c_int),
        ("bitmap_bit_order", ctypes.c_int),
        ("bitmap_pad", ctypes.c_int),
        ("depth", ctypes.c_int),
        ("bytes_per_line", ctypes.c_int),
    )

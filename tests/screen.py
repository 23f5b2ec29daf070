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
    """Start Xvfb with a window manager; a test skips where they are missing.

    Without a window manager, which every desktop has, Qt sometimes never paints a window (seen with 5.15).
    """
    program, manager = shutil.which("Xvfb"), shutil.which("openbox")
    library = ctypes.util.find_library("X11")
    if program is None or manager is None or library is None:
        pytest.skip("needs Debian's xvfb, openbox and libx11-6 for a screen")
    ours, theirs = os.pipe()
    process = subprocess.Popen(
        [program, "-displayfd", str(theirs), "-screen", "0", f"{width}x{height}x24", "-nolisten", "tcp"],
        pass_fds=[theirs],
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs)
    processes = [process]
    try:
        with os.fdopen(ours) as numbers:
            name = f":{int(numbers.readline())}"
        shown = Screen(name, ctypes.CDLL(library))
        environment = os.environ | {"DISPLAY": name}
        processes.append(
            subprocess.Popen([manager], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )
        shown.wait_for_manager()
        yield shown
    finally:
        for started in reversed(processes):
            started.terminate()
            started.wait()


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
        self._x.XListProperties.restype = ctypes.c_void_p
        self._x.XGetImage.restype = ctypes.POINTER(_Image)
        # A window that is gone meanwhile is no reason to end the program, which is what Xlib does.
        self._forgive = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(lambda *_: 0)
        self._x.XSetErrorHandler(self._forgive)
        self._display = ctypes.c_void_p(self._x.XOpenDisplay(name.encode()))
        assert self._display.value
        self._root = ctypes.c_ulong(self._x.XDefaultRootWindow(self._display))

    def wait_for_manager(self, timeout_s: float = 20.0) -> None:
        """Wait until a window manager says that it is there (EWMH, _NET_SUPPORTING_WM_CHECK)."""
        until = time.monotonic() + timeout_s
        count = ctypes.c_int()
        while time.monotonic() < until:
            found = self._x.XListProperties(self._display, self._root, ctypes.byref(count))
            atoms = ctypes.cast(found, ctypes.POINTER(ctypes.c_ulong))
            if self._atom("_NET_SUPPORTING_WM_CHECK") in [atoms[place] for place in range(count.value)]:
                return
            time.sleep(0.05)
        raise AssertionError(f"no window manager on {self.name}")

    def window(self, title: str, *, timeout_s: float = 30.0) -> int:
        """Wait for a window whose title holds *title*, and give its number."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            for window in self._below(self._root.value):
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

    def picture(self, window: int) -> NDArray[np.uint8]:
        """Take a picture of what a window shows: (height, width, 3) uint8 RGB; without rows while it shows nothing."""
        root, sides = ctypes.c_ulong(), [ctypes.c_uint() for _ in range(4)]
        corner = ctypes.c_int(), ctypes.c_int()
        self._x.XGetGeometry(
            self._display,
            ctypes.c_ulong(window),
            *(ctypes.byref(value) for value in (root, *corner, *sides)),
        )
        width, height = sides[0].value, sides[1].value
        planes = ctypes.c_ulong(0xFFFFFFFF)
        image = self._x.XGetImage(
            self._display, ctypes.c_ulong(window), 0, 0, width, height, planes, _Z_PIXMAP
        )
        if not image or not height:
            return np.zeros((0, 0, 3), np.uint8)
        found = image.contents
        data = ctypes.string_at(found.data, found.bytes_per_line * height)
        self._x.XDestroyImage(image)
        rows = np.frombuffer(data, np.uint8).reshape(height, -1)[:, : 4 * width]
        return np.ascontiguousarray(rows.reshape(height, width, 4)[..., 2::-1])

    def _send(self, window: int, event: ctypes.Structure, mask: int) -> None:
        # XSendEvent reads a whole XEvent, which is longer than each of its kinds.
        whole = ctypes.create_string_buffer(bytes(event), 192)
        self._x.XSendEvent(self._display, ctypes.c_ulong(window), 0, ctypes.c_long(mask), whole)
        self._x.XSync(self._display, 0)

    def _atom(self, name: str) -> int:
        return int(self._x.XInternAtom(self._display, name.encode(), 0))

    def _below(self, window: int) -> list[int]:
        """Give all windows within one: the manager puts a window into its frame."""
        root, parent, count = ctypes.c_ulong(), ctypes.c_ulong(), ctypes.c_uint()
        children = ctypes.POINTER(ctypes.c_ulong)()
        references = (ctypes.byref(value) for value in (root, parent, children, count))
        if not self._x.XQueryTree(self._display, ctypes.c_ulong(window), *references):
            return []
        own = [children[place] for place in range(count.value)]
        return own + [below for child in own for below in self._below(child)]

    def _title(self, window: int) -> str:
        name = ctypes.c_char_p()
        found = self._x.XFetchName(self._display, ctypes.c_ulong(window), ctypes.byref(name))
        return (name.value or b"").decode("utf-8", "replace") if found else ""


# XAnyEvent of Xlib.h: each kind of event begins with it.
_EVENT = (
    ("type", ctypes.c_int),
    ("serial", ctypes.c_ulong),
    ("send_event", ctypes.c_int),
    ("display", ctypes.c_void_p),
    ("window", ctypes.c_ulong),
)


class _ClientMessage(ctypes.Structure):
    """XClientMessageEvent of Xlib.h, with its data as longs."""

    _fields_ = (
        *_EVENT,
        ("message_type", ctypes.c_ulong),
        ("format", ctypes.c_int),
        ("data", ctypes.c_long * 5),
    )


class _Key(ctypes.Structure):
    """XKeyEvent of Xlib.h."""

    _fields_ = (
        *_EVENT,
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

"""The screen: which one the environment names, whether it can be reached, and whether a window opens on it."""

import os
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from .child import attempt
from .finding import Finding

# X servers listen on this port plus the display's number (X.Org's X(7), "DISPLAY NAMES").
_X_PORT = 6000

_TIMEOUT_S = 3.0

_ELSEWHERE = "or see the answers in a browser instead of a window"


def screen_is_named() -> bool:
    """Tell whether this system, or the environment, has a screen for windows."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def screen(gui: str | None) -> Iterator[Finding]:
    """Examine the screen.

    Args:
        gui: What OpenCV draws windows with, ``NONE`` for nothing; None where OpenCV does not load.
    """
    name = "the screen"
    if sys.platform == "linux":
        named = {key: value for key in ("DISPLAY", "WAYLAND_DISPLAY") if (value := os.environ.get(key))}
        if not named:
            yield Finding(
                "screen.window",
                "note",
                "no screen: neither DISPLAY nor WAYLAND_DISPLAY is set, so that no window can open",
                f"On the device's own screen `export DISPLAY=:0`, {_ELSEWHERE}.",
            )
            return
        name = ", ".join(f"{key}={value}" for key, value in named.items())
        reasons = [_unreachable(key, value) for key, value in named.items()]
        if all(reasons):
            yield Finding(
                "screen.window",
                "problem" if gui not in (None, "NONE") else "note",
                f"{name} cannot be reached ({reasons[0]})",
                f"Set DISPLAY to a screen that runs, unset it, {_ELSEWHERE}.",
                named,
            )
            return
    if gui is None:
        return
    if gui == "NONE":
        yield Finding(
            "screen.window",
            "note",
            f"{name} is there, and the headless OpenCV has no windows",
            "For windows `pip uninstall -y opencv-python-headless`, then `pip install opencv-python`.",
        )
        return
    outcome = attempt("try_window", timeout_s=20)
    if outcome.failure:
        yield Finding(
            "screen.window",
            "problem",
            f"OpenCV's {gui} opens no window on {name}: {_reason(outcome.log) or outcome.failure}",
            f"On Wayland install Xwayland and set DISPLAY, on X allow this user with `xhost`, {_ELSEWHERE}.",
            {"log": outcome.log[-4000:]},
        )
    else:
        yield Finding("screen.window", "ok", f"a window opens on {name}")


def x_address(display: str) -> tuple[str, int]:
    """Give host and display number of an X display's name; the host is empty for this machine's own socket.

    >>> x_address(":0"), x_address("localhost:10.0"), x_address("unix:1")
    (('', 0), ('localhost', 10), ('', 1))
    """
    found = re.fullmatch(r"(?:.*/)?(.*?):(\d+)(?:\.\d+)?", display)
    if found is None:
        raise ValueError(f"{display!r} is no display's name; one is as :0")
    return "" if found[1] == "unix" else found[1], int(found[2])


def _unreachable(variable: str, value: str) -> str:
    """Say why nothing listens behind a variable; empty where something does."""
    try:
        if variable == "WAYLAND_DISPLAY":
            _connect(Path(_runtime_folder(os.environ), value))
            return ""
        host, number = x_address(value)
        if host:
            socket.create_connection((host, _X_PORT + number), _TIMEOUT_S).close()
        else:
            _connect(Path(f"/tmp/.X11-unix/X{number}"))
    except (OSError, ValueError) as error:
        return str(getattr(error, "strerror", None) or error)
    return ""


def _connect(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_TIMEOUT_S)
        connection.connect(str(path))


def _runtime_folder(environment: Mapping[str, str]) -> str:
    return environment.get("XDG_RUNTIME_DIR") or "/run/user"


def _reason(log: str) -> str:
    """Take of Qt's message the line that says why (``qt.qpa.xcb: could not connect to display :7``)."""
    lines = [line.split(":", 1)[1].strip() for line in log.splitlines() if line.startswith("qt.qpa.")]
    return lines[0] if lines else ""

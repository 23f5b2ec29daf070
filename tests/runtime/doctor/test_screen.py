"""Whether a window can open is known before a program ends for want of a screen."""

import contextlib
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vit_edge.runtime.doctor.finding import Finding
from vit_edge.runtime.doctor.screen import screen

from .machines import environment, examined

pytestmark = pytest.mark.skipif(not Path("/proc").exists(), reason="other systems always have their screen")


@pytest.fixture(autouse=True)
def _no_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)


@contextmanager
def listening(path: Path) -> Iterator[None]:
    """Listen where a screen's server would, and hang up on everyone."""
    path.parent.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def hang_up() -> None:
            # Closing the server ends the wait.
            with contextlib.suppress(OSError):
                while True:
                    server.accept()[0].close()

        threading.Thread(target=hang_up, daemon=True).start()
        try:
            yield
        finally:
            path.unlink()
            server.shutdown(socket.SHUT_RDWR)


def only(gui: str | None) -> Finding:
    (finding,) = screen(gui)
    return finding


def test_no_screen_is_told() -> None:
    """A device in a cupboard; it is a note, since nobody may want one."""
    finding = examined(without=("DISPLAY", "WAYLAND_DISPLAY"))["screen.window"]
    assert finding["severity"] == "note"
    assert finding["found"].startswith("no screen: neither DISPLAY nor WAYLAND_DISPLAY is set")
    assert "`export DISPLAY=:0`" in finding["cure"]


def test_a_screen_that_does_not_answer_is_a_problem_for_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a DISPLAY left over in a service or in tmux: Qt would end the process."""
    monkeypatch.setenv("DISPLAY", ":4711")
    finding = only("QT")
    assert finding.severity == "problem"
    assert finding.found == "DISPLAY=:4711 cannot be reached (No such file or directory)"
    assert only("NONE").severity == "note"
    assert only(None).severity == "note"


@pytest.mark.parametrize(
    ("display", "reason"),
    [("nonsense", "no display's name"), ("localhost:59000", "refused"), (":x", "no display's name")],
)
def test_what_names_no_screen_says_why(display: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over SSH it is localhost:10.0, whose port closes with the connection."""
    monkeypatch.setenv("DISPLAY", display)
    assert reason in only("QT").found


def test_a_headless_opencv_beside_a_screen_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel is what is missing, not the screen."""
    monkeypatch.setenv("DISPLAY", ":4712")
    with listening(Path("/tmp/.X11-unix/X4712")):
        finding = only("NONE")
    assert finding.severity == "note"
    assert finding.found == "DISPLAY=:4712 is there, and the headless OpenCV has no windows"
    assert "`pip install opencv-python`" in finding.cure


def test_a_wayland_screen_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raspberry Pi OS and most desktops have it today."""
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-7")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert "WAYLAND_DISPLAY=wayland-7 cannot be reached" in only("QT").found
    with listening(tmp_path / "wayland-7"):
        assert only("NONE").found.startswith("WAYLAND_DISPLAY=wayland-7 is there")


@pytest.mark.slow
def test_a_real_window_opens_or_says_why_not(tmp_path: Path) -> None:
    """With OpenCV's own windows: a screen that hangs up ends the trial, never the examination."""
    python = environment(tmp_path / "venv", "opencv-python")
    with listening(Path("/tmp/.X11-unix/X4713")):
        findings = examined(python=python, env={"DISPLAY": ":4713"})
    if findings["opencv.load"]["severity"] != "ok":
        pytest.skip(f"OpenCV's windows cannot load here ({findings['opencv.load']['found']})")
    assert findings["screen.window"]["severity"] == "problem"
    assert findings["screen.window"]["found"] == (
        "OpenCV's QT opens no window on DISPLAY=:4713: could not connect to display :4713"
    )
    if shutil.which("Xvfb") is None:
        pytest.skip("there is no Xvfb, a screen for tests")
    server = subprocess.Popen(["Xvfb", ":4714"], stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            if Path("/tmp/.X11-unix/X4714").exists():
                break
            time.sleep(0.1)
        findings = examined(python=python, env={"DISPLAY": ":4714"})
    finally:
        server.terminate()
        server.wait(10)
    assert findings["screen.window"]["severity"] == "ok"
    assert findings["screen.window"]["found"] == "a window opens on DISPLAY=:4714"

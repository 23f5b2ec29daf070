"""What is asked of ``vit-edge camera`` reaches what does it: the loop, the camera, the session and the outputs."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vit_edge.runtime import Capture, Source, classifier, loop, sinks, sources

from ..runtime.onnx_writer import colour_model, flat_colour
from .command import Entry

SPINNING = "session.{}.allow_spinning"

# Every option, away from its default.
WATCH = {"top": 2, "threshold": 0.3, "steady_s": 0.0, "max_age_ms": 250.0, "rate_hz": 7.0, "still": True}
CAPTURE = Capture(size=(320, 240), fps=15.0, fourcc="YUYV", reconnect=False)
GRAB = {"live": True, "every_s": 3.0, "most_files": 17}
OPTIONS = (
    *("--top", 2, "--threshold", 0.3, "--raw", "--max-age", 250, "--rate", 7, "--still"),
    *("--size", "320x240", "--fps", 15, "--fourcc", "YUYV", "--no-reconnect"),
    *("--grab", "grabbed", "--grab-every", 3, "--grab-most", 17),
)


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Note what the command gives to whom; a few pictures stand for a camera, and all else is the real thing."""
    (tmp_path / "colours.onnx").write_bytes(colour_model())
    monkeypatch.chdir(tmp_path)
    noted: dict[str, Any] = {}
    real_watch, real_open, real_grab, real_fan = loop.watch, sources.open_source, sinks.GrabSink, sinks.Fan

    def pictures() -> Iterator[NDArray[np.uint8]]:
        for _ in range(3):
            yield flat_colour("red", height=48, width=64)

    def open_source(source: str, *, capture: Capture) -> Source:
        noted["source"], noted["capture"] = source, capture
        return real_open(pictures(), capture=Capture(live=True))

    def watch(opened: classifier.Classifier, source: Source, **options: Any) -> loop.Watch:
        noted["watch"] = options
        assert opened._session is not None
        settings = opened._session.get_session_options()
        for kind in ("intra_op", "inter_op"):
            with suppress(RuntimeError):  # it was not set
                noted[kind] = settings.get_session_config_entry(SPINNING.format(kind))
        return real_watch(opened, source, **options)

    def grab(folder: Path, **options: Any) -> sinks.GrabSink:
        noted["grab"] = options
        return real_grab(folder, **options)

    def fan(outputs: list[sinks.Sink], *, relief: Callable[[], int] = lambda: 0) -> sinks.Fan:
        noted["relief"] = relief()
        return real_fan(outputs, relief=relief)

    monkeypatch.setattr(loop, "watch", watch)
    monkeypatch.setattr(sources, "open_source", open_source)
    monkeypatch.setattr(sinks, "GrabSink", grab)
    monkeypatch.setattr(sinks, "Fan", fan)
    return noted


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Entry:
    return Entry("camera", monkeypatch, capfd)


def test_every_option_arrives(given: dict[str, Any], camera: Entry) -> None:
    """One that is parsed and then forgotten looks as if it had worked."""
    status, _, said = camera("colours.onnx", "7", "--no-window", "--json", *OPTIONS)
    assert status == 0, said
    assert given["source"] == "7"
    assert given["watch"] == WATCH
    assert given["capture"] == CAPTURE
    assert given["grab"] == GRAB


def test_without_options_the_camera_and_the_file_decide(given: dict[str, Any], camera: Entry) -> None:
    """Defaults of the command that differ from the library's would surprise whoever goes from one to the other."""
    status, _, said = camera("colours.onnx", "--no-window", "--grab", "grabbed")
    assert status == 0, said
    assert given["source"] == "0"
    assert given["capture"] == Capture()
    assert given["watch"] == {
        "top": 5,
        "threshold": None,
        "steady_s": loop.STEADY_S,
        "max_age_ms": None,
        "rate_hz": None,
        "still": False,
    }
    assert given["grab"] == {"live": True, "every_s": 60.0, "most_files": 2000}


def test_threads_wait_asleep_unless_asked_to_spin(given: dict[str, Any], camera: Entry) -> None:
    """A camera that waits for its next picture thirty times a second would else keep all cores hot."""
    camera("colours.onnx", "--no-window")
    assert (given.pop("intra_op"), given.pop("inter_op")) == ("0", "0")
    camera("colours.onnx", "--no-window", "--spin")
    assert given["watch"]
    assert "intra_op" not in given
    assert "inter_op" not in given


def test_the_outputs_know_how_much_to_shed(
    given: dict[str, Any], camera: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else --max-age would be held by the frames alone, while drawing goes on."""
    monkeypatch.setattr(loop.Watch, "relief", 4)
    camera("colours.onnx", "--no-window")
    assert given["relief"] == 4

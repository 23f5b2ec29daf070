"""What docs/page.md shows works as it stands there."""

import re
from pathlib import Path

import cv2
import numpy as np

from tests.documentation import DOCS, blocks, needs, run_python
from tests.page.answers import LABELS, make_answer
from tests.runtime.onnx_writer import colour_model
from vit_edge.page import PageSink, app

DOCUMENT = DOCS / "page.md"

needs_document = needs(DOCUMENT)


def example(place: int) -> str:
    """Give one of the document's blocks of Python."""
    return blocks(DOCUMENT, "python")[place]


def run(script: str, folder: Path) -> str:
    done = run_python(script, folder)
    assert done.stderr == ""
    return done.stdout


@needs_document
def test_the_example_serves_a_video(tmp_path: Path) -> None:
    """It is what people paste first."""
    (tmp_path / "model.onnx").write_bytes(colour_model())
    video = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 64))
    for shade in range(0, 250, 50):
        video.write(np.full((64, 64, 3), shade, np.uint8))
    video.release()
    script = example(0)
    assert "0.0.0.0:8000" in script
    told = run(script.replace("0.0.0.0:8000", "0.0.0.0:0").replace("clip.mp4", "clip.avi"), tmp_path)
    assert re.fullmatch(r"http://[^/]+:\d+/\?token=[\w-]{20,}\n", told)


@needs_document
def test_a_script_reads_an_answer_and_its_picture(tmp_path: Path) -> None:
    """The format is documented, and so it has to stay."""
    with PageSink(port=0) as page:
        page.show(make_answer())
        told = run(example(1).replace("http://127.0.0.1:8000/", page.url), tmp_path)
    assert told == f"{LABELS[0]}\n"
    assert (tmp_path / "picture.jpg").read_bytes().startswith(b"\xff\xd8")


@needs_document
def test_the_limits_are_those_of_the_code() -> None:
    """People size their networks by them."""
    from vit_edge.page import board, guard

    text = " ".join(DOCUMENT.read_text().split())
    for sentence in (
        f"at most {board._PICTURES_PER_S:.0f} a second",
        f"at most {board._LONGEST_SIDE} pixels",
        f"At most {guard._CONNECTIONS} connections",
        f"unread for {guard._STALLED_S:.0f} seconds, or says nothing for {guard._SILENT_S:.0f}",
        f"waits up to {board._PATIENCE_S:.0f} seconds",
    ):
        assert sentence in text


def test_every_file_of_the_page_is_served() -> None:
    """A file that the table lacks is dead weight, one that the wheel lacks is a blank page."""
    folder = Path(app.__file__).parent / "static"
    assert {path.name for path in folder.iterdir()} == {*app._STATIC, "index.html", "token.html"}


def test_the_page_loads_nothing_from_elsewhere() -> None:
    """A device may have no way to the internet, and must tell nobody that it is being looked at."""
    for path in (Path(app.__file__).parent / "static").iterdir():
        addresses = re.findall(r"https?://[^\s\"'<>]+", path.read_text(encoding="utf-8"))
        assert set(addresses) <= {"http://www.w3.org/2000/svg"}, path.name

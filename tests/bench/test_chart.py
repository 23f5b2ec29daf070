"""The picture shows what was measured, in both formats."""

from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from vit_edge.bench import Row, Setting, Times, require_format, save_chart
from vit_edge.errors import VitEdgeError

from ..conftest import listing

_SVG = "{http://www.w3.org/2000/svg}"


def times(ms: float) -> Times:
    return Times(100, ms, 1.2 * ms, 1.5 * ms, 0.05)


def row(name: str, inference_ms: float, setting: Setting) -> Row:
    whole = times((3 + inference_ms) * setting.batch)
    stages = (times(2 * setting.batch), times(1 * setting.batch), times(inference_ms * setting.batch))
    return Row(
        Path(name),
        "0" * 64,
        setting,
        *stages,
        whole,
        1e3 / (3 + inference_ms),
        inference_ms / 4,
        {"cpu": 3},
        (),
    )


ROWS = (
    row("a <small> & quick.onnx", 4, Setting("cpu", 2)),
    row("large.onnx", 8, Setting("cpu", 1, batch=8, concurrency=4)),
)


@pytest.fixture
def drawing(tmp_path: Path) -> ElementTree.Element:
    save_chart(tmp_path / "times.svg", ROWS, title="Times", subtitle="somewhere")
    return ElementTree.parse(tmp_path / "times.svg").getroot()


def test_the_svg_says_what_was_measured(drawing: ElementTree.Element) -> None:
    """Names go into it as they are, whatever a file is called."""
    texts = [text.text for text in drawing.iter(f"{_SVG}text")]
    for expected in (
        *("Times", "somewhere", "decode", "preprocess", "inference", "milliseconds an image"),
        *("a <small> & quick", "cpu, 2 threads", "7.0", "142.9", "1.00"),
        *("large", "cpu, 1 thread, batch 8, 4 at once", "11.0", "90.9", "2.00"),
    ):
        assert expected in texts


def test_bars_are_as_long_as_their_times(drawing: ElementTree.Element) -> None:
    """A batch counts by the image, so that bars can be compared."""
    bars = [float(bar.get("width", 0)) for bar in drawing.iter(f"{_SVG}rect") if bar.get("height") == "20.0"]
    assert np.array(bars) / bars[0] == pytest.approx(np.array([2, 1, 4, 2, 1, 8]) / 2, rel=0.01)
    width, height = (float(drawing.get(side, 0)) for side in ("width", "height"))
    for bar in drawing.iter(f"{_SVG}rect"):
        x, y, right, bottom = (float(bar.get(key, 0)) for key in ("x", "y", "width", "height"))
        assert x >= 0
        assert y >= 0
        assert x + right <= width
        assert y + bottom <= height


def test_the_png_shows_the_same(tmp_path: Path) -> None:
    """For those whose viewer shows no SVG: bars in the three colours, as long as their times."""
    save_chart(tmp_path / "times.PNG", ROWS, title="Times", subtitle="somewhere")
    image = cv2.imread(str(tmp_path / "times.PNG"))
    assert image is not None
    lengths = []
    for colour in ("56b4e9", "e69f00", "009e73"):
        same = (image == np.frombuffer(bytes.fromhex(colour), np.uint8)[::-1]).all(axis=2)
        # The legend's squares are above.
        counts = same[200:].sum(axis=1)
        lengths.append(int(counts.max()))
    assert np.array(lengths) / lengths[0] == pytest.approx([1, 0.5, 4], rel=0.05)
    # There is text: ink to the left of the bars.
    assert (image[200:, 200:480] < 100).any()


def test_another_ending_or_a_missing_folder_is_refused_beforehand(tmp_path: Path) -> None:
    """A minute of measuring must not end in an error that was clear from the start."""
    with pytest.raises(VitEdgeError, match=r"expected a plot that ends in \.svg or \.png, got times\.pdf"):
        require_format(Path("times.pdf"))
    with pytest.raises(VitEdgeError, match=f"there is no folder {tmp_path}/absent"):
        require_format(tmp_path / "absent" / "times.svg")


def test_a_picture_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    """Half a picture is worse than none."""
    (tmp_path / "times.svg").mkdir()
    with pytest.raises(VitEdgeError, match=r"times\.svg cannot be written \(Is a directory\)"):
        save_chart(tmp_path / "times.svg", ROWS, title="Times", subtitle="somewhere")
    assert listing(tmp_path) == ["times.svg"]

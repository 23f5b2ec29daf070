"""The capsule as it stands in a file: what goes in comes out, and what is no capsule is refused."""

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vit_edge
from vit_edge.runtime import Classifier, ModelError
from vit_edge.runtime.capsule import (
    KEY,
    VERSION,
    Capsule,
    Difference,
    Print,
    read_capsule,
    resize_chart,
)

from .capsules import COLOURS, capsule_for, levels, with_capsule
from .onnx_writer import colour_model


def changed(**parts: Any) -> str:
    return json.dumps(json.loads(capsule_for().to_text()) | parts)


def test_a_capsule_comes_out_of_a_file_as_it_went_in(tmp_path: Path) -> None:
    """Bytes, pixels and logits are compared on the device, so that not one of them may change on the way."""
    stored = capsule_for(noise=0.02)
    (tmp_path / "model.onnx").write_bytes(with_capsule(stored))
    for source in (tmp_path / "model.onnx", with_capsule(stored)):
        found = read_capsule(source, "model.onnx")
        assert found is not None
        for name in ("reference", "set", "provider", "drift", "max_abs_drift"):
            assert getattr(found, name) == getattr(stored, name)
        assert [picture.name for picture in found.pictures] == list(COLOURS)
        for one, other in zip(found.pictures, stored.pictures, strict=True):
            assert one.jpeg == other.jpeg
            assert (one.pixels.sha256, one.pixels.size) == (other.pixels.sha256, other.pixels.size)
            np.testing.assert_array_equal(one.pixels.grid, other.pixels.grid)
            np.testing.assert_array_equal(one.crop, other.crop)
            np.testing.assert_array_equal(one.logits, other.logits)
            assert one.margin == other.margin > 0


def test_a_file_without_a_capsule_has_none() -> None:
    """Many will not carry one, and they are as good as others."""
    assert read_capsule(colour_model(), "model.onnx") is None


def test_opening_a_model_reads_nothing_of_its_capsule() -> None:
    """Start-up is what a device waits for: a capsule that is broken shows when it is asked for, never before."""
    data = colour_model(changed={KEY: '{"broken'})
    with Classifier(data) as classifier:
        assert classifier.logits(classifier.pixels(np.zeros((9, 9, 3), np.uint8))[None]).shape == (1, 3)
    with pytest.raises(ModelError, match=r"the capsule of model\.onnx is malformed .* export the file anew"):
        read_capsule(data, "model.onnx")
    script = "import sys; import vit_edge.runtime.classifier as c; print([m for m in sys.modules if 'capsule' in m])"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(vit_edge.__file__).parents[1],
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[]", "TypeError"),
        ("{}", "KeyError"),
        (changed(pictures=[]), "it holds no picture"),
        (changed(pictures=[{"name": "x"}]), "KeyError"),
        (changed(measured={"provider": "x", "drift": "much", "max_abs_drift": 0}), "much"),
        (changed(chart={"sha256": "", "size": [8], "grid": ""}), "ValueError"),
        (changed(chart={"sha256": "", "size": [8, 8], "grid": "%%%"}), "no base64"),
        ("[" * 100_000, "RecursionError"),
    ],
)
def test_a_malformed_capsule_is_refused_with_the_reason(text: str, reason: str) -> None:
    """A file of somebody else's making must not end in a traceback on the device."""
    with pytest.raises(
        ModelError, match=rf"the capsule of m\.onnx is malformed .*{reason}.* export the file anew"
    ):
        Capsule.from_text(text, "m.onnx")


def test_a_newer_version_is_refused_with_the_cure() -> None:
    """Half of it understood would be a verdict on the wrong things."""
    with pytest.raises(ModelError, match=r"version 2, and this vit-edge reads up to 1; update it"):
        Capsule.from_text(changed(version=VERSION + 1), "m.onnx")


def test_a_crop_that_is_decoded_wrongly_is_told_from_a_malformed_capsule() -> None:
    """The inference is judged on the crops: these have to be right before anything can be said."""
    values = json.loads(capsule_for().to_text())
    values["pictures"][0]["crop"]["png"] = values["pictures"][1]["crop"]["png"]
    with pytest.raises(ModelError, match=r"the stored crop of red is decoded wrongly here.*OpenCV"):
        Capsule.from_text(json.dumps(values), "m.onnx")


def test_a_print_knows_its_pixels_again_and_tells_how_far_off_others_are() -> None:
    """Whole pictures are too large to keep, and a digest alone says of a changed one only that it is another."""
    pixels = np.random.default_rng(0).integers(20, 230, (100, 150, 3), np.uint8)
    kept = Print.of(pixels)
    assert kept.difference(pixels.copy()) == Difference(True, 0.0, 0, 0.0)
    found = kept.difference(levels(pixels, share=0.25, by=2))
    assert found is not None
    assert not found.exact
    assert found.largest == 2
    assert found.share == pytest.approx(0.25, abs=0.05)
    assert found.mean == pytest.approx(0.5, abs=0.1)
    # A pixel that is not in the grid is seen by the digest alone.
    one = pixels.copy()
    one[0, 0, 0] += 1
    assert kept.difference(one) == Difference(False, 0.0, 0, 0.0)
    assert kept.difference(pixels[:-1]) is None


def test_the_grid_holds_the_pixels_that_the_documentation_names() -> None:
    """Another runtime reads it too, and has the page alone to go by."""
    pixels = np.random.default_rng(0).integers(0, 256, (100, 150, 3), np.uint8)
    grid = Print.of(pixels).grid
    for i, j in ((0, 0), (7, 20), (23, 23)):
        np.testing.assert_array_equal(grid[i, j], pixels[(2 * i + 1) * 100 // 48, (2 * j + 1) * 150 // 48])


def test_the_chart_is_the_formula_of_the_documentation() -> None:
    """Every runtime has to paint the same one."""
    chart = resize_chart()
    assert chart.shape == (389, 521, 3)
    assert chart.dtype == np.uint8
    for y, x, channel in ((0, 0, 0), (12, 345, 1), (388, 520, 2)):
        assert chart[y, x, channel] == (x * x + (channel + 1) * y * y + 97 * x * y) // 128 % 256


def test_the_logits_are_little_endian_floats() -> None:
    """As the page says, for runtimes in other languages."""
    values = json.loads(capsule_for().to_text())
    raw = base64.b64decode(values["pictures"][0]["logits"])
    np.testing.assert_array_equal(np.frombuffer(raw, "<f4"), capsule_for().pictures[0].logits)

"""``vit-edge info`` and ``vit-edge models`` show what there is."""

import json
import re
from dataclasses import replace
from pathlib import Path

from vit_edge.cli.info import about
from vit_edge.models import CATALOG
from vit_edge.runtime import Classifier

from ..runtime.onnx_writer import LABELS, METADATA, colour_model
from .command import absent, call, environment, refused


def test_a_page_shows_what_a_real_file_says_of_itself(digits_model: Path, digits_images: Path) -> None:
    """Labels, preprocessing, origin, recipe and proof: all that decides whether to trust the file."""
    done = call("info", digits_model)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    rows = dict(line.split("  ", 1) for line in done.stdout.splitlines())
    rows = {name: value.strip() for name, value in rows.items()}
    size = digits_model.stat().st_size / 1e6
    assert rows["file"] == f"{digits_model}, {size:.2f} MB, sealed and sound"
    assert rows["labels"] == "10: zero; one; two; … nine"
    assert rows["preprocessing"] == "resize=32,crop=32,interpolation=bicubic,mean=0.5,std=0.5"
    assert rows["input"] == "(batch, 3, height, width) float32, RGB planes, normalised"
    assert rows["batch"] == "any"
    assert rows["precision"] == "int8"
    assert rows["made from"].startswith("best.safetensors, SHA-256 ")
    assert rows["network"] == "width 64, depth 3, heads 2, patch 8"
    assert rows["steps"].startswith("Trace; ")
    assert rows["made for"] == "cpu (CPUExecutionProvider)"
    assert "ONNX Runtime 1." in rows["runs on"]
    for part, row in (("calibrate", "proof, calibration"), ("test", "proof, check")):
        count = len(list(digits_images.glob(f"{part}/*/*.png")))
        assert f" % of {count} images of {part} answered as torch does, logit drift 0." in rows[row]
    assert "top-1 drop" in rows["proof, check"]
    assert "answer as they do alone" in rows["in a batch"]
    assert re.fullmatch(
        r"4 pictures, made by code, 0\.0[0-9] MB; `vit-edge verify` replays them", rows["capsule"]
    )


def test_the_live_page_says_the_same(tmp_path: Path) -> None:
    """Two descriptions of one file would drift apart; a title that comes twice keeps both texts."""
    path = tmp_path / "model.onnx"
    path.write_bytes(
        colour_model(replace(METADATA, recipe={"precision": "int8", "steps": ["Trace", "Simplify"]}))
    )
    with Classifier(path) as classifier:
        shown = about(classifier, path)
    said = call("info", path).stdout.splitlines()
    assert [f"{title.lower():<19} {text}".lower() for title, texts in shown.items() for text in texts] == [
        line.lower() for line in said
    ]
    assert shown["Steps"] == ["Trace; Simplify"]


def test_json_holds_the_same_whole(digits_model: Path) -> None:
    """A fleet's dashboard reads the proof from the file rather than trusting a page about it."""
    done = call("info", digits_model, "--json")
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    metadata = Classifier(digits_model).metadata
    assert values["file"] == str(digits_model)
    assert values["bytes"] == digits_model.stat().st_size
    assert values["labels"] == [str(label) for label in metadata.labels.items]
    assert values["preprocess"] == str(metadata.preprocessing)
    assert values["input"] == "float32"
    assert values["batch"] == "any"
    assert values["notes"] == []
    assert values["source"] == metadata.source
    assert values["recipe"] == metadata.recipe
    assert values["proof"] == metadata.proof
    assert values["scores"] == metadata.scores
    assert values["proof"]["check"]["agreement"] > 0.9
    assert values["capsule"].keys() == {"set", "pictures", "bytes"}
    assert (values["capsule"]["set"], values["capsule"]["pictures"]) == ("made by code", 4)


def test_a_file_that_says_little_has_no_rows_for_the_rest(tmp_path: Path) -> None:
    """`made from None` would be no information."""
    path = tmp_path / "colours.onnx"
    path.write_bytes(colour_model(batch=2))
    done = call("info", path)
    assert done.returncode == 0, done.stderr
    names = [line.split("  ")[0] for line in done.stdout.splitlines()]
    assert names == ["file", "labels", "preprocessing", "input", "batch", "scores"]
    assert done.stdout.endswith("scores              not calibrated\n")
    assert "batch               2\n" in done.stdout
    assert "; ".join(str(label) for label in LABELS.items) in done.stdout
    assert "None" not in done.stdout


def test_the_layout_of_the_input_is_shown(tmp_path: Path) -> None:
    """Who feeds the graph without this library must know whether to normalise."""
    path = tmp_path / "colours.onnx"
    path.write_bytes(colour_model(raw=True))
    assert "\ninput               (batch, height, width, 3) uint8, RGB, 0..255" in call("info", path).stdout
    values = json.loads(call("info", path, "--json").stdout)
    assert (values["input"], values["capsule"]) == ("uint8", None)


def test_a_device_that_differs_is_a_row(tmp_path: Path) -> None:
    """And nothing but the page: stderr stays clean."""
    path = tmp_path / "colours.onnx"
    path.write_bytes(colour_model(replace(METADATA, recipe={"provider": "CoreMLExecutionProvider"})))
    done = call("info", path)
    assert done.stderr == ""
    assert f"on this device      {path} was measured on CoreMLExecutionProvider" in done.stdout
    (note,) = json.loads(call("info", path, "--json").stdout)["notes"]
    assert note in done.stdout


def test_a_file_that_is_not_sound_is_refused(tmp_path: Path) -> None:
    """What a damaged file says of itself is not to be shown."""
    path = tmp_path / "colours.onnx"
    path.write_bytes(colour_model()[:-1] + b"!")
    assert refused("info", path) == (
        f"{path} was changed or damaged since its export; copy it again or export it anew"
    )
    assert refused("info", tmp_path / "absent.onnx").startswith("there is no file ")


def test_the_models_are_those_of_the_catalog_without_torch(tmp_path: Path) -> None:
    """People choose a size before they install two gigabytes."""
    env = environment(absent(tmp_path, "torch", "onnx", "onnxruntime", "cv2"))
    done = call("models", env=env)
    assert done.returncode == 0, done.stderr
    head, *rows = done.stdout.splitlines()
    assert head.split() == ["name", "image", "patch", "width", "depth", "heads", "parameters"]
    assert [row.split()[0] for row in rows] == list(CATALOG)
    # The published size of the textbook network (Dosovitskiy et al. 2021, table 1: 86 million).
    assert "vit_base_patch16_224      224x224     16    768     12     12   86,567,656" in rows


def test_the_models_in_json_have_all_that_makes_a_network() -> None:
    """One object a line, for other programs."""
    lines = [json.loads(line) for line in call("models", "--json").stdout.splitlines()]
    assert [line["name"] for line in lines] == list(CATALOG)
    for line in lines:
        config = CATALOG[line["name"]]
        assert line == {"name": line["name"], **config.to_dict(), "parameters": config.parameters} | {
            "image_size": list(config.image_size)
        }

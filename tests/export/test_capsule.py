"""The workshop's side of the capsule: which pictures go into a file, and whose they are."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from torch import Tensor, nn

from vit_edge.checkpoint import Checkpoint, load_checkpoint
from vit_edge.data import list_images
from vit_edge.errors import DataError, OptionError
from vit_edge.export import Export, Options, Source, run
from vit_edge.export import trace as tracing
from vit_edge.export.capsule import Packer, pack
from vit_edge.export.images import Images, Tick
from vit_edge.export.network import OnnxNetwork, TorchNetwork
from vit_edge.export.scenes import scene
from vit_edge.reference import torch_logits
from vit_edge.runtime import Classifier
from vit_edge.runtime.capsule import Capsule, Picture, read_capsule
from vit_edge.runtime.image import read_image
from vit_edge.runtime.preprocess import Preprocessing, preprocess
from vit_edge.runtime.replay import Replay, replay

from ..runtime.openvino import PYTHON, needs_openvino

pytestmark = pytest.mark.usefixtures("one_torch_thread")

DIGITS = Preprocessing.parse("resize=32,crop=32,interpolation=bicubic,mean=0.5,std=0.5")


class Colours(nn.Module):
    """A network whose logits are the mean of red, green and blue."""

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.mean(dim=(2, 3))


def packed(choice: int | Path | None, fitting: Images, preprocessing: Preprocessing = DIGITS) -> Packer:
    work = pack(choice, TorchNetwork(Colours()), preprocessing, fitting)
    found: list[Packer] = []

    def drained() -> Iterator[Tick]:
        found.append((yield from work))

    ticks = list(drained())
    assert all(0 < tick.done <= tick.total for tick in ticks)
    return found[0]


@pytest.fixture
def photos(tmp_path: Path) -> Images:
    """Give forty photos of all shades, large ones among them, named after people."""
    folder = tmp_path / "holiday"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(40):
        sides = (600, 800) if number % 20 == 0 else (40, 50)
        pixels = np.clip(random.integers(0, 256, 3) + random.integers(-20, 20, (*sides, 3)), 0, 255)
        cv2.imwrite(str(folder / f"anna{number:02}.jpg"), pixels.astype(np.uint8))
    return Images("holiday", list_images(folder), None, DIGITS)


def jpegs(packer: Packer) -> list[bytes]:
    return [picture.jpeg for picture in packer.pictures]


def test_pictures_made_by_code_are_the_same_every_time_and_hold_nobodys(photos: Images) -> None:
    """A file that travels must not carry anyone's private images unasked, and the same export gives the same file."""
    first, again = packed(None, photos), packed(None, photos)
    assert (first.set, len(first.pictures)) == ("made by code", 4)
    assert jpegs(first) == jpegs(again)
    assert len(set(jpegs(first))) == 4
    for picture in first.pictures:
        assert picture.name.startswith("scene ")
        assert min(picture.pixels.size) == 40
        assert read_image(picture.jpeg).std() > 10
    # Another side of the network's input, and the same scenes at the size that suits it.
    large = packed(
        None, photos, Preprocessing.parse("resize=256,crop=224,interpolation=bicubic,mean=0.5,std=0.5")
    )
    assert {min(picture.pixels.size) for picture in large.pictures} == {320}
    huge = packed(
        None, photos, Preprocessing.parse("resize=518,crop=518,interpolation=bicubic,mean=0.5,std=0.5")
    )
    assert {min(picture.pixels.size) for picture in huge.pictures} == {512}
    assert {picture.crop.shape for picture in huge.pictures} == {(518, 518, 3)}


def test_scenes_are_varied_and_the_same_for_a_seed() -> None:
    """Pictures that look alike get one answer, and tell little."""
    scenes = [scene(seed, 60, 80) for seed in range(12)]
    np.testing.assert_array_equal(scenes[3], scene(3, 60, 80))
    assert {one.shape for one in scenes} == {(60, 80, 3)}
    means = np.stack([one.mean(axis=(0, 1)) for one in scenes])
    assert (means.std(axis=0) > 15).all()
    # The same scene, larger: a network of larger images sees the same things.
    larger = cv2.resize(scene(3, 240, 320), (80, 60), interpolation=cv2.INTER_AREA)
    assert np.abs(larger.astype(int) - scenes[3]).mean() < 12


def test_a_narrow_margin_is_among_the_pictures_and_the_others_are_clear_and_varied(photos: Images) -> None:
    """Small differences show where torch hardly decides, and large ones where it is sure."""
    packer = packed(20, photos)
    margins = [picture.margin for picture in packer.pictures]
    assert len(margins) == 20
    everything = packed(40, photos)
    ordered = sorted(picture.margin for picture in everything.pictures)
    assert margins[:5] == ordered[:5]
    assert max(margins) == ordered[-1]
    # Clear ones are the others, but for the first of each answer.
    assert sorted(margins[5:])[3:] == ordered[-12:]
    answers = {int(picture.logits.argmax()) for picture in packer.pictures}
    assert answers == {int(picture.logits.argmax()) for picture in everything.pictures} == {0, 1, 2}
    (alone,) = packed(1, photos).pictures
    assert alone.margin > np.median(ordered)


def test_photos_are_shrunk_and_carry_neither_names_nor_what_the_camera_noted(
    photos: Images, tmp_path: Path
) -> None:
    """Place, time and a person's name stand beside the pixels in many files."""
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0GPS 48.2"
    for path in photos.paths:
        data = path.read_bytes()
        path.write_bytes(data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:])
    assert read_image(photos.paths[0]).shape == (800, 600, 3)
    packer = packed(40, photos)
    sizes = {picture.pixels.size for picture in packer.pictures}
    assert sizes == {(683, 512), (50, 40)}
    for picture in packer.pictures:
        assert b"Exif" not in picture.jpeg
        assert b"GPS" not in picture.jpeg
        assert picture.name.startswith("photo ")
    assert "anna" not in repr([picture.name for picture in packer.pictures])


def test_a_folder_gives_eight_of_its_pictures_and_a_number_those_that_are_there(photos: Images) -> None:
    """A folder of thousands must not end up in the file; a few of few are all that there are."""
    folder = photos.paths[0].parent
    assert (packed(folder, photos).set, len(packed(folder, photos).pictures)) == ("holiday", 8)
    assert len(packed(64, photos).pictures) == 40
    assert packed(0, photos).pictures == ()


# With real files from here on.


@pytest.fixture(scope="module", autouse=True)
def traced_once() -> Iterator[None]:
    """Trace the same network only once."""
    real, traced = tracing.trace, dict[Any, onnx.ModelProto]()

    def trace(network: Any, **options: Any) -> onnx.ModelProto:
        key = tuple(options.values())
        if key not in traced:
            traced[key] = real(network, **options)
        return traced[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracing, "trace", trace)
        yield


@pytest.fixture(scope="module")
def checkpoint(digits_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(digits_checkpoint)


def exported(
    checkpoint: Checkpoint, images: Path, output: Path, network: Any = None, **changes: Any
) -> list[Export]:
    assert checkpoint.labels is not None
    options: dict[str, Any] = {
        "precision": "float32",
        "simplify": False,
        "samples": 16,
        "min_speedup": 0.0,
        "budget_s": 0.0,
    }
    events = run(
        network or TorchNetwork(checkpoint.model),
        labels=checkpoint.labels,
        preprocessing=DIGITS,
        output=output,
        source=Source("digits", checkpoint.sha256, {}),
        calibrate=images / "calibrate",
        check=None,
        options=Options(**options | changes),
    )
    return [event for event in events if isinstance(event, Export)]


def capsule(path: Path) -> Capsule:
    found = read_capsule(path, path.name)
    assert found is not None
    return found


def verified(path: Path) -> dict[str, Any]:
    with Classifier(path) as classifier:
        *_, found = replay(classifier, capsule(path))
    assert isinstance(found, Replay)
    assert found.passed
    stages: dict[str, Any] = found.to_dict()["stages"]
    return stages


@pytest.mark.parametrize(
    ("precision", "taken"), [("int8", "float32"), ("int8", "uint8"), ("float32", "float32")]
)
def test_an_export_carries_torchs_answers_and_its_own_drift(
    checkpoint: Checkpoint, digits_images: Path, tmp_path: Path, precision: str, taken: str
) -> None:
    """Whatever the graph takes: from the JPEG to torch's logits all is there, and a replay gives the same."""
    (result,) = exported(checkpoint, digits_images, tmp_path / "m.onnx", precision=precision, input=taken)
    found = capsule(result.path)
    assert (found.reference, found.set, found.provider) == (
        "torch float32",
        "made by code",
        "CPUExecutionProvider",
    )
    for picture in found.pictures:
        pixels = preprocess(read_image(picture.jpeg), DIGITS)
        np.testing.assert_allclose(torch_logits(checkpoint.model, pixels[None])[0], picture.logits, atol=1e-4)
    assert (1e-4 < found.drift < 0.3) if precision == "int8" else found.drift < 1e-5
    stages = verified(result.path)
    for name in ("inference", "whole"):
        assert stages[name]["drift"] == pytest.approx(found.drift, abs=1e-6)
    assert result.capsule is not None
    assert result.capsule.to_dict() == {
        "set": "made by code",
        "pictures": 4,
        "bytes": len(found.to_text().encode()),
    }
    assert json.dumps(result.to_dict()["capsule"])


def test_a_float_graph_made_elsewhere_is_its_own_reference(
    checkpoint: Checkpoint, digits_images: Path, tmp_path: Path
) -> None:
    """There is no torch behind such a file, and its own answers are what the INT8 file is held to."""
    exported(checkpoint, digits_images, tmp_path / "float.onnx", capsule=0)
    assert read_capsule(tmp_path / "float.onnx", "float.onnx") is None
    network = OnnxNetwork(tmp_path / "float.onnx")
    (result,) = exported(checkpoint, digits_images, tmp_path / "m.onnx", network, precision="int8")
    found = capsule(result.path)
    assert found.reference == "the float graph"
    with Classifier(tmp_path / "float.onnx") as classifier:
        for picture in found.pictures:
            own = classifier.logits(classifier.pixels(picture.jpeg)[None])[0]
            np.testing.assert_allclose(own, picture.logits, atol=1e-5)
    verified(result.path)


def test_variants_carry_the_same_pictures_and_each_its_own_drift(
    checkpoint: Checkpoint, digits_images: Path, tmp_path: Path
) -> None:
    """On a device they are compared with each other on just these."""
    results = exported(
        checkpoint,
        digits_images,
        tmp_path / "m.onnx",
        precision="auto",
        targets=("cpu", "coreml"),
        capsule=3,
    )
    first, second = (capsule(result.path) for result in results)
    assert [picture.jpeg for picture in first.pictures] == [picture.jpeg for picture in second.pictures]
    assert (first.set, len(first.pictures)) == ("calibrate", 3)
    # INT8 for the one, float16 for the other.
    assert first.drift > 2 * second.drift > 0


@needs_openvino
def test_the_drift_is_that_on_the_targets_own_provider(
    checkpoint: Checkpoint, digits_images: Path, tmp_path: Path
) -> None:
    """Another provider computes otherwise, and what is normal there was measured there."""
    assert PYTHON is not None
    (result,) = exported(
        checkpoint,
        digits_images,
        tmp_path / "m.onnx",
        precision="int8",
        targets=("openvino",),
        target_python=Path(PYTHON),
        min_agreement=0.5,
        max_drift=0.5,
    )
    found = capsule(result.path)
    assert found.provider == "OpenVINOExecutionProvider"
    assert 0 < found.drift < 0.5
    # The processor of this machine is not what it was measured on, and is held to the bound of the export.
    with Classifier(result.path, "cpu") as classifier:
        *_, replayed = replay(classifier, found)
    assert isinstance(replayed, Replay)
    limit = replayed.to_dict()["stages"]["inference"]["max_drift"]
    assert limit == pytest.approx(max(0.5, 1.5 * found.drift))


def test_a_folder_without_pictures_and_a_number_too_large_are_refused_before_the_work(
    checkpoint: Checkpoint, digits_images: Path, tmp_path: Path
) -> None:
    """After an export of minutes it would be late for that."""
    for folder, reason in ((tmp_path / "absent", "there is no folder"), (tmp_path, "expected images")):
        with pytest.raises(DataError, match=reason):
            exported(checkpoint, digits_images, tmp_path / "m.onnx", capsule=folder)
    for number in (-1, 65):
        with pytest.raises(OptionError, match=rf"a number of pictures from 0 to 64, got {number}"):
            Options(capsule=number)


def test_pictures_have_a_margin(checkpoint: Checkpoint) -> None:
    """A network of one class answers the same whatever it sees."""
    parts: Any = {"name": "x", "jpeg": b"", "pixels": None, "crop": np.zeros((8, 8, 3), np.uint8)}
    assert Picture(**parts, logits=np.array([1.0, 4.0, 3.5], np.float32)).margin == 0.5
    assert Picture(**parts, logits=np.array([1.0], np.float32)).margin == float("inf")

"""The replay finds the stage at fault: each is broken in turn, and the others stay blameless.

What is broken is the outermost edge: OpenCV's decoder, the resize itself, the weights in the file.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from vit_edge.runtime import Classifier, ModelError
from vit_edge.runtime import preprocess as preprocessing
from vit_edge.runtime.capsule import KEY, Capsule, read_capsule
from vit_edge.runtime.replay import Replay, replay
from vit_edge.runtime.resize import resize as resize_exactly

from .capsules import capsule_for, levels, with_capsule
from .onnx_writer import GAIN, METADATA, colour_model
from .openvino import needs_openvino, run

# The workshop's own: the graph's answers are torch's moved a little, as those of INT8.
NOISE = 0.02


def replayed(data: bytes, *, max_drift: float | None = None) -> tuple[Replay, dict[str, Any]]:
    capsule = read_capsule(data, "model.onnx")
    assert capsule is not None
    with Classifier(data) as classifier:
        *counts, found = replay(classifier, capsule, max_drift=max_drift)
    assert counts == [1, 2, 3]
    assert isinstance(found, Replay)
    return found, found.to_dict()["stages"]


def broken(stages: dict[str, Any]) -> list[str]:
    return [name for name, stage in stages.items() if not stage["passed"]]


@pytest.fixture(scope="module")
def sealed() -> bytes:
    """Give a file with its capsule, made before anything is broken."""
    return with_capsule()


@pytest.fixture(scope="module")
def sealed_exact() -> bytes:
    """Give one whose own answers are the reference's."""
    return with_capsule(capsule_for())


@pytest.fixture
def decoder(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any], Any]], None]:
    """Put something behind OpenCV's decoder, for JPEG alone, as another build of it would."""
    real = cv2.imdecode

    def put(change: Callable[[Any], Any]) -> None:
        def imdecode(data: NDArray[np.uint8], flags: int) -> Any:
            pixels = real(data, flags)
            return change(pixels) if data[:2].tobytes() == b"\xff\xd8" else pixels

        monkeypatch.setattr(cv2, "imdecode", imdecode)

    return put


def test_a_device_like_the_workshop_passes_in_every_stage(sealed: bytes) -> None:
    """The same pixels, the same crops, and the drift that the file had when it was made."""
    found, stages = replayed(sealed)
    assert (found.passed, found.fault, broken(stages)) == (True, None, [])
    assert list(stages) == ["decode", "resize", "inference", "whole"]
    assert stages["decode"]["exact"]
    assert stages["resize"]["exact"]
    assert stages["resize"]["pictures"] == 3
    for name in ("inference", "whole"):
        assert stages[name]["drift"] == pytest.approx(stages[name]["recorded_drift"])
        assert stages[name]["max_drift"] == pytest.approx(1.5 * stages[name]["recorded_drift"])
        assert (stages[name]["flips"], stages[name]["agreement"]) == (0, 1.0)


@pytest.mark.parametrize(("share", "by"), [(0.04, 3), (0.2, 1)])
def test_a_decoder_that_rounds_otherwise_passes_and_its_distance_is_told(
    sealed: bytes, decoder: Callable[..., None], share: float, by: int
) -> None:
    """Other builds of libjpeg, as on ARM, may be a level off: 2 to 4 % of the values by up to 3 were measured."""
    decoder(lambda pixels: levels(pixels, share=share, by=by))
    found, stages = replayed(sealed)
    assert (found.passed, broken(stages)) == (True, [])
    decode = stages["decode"]
    assert (decode["exact"], decode["largest"]) == (False, by)
    assert decode["share"] == pytest.approx(share, rel=0.4)
    assert "as another build of libjpeg may" in decode["finding"]
    assert f"by {by} of 255 levels at most" in decode["finding"]
    # The test chart, which no decoder touches, still judges the resize, and the stored crops the inference.
    assert (stages["resize"]["exact"], stages["resize"]["pictures"]) == (True, 0)
    assert stages["inference"]["drift"] == pytest.approx(stages["inference"]["recorded_drift"])
    assert stages["whole"]["drift"] != stages["inference"]["drift"]
    assert stages["whole"]["max_drift"] == pytest.approx(stages["inference"]["max_drift"] + 0.05)


@pytest.mark.parametrize(
    "change",
    [
        lambda pixels: levels(pixels, share=1.0, by=1),  # as libjpeg's fast transform
        lambda pixels: levels(pixels, share=0.03, by=30),  # as without smooth upsampling of colours
        lambda pixels: pixels[..., ::-1],  # red for blue
        lambda pixels: cv2.GaussianBlur(pixels, (0, 0), 1),
    ],
    ids=["fast", "unsmoothed", "swapped", "blurred"],
)
def test_a_decoder_that_is_far_off_is_at_fault_alone(
    sealed: bytes, decoder: Callable[..., None], change: Callable[[Any], Any]
) -> None:
    """What sees other pictures than the network learnt gives other answers, if not on these then on the next."""
    decoder(change)
    found, stages = replayed(sealed)
    assert found.fault == "decode"
    assert set(broken(stages)) <= {"decode", "whole"}
    assert "more than the 4 at most and 0.25 in the mean" in stages["decode"]["finding"]


def test_a_picture_that_cannot_be_decoded_or_has_another_size_is_the_decoders_fault(
    sealed: bytes,
    decoder: Callable[..., None],
) -> None:
    """A build without JPEG, or one that turns pictures by itself; what comes after is judged all the same."""
    decoder(lambda pixels: None)
    found, stages = replayed(sealed)
    assert (found.fault, broken(stages)) == ("decode", ["decode"])
    assert stages["decode"]["finding"].startswith(
        "cannot decode red: the image is damaged, or no image that OpenCV"
    )
    assert "whole" not in stages
    decoder(lambda pixels: pixels.transpose(1, 0, 2))
    found, stages = replayed(sealed)
    assert found.fault == "decode"
    assert stages["decode"]["finding"] == "makes 90x60 pixels of red, which has 60x90"
    assert "resize" not in broken(stages)
    assert "inference" not in broken(stages)


def test_small_differences_of_the_decoder_that_move_the_answers_are_its_fault(
    sealed_exact: bytes,
    decoder: Callable[..., None],
) -> None:
    """Each stage by itself is near enough, and still the answers are not torch's: then the inexact one is named."""
    decoder(lambda pixels: levels(pixels, share=0.2, by=1))
    found, stages = replayed(sealed_exact, max_drift=1e-7)
    assert (found.fault, broken(stages)) == ("decode", ["whole"])


def test_a_wrong_resize_is_at_fault_alone(sealed: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV's own resize, which does not antialias, is what people put there; the decoder is blameless."""

    def resize(image: Any, size: tuple[int, int], *, window: tuple[int, int, int, int], **_: Any) -> Any:
        top, left, height, width = window
        return cv2.resize(image, size[::-1])[top : top + height, left : left + width]

    monkeypatch.setattr(preprocessing, "resize", resize)
    found, stages = replayed(sealed)
    assert found.fault == "resize"
    assert set(broken(stages)) <= {"resize", "whole"}
    assert stages["decode"]["exact"]
    assert stages["resize"]["pictures"] == 3
    assert (
        "gives other crops than the workshop's of the test chart and 3 pictures"
        in stages["resize"]["finding"]
    )


def test_a_resize_that_rounds_a_value_here_and_there_otherwise_passes(
    sealed: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A processor that fuses a product with a sum may do that, and no answer hangs on it."""
    real = resize_exactly

    def resize(*arguments: Any, **options: Any) -> Any:
        return levels(real(*arguments, **options), share=0.004, by=1)

    monkeypatch.setattr(preprocessing, "resize", resize)
    found, stages = replayed(sealed)
    assert found.passed
    assert not stages["resize"]["exact"]
    assert "by 1 of 255 levels at most" in stages["resize"]["finding"]


def test_preprocessing_that_was_changed_in_the_file_is_the_resizes_fault() -> None:
    """The file is sealed again, so that the seal says nothing."""
    steps = replace(METADATA.preprocessing, interpolation="box")
    data = colour_model(
        replace(METADATA, preprocessing=steps), changed={KEY: capsule_for(noise=NOISE).to_text()}
    )
    found, stages = replayed(data)
    assert found.fault == "resize"
    assert stages["inference"]["passed"]


@pytest.mark.parametrize("gain", [1.25 * GAIN, -GAIN, float("nan")])
def test_changed_weights_are_the_inferences_fault_alone(gain: float) -> None:
    """A file whose weights were changed, and that was sealed again, or a provider that computes something else."""
    text = capsule_for(noise=NOISE).to_text()
    found, stages = replayed(colour_model(changed={KEY: text}, gain=gain))  # type: ignore[arg-type]
    assert found.fault == "inference"
    assert broken(stages) == ["inference", "whole"]
    assert stages["decode"]["exact"]
    assert stages["resize"]["exact"]
    if gain == -GAIN:
        assert stages["inference"]["clear_flips"] == 3
        assert "red, green, blue: another answer by a clear margin" in stages["inference"]["finding"]
    if np.isnan(gain):
        assert (stages["inference"]["drift"], stages["inference"]["clear_flips"]) == (None, 3)


def other_answer(capsule: Capsule, margin: float) -> Capsule:
    """Let the reference answer the first picture with another class, by so much."""
    first, *others = capsule.pictures
    logits = first.logits.copy()
    logits[1] = logits[0] + margin
    return replace(capsule, pictures=(replace(first, logits=logits), *others))


def test_another_first_answer_passes_where_torchs_margin_is_within_the_drift() -> None:
    """INT8 moves logits a little: where torch itself hardly decides, nobody can ask for its answer."""
    narrow, wide = (other_answer(capsule_for(), margin) for margin in (0.01, 0.4))
    for capsule in (narrow, wide):
        capsule = replace(capsule, drift=0.2, max_abs_drift=0.1)
        found, stages = replayed(with_capsule(capsule), max_drift=10)
        assert stages["inference"]["flips"] == 1
        # With the drift allowed, the largest distance of two logits grows from 0.1 to 5.
        assert found.passed
        found, stages = replayed(with_capsule(capsule), max_drift=0.2)
        passes = capsule.pictures[0].margin < 0.1
        assert stages["inference"]["clear_flips"] == (0 if passes else 1)
        assert ("red: another answer by a clear margin" in stages["inference"]["finding"]) == (not passes)


def test_an_exact_graph_may_still_be_a_little_off_elsewhere() -> None:
    """Another build adds up in another order: a float32 file whose drift was nothing passes with 0.003, not 0.03."""
    exact = capsule_for()
    assert exact.drift == 0
    for factor, passes in ((1.003, True), (1.03, False)):
        data = colour_model(changed={KEY: exact.to_text()}, gain=GAIN * factor)  # type: ignore[arg-type]
        assert replayed(data)[0].passed == passes


def test_on_another_provider_the_bound_of_the_export_counts() -> None:
    """A recipe's drift belongs to its provider; elsewhere the file is held to what its export was."""
    capsule = replace(capsule_for(noise=NOISE), provider="CUDAExecutionProvider")
    proof = {"bounds": {"min_agreement": 0.98, "max_drift": 0.15, "max_drop": 1.0}}
    data = colour_model(replace(METADATA, proof=proof), changed={KEY: capsule.to_text()})
    assert replayed(data)[1]["inference"]["max_drift"] == 0.15


def test_a_graph_of_a_fixed_batch_and_one_of_raw_pixels_are_replayed() -> None:
    """Whatever the graph takes, the capsule is the same."""
    for options in ({"batch": 4}, {"raw": True}, {"raw": True, "batch": 2}):
        data = colour_model(**options)
        text = capsule_for(data).to_text()
        found, stages = replayed(colour_model(changed={KEY: text}, **options))
        assert found.passed
        assert stages["whole"]["drift"] == 0


def test_a_capsule_of_another_model_is_refused() -> None:
    """A verdict on it would be on nothing."""
    short = tuple(replace(picture, logits=picture.logits[:2]) for picture in capsule_for().pictures)
    with pytest.raises(
        ModelError, match=r"does not belong to .*expected crops of shape \(8, 8, 3\) and 3 logits"
    ):
        replayed(with_capsule(replace(capsule_for(), pictures=short)))


SCRIPT = """
from pathlib import Path
from vit_edge.runtime.capsule import read_capsule
from vit_edge.runtime.replay import replay

for name in sys.argv[1:]:
    with Classifier(name, "openvino") as classifier:
        *_, found = replay(classifier, read_capsule(Path(name), name))
    tell(**found.to_dict(), provider=classifier.provider)
"""


@needs_openvino
def test_another_provider_is_verified_for_real(tmp_path: Path) -> None:
    """OpenVINO, in its own wheel, gives the answers of a sound file, and is found out with a changed one."""
    text = capsule_for(noise=NOISE).to_text()
    for name, gain in (("sound", GAIN), ("changed", 2 * GAIN)):
        data = colour_model(changed={KEY: text}, gain=gain)  # type: ignore[arg-type]
        (tmp_path / f"{name}.onnx").write_bytes(data)
    (sound, changed), _ = run(
        SCRIPT,
        *(tmp_path / f"{name}.onnx" for name in ("sound", "changed")),
        VIT_EDGE_CACHE=str(tmp_path / "cache"),
    )
    assert (sound["passed"], sound["provider"]) == (True, "openvino")
    assert (changed["passed"], changed["fault"]) == (False, "inference")

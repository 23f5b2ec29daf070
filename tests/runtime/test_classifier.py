"""The classifier gives right answers, or one sentence that says why it cannot."""

import json
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vit_edge.runtime import Classifier, ImageError, Labels, Metadata, ModelError, VitEdgeError
from vit_edge.runtime.image import ImageSource
from vit_edge.runtime.prediction import softmax
from vit_edge.runtime.processor import INT8_FEATURES, processor

from .onnx_writer import LABELS, METADATA, colour_graph, colour_model, flat_colour, save_picture, sealed


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(colour_model(), threads=1)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "colours.onnx"
    path.write_bytes(colour_model())
    return path


def shades(count: int) -> list[NDArray[np.uint8]]:
    """Pictures that all have different answers."""
    return [flat_colour(("red", "green", "blue")[place % 3], shade=5 * place) for place in range(count)]


def logits_of(predictions: object) -> list[tuple[float, ...]]:
    assert isinstance(predictions, list)
    return [tuple(score.probability for score in prediction.top) for prediction in predictions]


def refused(model: bytes | Path | str) -> str:
    """Open what has to be refused, and give the one sentence."""
    with pytest.raises(ModelError) as caught:
        Classifier(model)
    text = str(caught.value)
    assert "\n" not in text
    assert not text.endswith(".")
    return text


@pytest.mark.parametrize("kind", [str, Path, bytes])
def test_a_model_is_opened_from_a_path_or_its_bytes(kind: type, model: Path) -> None:
    """An application may keep its model in an archive or a database rather than in a file."""
    source = model.read_bytes() if kind is bytes else kind(model)
    assert Classifier(source)(flat_colour("green")).label == "green"


@pytest.mark.parametrize("name", ["red", "green", "blue"])
def test_an_image_is_taken_as_path_text_bytes_or_array(
    name: str, classifier: Classifier, tmp_path: Path
) -> None:
    """All ways into the classifier are the same picture, so they must give the same answer."""
    picture = flat_colour(name)
    path = save_picture(tmp_path / "picture.png", picture)
    answers = [classifier(source).top for source in (picture, path, str(path), path.read_bytes())]
    assert answers[0][0].label == name
    assert answers == [answers[0]] * 4


def test_a_score_holds_name_place_and_id(classifier: Classifier) -> None:
    """Names repeat and change; a program goes by the place or the id."""
    prediction = classifier(flat_colour("blue"))
    best = prediction.top[0]
    assert (best.label, best.index, best.id) == ("blue", 2, "n00000003")
    assert (prediction.label, prediction.index, prediction.probability) == ("blue", 2, best.probability)
    assert prediction.latency_ms > 0


def test_probabilities_are_those_of_the_logits(classifier: Classifier) -> None:
    """A probability that is off misleads every threshold that is set on it."""
    picture = flat_colour("red")
    # The graph's logits are four times the channels' means, here of pixels that are all the same.
    logits = 4 * (picture[0, 0] / 255 - 0.5) / 0.5
    expected = np.exp(logits) / np.exp(logits).sum()
    scores = sorted(classifier(picture).top, key=lambda score: score.index)
    np.testing.assert_allclose([score.probability for score in scores], expected, rtol=1e-5)
    assert sum(score.probability for score in scores) == pytest.approx(1, abs=1e-6)


def test_large_logits_do_not_overflow() -> None:
    """The exponential of 90 is no float32 any more; a sure network must still answer."""
    probabilities = softmax(np.array([[1000, 0, 999], [-1000, -1000, -1000]], np.float32))
    np.testing.assert_allclose(probabilities, [[0.7310586, 0, 0.26894143], [1 / 3] * 3], rtol=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1, 3.5])
def test_the_files_temperature_is_applied_and_changes_no_answer(temperature: float) -> None:
    """It was fitted for this graph; the order of the classes is the same whatever it is."""
    scores = {"temperature": temperature, "threshold": 0.6}
    calibrated = Classifier(colour_model(replace(METADATA, scores=scores)), threads=1)
    assert (calibrated.calibrated, calibrated.temperature, calibrated.threshold) == (True, temperature, 0.6)
    picture = flat_colour("red", shade=40)
    logits = calibrated.logits(calibrated.pixels(picture)[None])[0].astype(np.float64)
    expected = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
    prediction = calibrated(picture)
    assert [score.index for score in prediction.top] == np.argsort(-expected, kind="stable").tolist()
    np.testing.assert_allclose(prediction.probability, expected.max(), rtol=1e-5)


def test_a_file_without_scores_is_not_calibrated(classifier: Classifier) -> None:
    """Its probabilities are the plain softmax, and it says nothing of when an answer is unknown."""
    assert (classifier.calibrated, classifier.temperature, classifier.threshold) == (False, 1.0, None)


def test_top_says_how_many_classes_come_best_first(classifier: Classifier) -> None:
    """More classes than there are is all of them."""
    picture = flat_colour("green")
    assert [len(classifier(picture, top=top).top) for top in (1, 2, 3, 1000)] == [1, 2, 3, 3]
    probabilities = [score.probability for score in classifier(picture).top]
    assert probabilities == sorted(probabilities, reverse=True)


@pytest.mark.parametrize("options", [{"top": 0}, {"batch_size": 0}, {"top": -1}])
def test_a_top_or_batch_size_below_one_is_refused(options: dict[str, int], classifier: Classifier) -> None:
    """None of these has a meaning; an empty answer would be found much later."""
    with pytest.raises(VitEdgeError, match="at least 1"):
        classifier([flat_colour("red")], **options)


def test_a_list_gets_the_answers_that_its_images_get_alone(classifier: Classifier) -> None:
    """Dynamic INT8 lets batch mates change each other's answers, so by default there are none."""
    pictures = shades(7)
    alone = [classifier(picture) for picture in pictures]
    assert logits_of(classifier(pictures)) == logits_of(alone)
    assert logits_of(classifier(tuple(pictures))) == logits_of(alone)
    assert logits_of(classifier(deque(pictures))) == logits_of(alone)
    assert len(set(logits_of(alone))) == 7


@pytest.mark.parametrize("batch_size", [2, 4, 7, 100])
def test_batches_keep_the_order_and_lose_none(batch_size: int, classifier: Classifier) -> None:
    """The last batch is seldom full."""
    pictures = shades(7)
    expected = logits_of(classifier(pictures))
    np.testing.assert_allclose(logits_of(classifier(pictures, batch_size=batch_size)), expected, rtol=1e-5)


def test_images_of_one_list_may_differ_in_kind_and_size(classifier: Classifier, tmp_path: Path) -> None:
    """Photos of one folder do."""
    path = save_picture(tmp_path / "a.png", flat_colour("red", height=9, width=200))
    answers = classifier(
        [path, flat_colour("green", height=90, width=8)[..., :], path.read_bytes()], batch_size=3
    )
    assert [answer.label for answer in answers] == ["red", "green", "red"]


def test_an_empty_list_has_no_answers(classifier: Classifier) -> None:
    """A folder without new images is no error for a program."""
    assert classifier([]) == []


def test_what_is_no_image_is_refused_by_name(classifier: Classifier) -> None:
    """A generator would be used up by looking into it, and a batch array is no list."""
    with pytest.raises(ImageError, match="got generator; turn an iterator into a list first"):
        classifier(picture for picture in shades(2))  # type: ignore[call-overload]
    with pytest.raises(ImageError, match="got int"):
        classifier(3)  # type: ignore[call-overload]
    with pytest.raises(ImageError, match=r"\(2, 20, 30, 3\)"):
        classifier(np.stack(shades(2)))


def test_a_prediction_becomes_json(classifier: Classifier) -> None:
    """NumPy's numbers are no JSON; what a program logs must be."""
    values = json.loads(json.dumps(classifier(flat_colour("red"), top=2).to_dict()))
    assert values["label"] == "red"
    assert [score["label"] for score in values["top"]] == ["red", "green"]
    assert values["top"][0] == {
        "label": "red",
        "probability": pytest.approx(values["probability"]),
        "id": "n00000001",
    }
    assert values["latency_ms"] > 0


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_graph_of_a_fixed_batch_answers_any_number_of_images(size: int, classifier: Classifier) -> None:
    """Some providers take only fixed sizes; what fills the last batch must not come out as an answer."""
    fixed = Classifier(colour_model(batch=size))
    assert fixed.batch == size
    assert classifier.batch is None
    for count in (1, 2, 3, 7):
        for batch_size in (1, 4):
            answers = fixed(shades(count), batch_size=batch_size)
            np.testing.assert_allclose(logits_of(answers), logits_of(classifier(shades(count))), rtol=1e-5)


def test_threads_that_share_a_classifier_get_the_answers_of_one(classifier: Classifier) -> None:
    """A server calls it from every worker; an answer must never be that of another's image."""
    pictures = shades(24) * 10
    expected = logits_of([classifier(picture) for picture in pictures])
    with ThreadPoolExecutor(8) as pool:
        assert logits_of(list(pool.map(classifier, pictures))) == expected


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_a_batch_on_the_processor_gives_each_image_the_answer_it_gets_alone(threads: int) -> None:
    """Dynamic INT8 takes one scale per tensor: who waits for company must not get another answer for it."""
    shared = Classifier(colour_model(), threads=threads)
    pictures = shades(24)
    alone = logits_of([shared(picture) for picture in pictures])
    for batch_size in (2, 8, 100):
        assert logits_of(shared(pictures, batch_size=batch_size)) == alone


def test_an_image_of_a_batch_that_cannot_be_read_is_its_error(classifier: Classifier) -> None:
    """Whatever thread it was read in."""
    with pytest.raises(ImageError, match="the image is empty"):
        Classifier(colour_model(), threads=4)([*shades(3), b"", *shades(3)], batch_size=4)


@pytest.mark.parametrize("raw", [False, True], ids=["float32", "uint8"])
@pytest.mark.parametrize("batch", [0, 3])
def test_a_frame_gets_the_answer_of_the_same_picture(raw: bool, batch: int) -> None:
    """The quick way in is the same way: frames of changing sizes, parts of larger ones, and mirrored channels."""
    shared = Classifier(colour_model(raw=raw, batch=batch), threads=1)
    noise = np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8)
    for frame in (*shades(3), noise, noise[5:60, 10:40], noise[::2, ::-1], noise[..., ::-1]):
        assert shared.classify_frame(frame).top == shared(np.ascontiguousarray(frame)).top
    assert len(shared.classify_frame(noise, top=2).top) == 2
    assert shared.classify_frame(noise).latency_ms > 0


def test_a_frame_is_computed_into_the_same_memory_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A camera gives thirty a second for months: what is allocated for each is time, and holes in the memory."""
    shared = Classifier(colour_model(), threads=1)
    given: list[Any] = []
    real = shared.logits

    def logits(pixels: Any) -> NDArray[np.float32]:
        given.append(pixels)
        return real(pixels)

    monkeypatch.setattr(shared, "logits", logits)
    for frame in shades(3):
        shared.classify_frame(frame)
    assert len({pixels.__array_interface__["data"][0] for pixels in given}) == 1
    with ThreadPoolExecutor(1) as pool:
        pool.submit(shared.classify_frame, shades(1)[0]).result()
    assert given[-1].__array_interface__["data"][0] != given[0].__array_interface__["data"][0]


def test_threads_that_share_a_classifier_do_not_mix_their_frames(classifier: Classifier) -> None:
    """Each has memory of its own; one buffer for all would answer one camera with another's picture."""
    frames = shades(24) * 20
    expected = [classifier(frame).top for frame in frames]
    with ThreadPoolExecutor(8) as pool:
        assert [found.top for found in pool.map(classifier.classify_frame, frames)] == expected


@pytest.mark.parametrize(
    "frame",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
    ],
    ids=["gray", "RGBA", "float", "empty"],
)
def test_what_is_no_frame_is_refused(frame: Any, classifier: Classifier) -> None:
    """A conversion that nobody asked for costs time at every frame; the sentence says what was expected."""
    with pytest.raises(ImageError, match=r"expected an image of shape \(height, width, 3\) and dtype uint8"):
        classifier.classify_frame(frame)
    with pytest.raises(ModelError, match="expected top of at least 1, got 0"):
        classifier.classify_frame(flat_colour("red"), top=0)


def test_a_closed_classifier_takes_no_frame(model: Path) -> None:
    """As all else."""
    with Classifier(model) as closed:
        pass
    with pytest.raises(ModelError, match="was closed"):
        closed.classify_frame(flat_colour("red"))


def test_results_are_frozen_and_plain(classifier: Classifier) -> None:
    """An answer that is passed on must not change under way, and is logged as it is."""
    prediction = classifier(flat_colour("red"))
    for result, name in ((prediction, "top"), (prediction.top[0], "label")):
        with pytest.raises(AttributeError):
            setattr(result, name, None)
    assert prediction.to_dict()["top"] == [score.to_dict() for score in prediction.top]
    nameless = Classifier(colour_model(without=("label_ids",)), threads=1)(flat_colour("red")).top[0]
    assert nameless.to_dict() == {"label": "red", "probability": nameless.probability}


def test_a_closed_classifier_says_so(model: Path) -> None:
    """An attribute that is not there tells a user of a long program nothing."""
    with Classifier(model) as classifier:
        assert classifier(flat_colour("red")).label == "red"
    with pytest.raises(ModelError, match=r"the classifier of .*colours.onnx was closed; make a new one"):
        classifier(flat_colour("red"))
    classifier.close()
    assert classifier.labels == LABELS


def test_an_error_inside_with_closes_the_classifier_and_goes_on(model: Path) -> None:
    """The memory of a model is not to be kept because an image was bad."""
    with pytest.raises(ImageError), Classifier(model) as classifier:
        classifier(b"no image")
    with pytest.raises(ModelError, match="closed"):
        classifier(flat_colour("red"))


def test_a_failure_of_onnx_runtime_is_one_sentence(classifier: Classifier) -> None:
    """Its exceptions have no common base and several lines; a device runs out of memory, for one."""
    failing = Classifier(colour_model(answers=1), threads=1)
    assert failing(flat_colour("red")).label == "red"
    with pytest.raises(ModelError, match=r"ONNX Runtime .* cannot run the model \(") as caught:
        failing.logits(np.stack([failing.pixels(picture) for picture in shades(2)]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("raw", [False, True], ids=["float32", "uint8"])
def test_pixels_of_another_kind_are_refused_with_both(raw: bool) -> None:
    """A program that normalises by itself, and gets a file that does so too, would be answered wrongly."""
    graphs = [Classifier(colour_model(raw=kind), threads=1) for kind in (raw, not raw)]
    own, other = (graph.pixels(flat_colour("red"))[None] for graph in graphs)
    assert graphs[0].logits(own).shape == (1, 3)
    wrong: tuple[Any, ...] = (other, own[0], own[:, :, :7], own[:0], own.astype(np.float64))
    for pixels in wrong:
        with pytest.raises(ImageError) as caught:
            graphs[0].logits(pixels)
        text = str(caught.value)
        sides = "8, 8, 3) and dtype uint8" if raw else "3, 8, 8) and dtype float32"
        assert text.startswith(
            f"expected pixels of shape (batch, {sides}, got {pixels.shape} {pixels.dtype}; "
        )


def test_the_file_decides_what_its_graph_takes(classifier: Classifier) -> None:
    """A program that swaps one file for the other must not have to know."""
    raw = Classifier(colour_model(raw=True), threads=1)
    assert (classifier.input, raw.input) == ("float32", "uint8")
    picture = flat_colour("green", height=50, width=70)
    planes, pixels = classifier.pixels(picture), raw.pixels(picture)
    assert (planes.shape, planes.dtype.name) == ((3, 8, 8), "float32")
    assert (pixels.shape, pixels.dtype.name) == ((8, 8, 3), "uint8")
    np.testing.assert_allclose(planes, (pixels.transpose(2, 0, 1) / 255 - 0.5) / 0.5, rtol=1e-6)


@pytest.mark.parametrize("batch", [0, 2])
def test_a_file_for_raw_pixels_gives_the_answers_of_the_other(
    batch: int, classifier: Classifier, tmp_path: Path
) -> None:
    """Alone, in batches, of a fixed size or any; from arrays and from files."""
    raw = Classifier(colour_model(raw=True, batch=batch), threads=1)
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    sources: list[ImageSource] = [*shades(5), noise, save_picture(tmp_path / "noise.png", noise)]
    expected = classifier(sources)
    for batch_size in (1, 3):
        answers = raw(sources, batch_size=batch_size)
        assert [answer.label for answer in answers] == [answer.label for answer in expected]
        np.testing.assert_allclose(logits_of(answers), logits_of(expected), rtol=1e-5)


def without_seal(data: bytes) -> bytes:
    return colour_graph()


def one_bit(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (without_seal, "carries no labels, preprocessing and seal; make it with `vit-edge export`"),
        (one_bit, "was changed or damaged since its export; copy it again or export it anew"),
        (lambda data: data[:-1], "was changed or damaged since its export; copy it again or export it anew"),
        (
            lambda data: data[:300],
            "carries no labels, preprocessing and seal; make it with `vit-edge export`",
        ),
        (
            lambda data: data + b"\0",
            "was changed or damaged since its export; copy it again or export it anew",
        ),
        (lambda data: b"", "is empty; copy it again or export it anew"),
        (
            lambda data: b"labels.txt\n",
            "carries no labels, preprocessing and seal; make it with `vit-edge export`",
        ),
    ],
    ids=["plain", "one bit", "a byte less", "half", "a byte more", "empty", "text"],
)
def test_a_damaged_or_foreign_file_is_refused_by_its_name(
    damage: Callable[[bytes], bytes], sentence: str, model: Path
) -> None:
    """Weights with one wrong bit answer wrong without a word; a plain ONNX file lacks what right answers need."""
    model.write_bytes(damage(model.read_bytes()))
    assert refused(model) == f"{model} {sentence}"
    assert refused(str(model)) == f"{model} {sentence}"
    assert refused(model.read_bytes()) == f"the model {sentence}"


def test_a_path_that_is_no_file_is_refused_by_its_name(tmp_path: Path) -> None:
    """The sentence says what is there instead."""
    assert refused(tmp_path) == f"{tmp_path} is a folder; name the model file in it"
    absent = tmp_path / "absent.onnx"
    assert refused(absent) == f"there is no file {absent}; make one with `vit-edge export`"
    assert "there is no file" in refused("a\0b.onnx")
    assert refused("a" * 5000).endswith("cannot be read (File name too long); check the path")


def test_a_file_that_may_not_be_read_is_refused_by_its_name(model: Path) -> None:
    """On a device the model often belongs to another user."""
    model.chmod(0)
    try:
        model.read_bytes()
    except PermissionError:
        assert (
            refused(model)
            == f"{model} cannot be read (Permission denied); check its permissions and the disk"
        )
    else:
        pytest.skip("this user may read every file")


@pytest.mark.parametrize("count", [2, 4])
def test_labels_that_are_not_as_many_as_the_outputs_are_refused(count: int) -> None:
    """Answers would be named after the wrong classes, or be missing a name."""
    labels = Labels.of(str(place) for place in range(count))
    model = colour_model(Metadata(labels, METADATA.preprocessing))
    assert refused(model) == f"the model has 3 outputs but {count} labels; export it anew with all labels"


def test_preprocessing_for_another_size_is_refused() -> None:
    """The graph would refuse every image, one by one."""
    for raw in (False, True):
        assert refused(colour_model(side=9, raw=raw)) == (
            "the model takes 9x9 pixels but its preprocessing gives 8x8; export it anew"
        )


def test_a_graph_that_is_no_classifier_of_images_is_refused() -> None:
    """A sealed file can still hold another kind of network."""
    text = refused(colour_model(channels=1))
    assert "is no image classifier: expected one input, (batch, 3, height, width) tensor(float) or " in text
    assert "got ('batch', 1, 8, 8) tensor(float) and 1 outputs" in text
    # Nor do bytes make a camera's picture of four channels.
    assert "got ('batch', 8, 8, 4) tensor(uint8) and 1 outputs" in refused(colour_model(raw=True, channels=4))


def test_a_file_for_a_newer_onnx_runtime_is_refused_with_the_way_out() -> None:
    """Devices keep their old ONNX Runtime while the workshop updates its own."""
    text = refused(colour_model(opset=99))
    assert "cannot run the model" in text
    assert "update onnxruntime, or make the file anew with `vit-edge export`" in text


def test_what_is_sealed_but_no_onnx_is_refused() -> None:
    """The seal says that the bytes are whole, not what they are."""
    assert "cannot run the model" in refused(sealed(b"\xff" * 50, {}))


def test_a_model_that_answers_with_no_number_is_an_error() -> None:
    """A half-precision file can overflow on a bright image, and NaN would be reported as a probability."""
    overflowing = Classifier(sealed(colour_graph(gain=float("inf")), METADATA.to_properties()), threads=1)
    with pytest.raises(ModelError, match="the model answered with infinite values or NaN; "):
        overflowing(flat_colour("red"))


def measured(**recipe: Any) -> bytes:
    """Make an INT8 file whose recipe says where it was measured; by default on this very machine."""
    here = {
        "precision": "int8",
        "target": "cpu",
        "provider": "CPUExecutionProvider",
        "processor": processor(),
    }
    return colour_model(replace(METADATA, recipe=here | recipe))


def absent_features() -> list[str]:
    """Give the features that this machine lacks; no processor has those of all kinds."""
    return [feature for feature in INT8_FEATURES if feature not in processor().get("features", ())]


def test_a_file_that_was_measured_here_has_no_notes(caplog: pytest.LogCaptureFixture) -> None:
    """A note that always comes is not read when it matters."""
    for model in (measured(), colour_model(), measured(processor={}), measured(processor="fast")):
        assert Classifier(model).notes == ()
    assert caplog.records == []


@pytest.mark.skipif(
    "features" not in processor(), reason="needs a system that tells its processor's features"
)
def test_a_file_that_was_measured_on_another_processor_says_so_once(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """The same INT8 file can answer otherwise on another processor; a server with many workers logs it once."""
    path = tmp_path / "colours.onnx"
    other = processor() | {"features": absent_features(), "name": "another"}
    path.write_bytes(measured(processor=other))
    for _ in range(3):
        (sentence,) = Classifier(path).notes
    assert sentence.startswith(f"{path} was measured on a processor with ")
    assert any(feature in sentence for feature in absent_features())
    assert "check it with `vit-edge check`" in sentence
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, sentence)
    ]
    # Another file is another matter.
    path.write_bytes(measured(processor=other, steps=["Trace"]))
    assert Classifier(path).notes == (sentence,)
    assert len(caplog.records) == 2


def test_a_file_that_was_measured_on_another_provider_says_so() -> None:
    """A recipe belongs to a provider: one provider's fast graph is slow, or wrong, on another."""
    made_elsewhere = measured(provider="OpenVINOExecutionProvider", precision="float32")
    (sentence,) = Classifier(made_elsewhere, "cpu").notes
    assert sentence == (
        "the model was measured on OpenVINOExecutionProvider and runs on CPUExecutionProvider here: answers and "
        "speed may differ; check it with `vit-edge check`, or choose the provider that it was made for"
    )


def test_probabilities_and_the_best_of_them_are_the_prediction() -> None:
    """A loop that prepares one frame while it answers another needs the steps one by one."""
    classifier = Classifier(colour_model())
    picture = flat_colour("green")
    rows = classifier.probabilities(classifier.pixels(picture)[None])
    assert rows.shape == (1, 3)
    assert rows.sum() == pytest.approx(1)
    assert classifier.best(rows[0], 2) == classifier(picture, top=2).top

"""Makes capsules for the small model files of these tests, as a workshop would."""

import cv2
import numpy as np
from numpy.typing import NDArray

from vit_edge.runtime import Classifier
from vit_edge.runtime.capsule import KEY, Capsule, Picture, Print, resize_chart
from vit_edge.runtime.drift import relative_drift
from vit_edge.runtime.image import read_image
from vit_edge.runtime.preprocess import crop_pixels

from .onnx_writer import LABELS, METADATA, colour_model, flat_colour

COLOURS = tuple(label.name for label in LABELS.items)


def jpeg(name: str) -> bytes:
    """Give a picture of mostly one colour, with edges and shades in it for a decoder to work on."""
    random = np.random.default_rng(COLOURS.index(name))
    picture = flat_colour(name, height=60, width=90).astype(np.float32)
    shades = cv2.resize(
        random.random((6, 9, 3)).astype(np.float32), (90, 60), interpolation=cv2.INTER_NEAREST
    )
    done, data = cv2.imencode(".jpg", (picture * (0.4 + 0.6 * shades)).astype(np.uint8)[..., ::-1])
    assert done
    return data.tobytes()


def capsule_for(model: bytes | None = None, *, noise: float = 0.0) -> Capsule:
    """Make a capsule whose reference answers are a model's own, moved by *noise* in the first class."""
    model = colour_model() if model is None else model
    with Classifier(model) as classifier:
        rows, pictures = [], []
        for name in COLOURS:
            pixels = read_image(jpeg(name))
            own = classifier.logits(classifier.pixels(pixels)[None])[0]
            moved = own + np.array([noise, 0, 0], np.float32)
            rows.append((moved, own))
            crop = crop_pixels(pixels, classifier.preprocessing)
            pictures.append(Picture(name, jpeg(name), Print.of(pixels), crop, moved))
        reference, answers = (np.stack(column) for column in zip(*rows, strict=True))
        return Capsule(
            reference="torch float32",
            set="made by code",
            provider="CPUExecutionProvider",
            drift=float(relative_drift(reference, answers).mean()),
            max_abs_drift=float(np.abs(reference - answers).max()),
            chart=Print.of(crop_pixels(resize_chart(), classifier.preprocessing)),
            pictures=tuple(pictures),
        )


def with_capsule(capsule: Capsule | None = None) -> bytes:
    """Make a sealed model file with a capsule in it."""
    text = (capsule or capsule_for(noise=0.02)).to_text()
    return colour_model(METADATA, changed={KEY: text})


def levels(pixels: NDArray[np.uint8], *, share: float, by: int, seed: int = 0) -> NDArray[np.uint8]:
    """Move a share of the values up or down by so many levels."""
    random = np.random.default_rng(seed)
    moved = random.random(pixels.shape) < share
    signs = np.where(random.random(pixels.shape) < 0.5, -by, by)
    return np.clip(pixels + moved * signs, 0, 255).astype(np.uint8)

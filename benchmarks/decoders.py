"""Measures how far other decoders of JPEG are from OpenCV's: the table in docs/verify.md, and the verdicts of verify.

``python benchmarks/decoders.py MODEL.onnx [PHOTO.jpg ...]`` with ``djpeg`` of libjpeg-turbo installed (Debian:
``libjpeg-turbo-progs``): on the pictures in the model's capsule, and on photos.
"""

import argparse
import subprocess
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
from numpy.typing import NDArray

from vit_edge.runtime.capsule import Capsule, Difference, read_capsule
from vit_edge.runtime.classifier import Classifier
from vit_edge.runtime.image import read_image
from vit_edge.runtime.replay import Replay, replay

DECODERS = (
    ("-dct", "int"),
    ("-dct", "float"),
    ("-dct", "fast"),
    ("-nosmooth",),
    ("-dct", "fast", "-nosmooth"),
)

_decode = cv2.imdecode


def main() -> None:
    """Print a row for each decoder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("photos", type=Path, nargs="*")
    arguments = parser.parse_args()
    capsule = read_capsule(arguments.model, str(arguments.model))
    if capsule is None:
        parser.error(f"{arguments.model} carries no capsule")
    jpegs = [picture.jpeg for picture in capsule.pictures]
    jpegs += [path.read_bytes() for path in arguments.photos]
    print(f"{'djpeg':<22} {'differ':>16} {'mean':>14} {'at most':>8}  verify")
    for options in DECODERS:
        found = [Difference.of(read_image(jpeg), djpeg(jpeg, options)) for jpeg in jpegs]
        shares, means = [100 * one.share for one in found], [one.mean for one in found]
        differ = f"{min(shares):5.1f} to {max(shares):5.1f} %"
        mean = f"{min(means):5.2f} to {max(means):5.2f}"
        told = verdict(arguments.model, capsule, options)
        print(f"{' '.join(options):<22} {differ} {mean} {max(one.largest for one in found):>8}  {told}")


def djpeg(jpeg: bytes, options: Sequence[str]) -> NDArray[np.uint8]:
    """Decode a JPEG: (height, width, 3) uint8, RGB."""
    ppm = subprocess.run(["djpeg", "-ppm", *options], input=jpeg, capture_output=True, check=True).stdout
    return np.asarray(
        cv2.cvtColor(_decode(np.frombuffer(ppm, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    )


def verdict(model: Path, capsule: Capsule, options: Sequence[str]) -> str:
    """Replay the capsule with a decoder in the place of OpenCV's."""

    def imdecode(data: NDArray[np.uint8], flags: int) -> NDArray[np.uint8]:
        if data[:2].tobytes() != b"\xff\xd8":
            return np.asarray(_decode(data, flags))
        return np.asarray(cv2.cvtColor(djpeg(data.tobytes(), options), cv2.COLOR_RGB2BGR))

    with Classifier(model, "cpu") as classifier, patch.object(cv2, "imdecode", imdecode):
        *_, found = replay(classifier, capsule)
    assert isinstance(found, Replay)
    stages = found.to_dict()["stages"]
    return f"{found.fault or 'passes'}, drift from file to answer {stages['whole']['drift']:.4f}"


if __name__ == "__main__":
    main()

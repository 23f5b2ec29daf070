"""Measures preprocessing against Pillow: resize and decode times, and the answers of a real ViT that change.

With the ``dev`` extra installed: ``python benchmarks/preprocess.py --shared DIR``, where DIR holds
``models/vit_tiny_patch16_224.safetensors`` and ``data/calibration250/*.JPEG``.
"""

import argparse
import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file

from vit_edge.cli.progress import progress
from vit_edge.runtime.image import read_image
from vit_edge.runtime.preprocess import Preprocessing, crop_pixels, normalise

Pixels = NDArray[np.uint8]

PREPROCESSING = Preprocessing.parse("resize=248,crop=224,interpolation=bicubic,mean=0.5,std=0.5")
"""What the weights were trained with."""


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--shared", type=Path, default=Path("../shared"), help="the folder with models and data"
    )
    parser.add_argument("--rounds", type=int, default=100, help="how often each function is timed")
    options = parser.parse_args()
    paths = sorted((options.shared / "data" / "calibration250").glob("*.JPEG"))
    weights = options.shared / "models" / "vit_tiny_patch16_224.safetensors"
    if not paths or not weights.is_file():
        parser.error(f"{options.shared} lacks the images or the model; name their folder with --shared")
    frame = camera_frame(paths)
    print_resize(frame, options.rounds)
    print_decode(frame, options.rounds)
    print_changed_answers(paths, weights)


def camera_frame(paths: list[Path]) -> Pixels:
    """Make a 1280 x 720 frame with real content: (720, 1280, 3) uint8 RGB."""
    largest = max((read_image(path) for path in paths), key=lambda image: image.size)
    return np.asarray(cv2.resize(largest, (1280, 720), interpolation=cv2.INTER_CUBIC), np.uint8)


def print_resize(frame: Pixels, rounds: int) -> None:
    """Time a 1280 x 720 frame's way to 224 x 224 pixels and to the network's input."""
    image = Image.fromarray(frame)
    crop = crop_pixels(frame, PREPROCESSING)
    mean, std = np.array(PREPROCESSING.mean, np.float32), np.array(PREPROCESSING.std, np.float32)
    times = interleaved(
        {
            "Pillow resize to 441 x 248": lambda: image.resize((441, 248), Image.Resampling.BICUBIC),
            "ours, resize and crop to 224": lambda: crop_pixels(frame, PREPROCESSING),
            "textbook normalise": lambda: (
                ((crop.astype(np.float32) / 255 - mean) / std).transpose(2, 0, 1).copy()
            ),
            "ours, normalise": lambda: normalise(crop, PREPROCESSING),
        },
        rounds,
    )
    table("a 1280 x 720 frame", times)
    pillow, ours = list(times.values())[:2]
    print(f"{'ours / Pillow':36} {ours / pillow:8.2f}")


def print_decode(frame: Pixels, rounds: int) -> None:
    """Time the decoding of a 1280 x 720 JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=90)
    data = buffer.getvalue()
    times = {
        "Pillow decode": lambda: Image.open(io.BytesIO(data)).convert("RGB"),
        "ours, read_image": lambda: read_image(data),
    }
    table(f"a 1280 x 720 JPEG of {len(data) // 1000} kB", interleaved(times, rounds))


def print_changed_answers(paths: list[Path], weights: Path) -> None:
    """Count the images whose top-1 answer is another than after Pillow's decoding and resizing."""
    model = timm.create_model("vit_tiny_patch16_224")
    model.load_state_dict(load_file(weights))
    model.eval()
    ways: dict[str, Callable[[Path], Pixels]] = {
        "ours": lambda path: crop_pixels(read_image(path), PREPROCESSING),
        "our decode, Pillow resize": lambda path: pillow_crop(Image.fromarray(read_image(path))),
        "cv2 INTER_AREA": lambda path: cv2_crop(read_image(path), cv2.INTER_AREA),
        "cv2 INTER_LINEAR": lambda path: cv2_crop(read_image(path), cv2.INTER_LINEAR),
        "cv2 INTER_CUBIC": lambda path: cv2_crop(read_image(path), cv2.INTER_CUBIC),
        "cv2 INTER_LANCZOS4": lambda path: cv2_crop(read_image(path), cv2.INTER_LANCZOS4),
    }
    same_bytes = dict.fromkeys(ways, 0)
    changed = dict.fromkeys(ways, 0)
    drift = dict.fromkeys(ways, 0.0)
    with progress("comparing", total=len(paths), unit="images") as advance:
        for path in paths:
            with Image.open(path) as image:
                reference = pillow_crop(image.convert("RGB"))
            crops = {name: way(path) for name, way in ways.items()}
            expected, *others = logits(model, [reference, *crops.values()])
            for (name, crop), got in zip(crops.items(), others, strict=True):
                same_bytes[name] += int(np.array_equal(crop, reference))
                changed[name] += int(got.argmax() != expected.argmax())
                drift[name] = max(drift[name], float((got - expected).abs().max()))
            advance()
    title = f"{len(paths)} images against Pillow"
    print(f"\n{title:36} {'same bytes':>10} {'top-1 changed':>14} {'logit drift':>12}")
    for name in ways:
        share = changed[name] / len(paths)
        print(f"{name:36} {same_bytes[name]:10} {changed[name]:6} {share:6.1%} {drift[name]:12.3f}")


def logits(model: torch.nn.Module, crops: list[Pixels]) -> torch.Tensor:
    """Run the network: (images, classes)."""
    pixels = np.stack([normalise(crop, PREPROCESSING) for crop in crops])
    with torch.inference_mode():
        result: torch.Tensor = model(torch.from_numpy(pixels))
    return result


def pillow_crop(image: Image.Image) -> Pixels:
    """Resize the short side to 248 and crop 224, as torchvision does with Pillow."""
    width, height = resized_size(*image.size)
    left, top = round((width - 224) / 2), round((height - 224) / 2)
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized.crop((left, top, left + 224, top + 224)))


def cv2_crop(image: Pixels, mode: int) -> Pixels:
    """Do the same with one of OpenCV's own modes."""
    width, height = resized_size(image.shape[1], image.shape[0])
    left, top = round((width - 224) / 2), round((height - 224) / 2)
    resized = cv2.resize(image, (width, height), interpolation=mode)
    return np.asarray(resized[top : top + 224, left : left + 224], np.uint8)


def resized_size(width: int, height: int) -> tuple[int, int]:
    """Give the width and height at which the short side is 248."""
    short = min(width, height)
    return int(248 * width / short), int(248 * height / short)


def interleaved(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Time functions in turn, so that a busy machine slows all alike; give medians in milliseconds."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(rounds + 5):  # the first five warm up
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if turn >= 5:
                times[name].append((time.perf_counter() - start) * 1000)
    return {name: statistics.median(values) for name, values in times.items()}


def table(title: str, times: dict[str, float]) -> None:
    """Print medians, one a line."""
    print(f"\n{title:36} {'ms':>8}")
    for name, milliseconds in times.items():
        print(f"{name:36} {milliseconds:8.2f}")


if __name__ == "__main__":
    main()

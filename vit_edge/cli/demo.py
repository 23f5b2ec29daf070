"""``vit-edge demo``: the main job from images to answers, by the very commands that a user would type."""

import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import DataError, OptionError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

# scikit-learn has 1,797 digits; the rest is for training.
_TEST, _CALIBRATE = 300, 200

# Each digit is 8x8; its image is four times as large, so that it can be looked at.
_SIDE = 32

# A pixel of scikit-learn's digits goes from 0 to 16.
_LEVELS = 16

_MARKER = ".vit-edge-demo"


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to make.")] = Path("demo"),
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = 30,
) -> None:
    """Train a small network on real handwritten digits, export it to INT8, check it and run it.

    Takes about two minutes, downloads nothing, and shows every command that it runs.
    """
    started = time.monotonic()
    if epochs < 1:
        raise OptionError(f"expected the number of epochs to be at least 1, got {epochs}")
    images = _load()
    _prepare(output)
    digits, run, model = output / "digits", output / "run", output / "digits.onnx"
    counts = _write(images, digits)
    typer.echo(
        f"{sum(counts.values()):,} handwritten digits from scikit-learn are now images in {digits}: "
        + ", ".join(f"{count:,} to {part}" for part, count in counts.items())
        + "."
    )
    train, calibrate, test = (str(digits / part) for part in ("train", "calibrate", "test"))
    checkpoint = run / "best.safetensors"

    typer.echo("\n1. Train a mini Vision Transformer from scratch. It sees the images at 16x16 pixels.")
    _call(
        "train",
        train,
        "-o",
        run,
        "--image-size",
        16,
        "--epochs",
        epochs,
        "--batch-size",
        32,
        "--augment",
        "shift",
    )
    typer.echo("\n2. Turn it into one INT8 file that carries all that a device needs, checked step by step.")
    _call("export", checkpoint, "-o", model, "--calibrate", calibrate, "--check", test)
    typer.echo("\n3. Compare the file with the network that it came from, on images it was not trained on.")
    _call("check", model, "--against", checkpoint, "--data", test)
    typer.echo("\n4. Classify a few images, as a device would: without torch.")
    _call("classify", model, *(sorted((digits / "test" / name).iterdir())[0] for name in NAMES[::2]))
    typer.echo("\n5. Look at what the file says about itself.")
    _call("info", model)

    typer.echo(
        f"\nDone in {time.monotonic() - started:.0f} s. {output} holds\n"
        f"  {checkpoint}  {_size(checkpoint)}, the network for the workshop\n"
        f"  {model}  {_size(model)}, the file for the device\n"
        "Try next:\n"
        f"  vit-edge classify {_quoted(model)} {_quoted(digits / 'test' / 'seven')} --json\n"
        "  vit-edge train YOUR_IMAGES -o run    (one folder of images per class)\n"
        "  vit-edge --help"
    )


def _load() -> dict[str, list[tuple[str, str, bytes]]]:
    """Give the digits, split with a fixed seed and evenly by class: part -> (class, file name, PNG bytes)."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    rest, test = train_test_split(
        range(len(data.target)), test_size=_TEST, stratify=data.target, random_state=0
    )
    train, calibrate = train_test_split(
        rest, test_size=_CALIBRATE, stratify=data.target[rest], random_state=0
    )
    parts: dict[str, list[tuple[str, str, bytes]]] = {}
    for part, places in (("train", train), ("calibrate", calibrate), ("test", test)):
        parts[part] = []
        for place in sorted(places):
            parts[part].append((NAMES[data.target[place]], f"digit-{place:04}.png", _png(data.images[place])))
    return parts


def _png(digit: "NDArray[np.float64]") -> bytes:
    import cv2

    image = (digit * (255 / _LEVELS)).round().astype("uint8")
    image = cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(".png", image)[1].tobytes()


def _prepare(output: Path) -> None:
    """Make the folder, or clear it of what an earlier demo made there, and of nothing else."""
    marker = output / _MARKER
    try:
        if output.is_dir() and any(output.iterdir()) and not marker.exists():
            raise DataError(f"{output} exists and was not made by the demo; choose another folder with -o")
        output.mkdir(parents=True, exist_ok=True)
        marker.write_text(
            "`vit-edge demo` made this folder and may replace digits, run and digits.onnx in it.\n"
        )
        for folder in ("digits", "run"):
            if (output / folder).exists():
                shutil.rmtree(output / folder)
        (output / "digits.onnx").unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"cannot write to {output}: {error.strerror}; choose another folder with -o"
        ) from error


def _write(images: dict[str, list[tuple[str, str, bytes]]], digits: Path) -> dict[str, int]:
    try:
        for part, files in images.items():
            for name in NAMES:
                (digits / part / name).mkdir(parents=True)
            for name, file, png in files:
                (digits / part / name / file).write_bytes(png)
    except OSError as error:
        raise DataError(f"cannot write the images to {digits}: {error.strerror}; check the disk") from error
    return {part: len(files) for part, files in images.items()}


def _call(*arguments: object) -> None:
    """Show a command, then run it in a process of its own, as a user would; stop the demo where it fails."""
    words = [str(argument) for argument in arguments]
    typer.echo(f"$ vit-edge {shlex.join(words)}")
    sys.stdout.flush()  # before the child writes to the same place
    # torch's threads spin while they wait; where anything else runs, that makes so small a network ten times slower.
    patient = {"OMP_WAIT_POLICY": "passive"} | os.environ
    status = subprocess.run([sys.executable, "-m", "vit_edge", *words], env=patient, check=False).returncode
    if status:
        typer.echo(
            f"error: `vit-edge {words[0]}` failed, so the demo stops here; its message is above", err=True
        )
        # A child that a signal ended has a negative status; a shell would say 128 + the signal.
        raise typer.Exit(status if status > 0 else 128 - status)


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))

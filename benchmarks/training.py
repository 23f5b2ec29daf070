"""Measures how many images a second ``vit-edge train`` learns from, against a plain loop of timm and torchvision.

With the ``dev`` extra installed: ``python benchmarks/training.py --shared DIR``, where DIR holds
what ``benchmarks/cifar.py`` names, and images of ImageNet. Both train the same network on the same images with the same
changes, each in a process of its own and in turn: the mini ViT from scratch on images of CIFAR-10, and the ViT-Tiny,
fine-tuned at 224 pixels. The first epoch of each process warms up and is not counted.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cifar import unpack

from vit_edge.cli.progress import progress
from vit_edge.training import METRICS

WANTED = 1.0

# Of ImageNet: a few passes over them take minutes.
PHOTOS = 400

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Print both paces, and their ratio, for both networks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="the folder of model and data")
    parser.add_argument("--images", type=int, default=400, help="images per class of CIFAR-10")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of each process, two at least")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cifar = unpack(options.shared, folder, per_class=options.images)
        tiny = ["--from", str(options.shared / "models" / "vit_tiny_patch16_224.safetensors")]
        photos = folder / "photos"
        imagenet(options.shared, photos)
        print(f"{'':34} {'vit-edge':>9} {'plain':>9}  ratio  wanted {WANTED:.2f}")
        compare("mini ViT from scratch, 32 px", cifar / "train", [], 64, options.epochs, options.rounds)
        compare("ViT-Tiny fine-tuned, 224 px", photos, tiny, 16, options.epochs, options.rounds)


def imagenet(shared: Path, folder: Path) -> None:
    """Copy photographs into a folder per class; for the pace, any ten classes will do."""
    paths = sorted((shared / "data" / "imagenet_val800").glob("*/*.JPEG"))
    if not paths:
        sys.exit(f"{shared} lacks the images; name their folder with --shared")
    for place, path in enumerate(paths[:PHOTOS]):
        group = folder / str(place % 10)
        group.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, group / path.name)


def compare(name: str, data: Path, start: Sequence[str], batch_size: int, epochs: int, rounds: int) -> None:
    """Let both train in turn, and print a row."""
    ours, plain = [], []
    with progress(name, total=2 * rounds, unit="runs") as advance:
        for _ in range(rounds):
            ours.append(our_pace(data, start, batch_size, epochs))
            advance(1)
            plain.append(plain_pace(data, start, batch_size, epochs))
            advance(1)
    ratio = statistics.median(one / other for one, other in zip(ours, plain, strict=True))
    print(
        f"{name:34} {statistics.median(ours):9.1f} {statistics.median(plain):9.1f} {ratio:6.2f}  images/s",
        flush=True,
    )


def our_pace(data: Path, start: Sequence[str], batch_size: int, epochs: int) -> float:
    """Give the images per second of the command."""
    with tempfile.TemporaryDirectory() as name:
        run = Path(name) / "run"
        # What is told while training, of which one is enough to validate on, is not timed.
        own = [*start, "--mean", "0.5", "--std", "0.5"] if start else []
        command = [
            sys.executable,
            "-m",
            "vit_edge",
            "train",
            str(data),
            "-o",
            str(run),
            *own,
            "--flip",
            "--quiet",
        ]
        called(*command, "--epochs", str(epochs), "--batch-size", str(batch_size))
        lines = (run / METRICS).read_text(encoding="utf-8").splitlines()
    paces: list[float] = [json.loads(line)["images_per_second"] for line in lines[1:]]
    return statistics.median(paces)


def plain_pace(data: Path, start: Sequence[str], batch_size: int, epochs: int) -> float:
    """Give the images per second of the plain loop."""
    script = str(Path(__file__).with_name("plain_training.py"))
    sizes = ["--epochs", str(epochs), "--batch-size", str(batch_size)]
    paces: list[float] = json.loads(called(sys.executable, script, str(data), *start, *sizes))
    return statistics.median(paces[1:])


def called(*command: str) -> str:
    """Run a command, and give what it printed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout

"""Measures how many images a second ``vit-edge train`` learns from, against a plain loop of timm and torchvision.

With the ``dev`` extra installed: ``python benchmarks/training.py --shared DIR``, where DIR holds
what ``benchmarks/cifar.py`` names, and images of ImageNet. Both train the same network on the same images with the same
changes, each in a process of its own and in turn: the mini ViT from scratch on images of CIFAR-10, and the ViT-Tiny,
fine-tuned at 224 pixels. The first epoch of each process warms up and is not counted.
"""

import argparse
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cifar import unpack

from vit_edge.cli.progress import progress
from vit_edge.training import METRICS

WANTED = 1.0

# Of ImageNet: a few passes over them take minutes.
PHOTOS = 200

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Job:
    """What both train: images, a checkpoint to start from or none, images per step, and float32 or bf16.

    Only vit-edge validates, on other images, which does not count.
    """

    data: Path
    val: Path
    start: Path | None
    batch_size: int
    precision: str

    def options(self, epochs: int) -> list[str]:
        """Give the arguments that both understand."""
        start = [] if self.start is None else ["--from", str(self.start)]
        sizes = ["--epochs", str(epochs), "--batch-size", str(self.batch_size)]
        return [str(self.data), *start, *sizes, "--precision", self.precision]


def main() -> None:
    """Print both paces, and their ratio, for both networks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="the folder of model and data")
    parser.add_argument("--images", type=int, default=200, help="images per class of CIFAR-10")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of each process, two at least")
    parser.add_argument("--precision", default="float32,bf16", help="bf16 where the processor has it")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cifar = unpack(options.shared, folder, per_class=options.images)
        tiny = options.shared / "models" / "vit_tiny_patch16_224.safetensors"
        photos = folder / "photos"
        imagenet(options.shared, photos)
        train, test = cifar / "train", cifar / "test"
        print(f"{'':38} {'vit-edge':>9} {'plain':>9}  ratio  wanted {WANTED:.2f}")
        for precision in options.precision.split(","):
            for name, job in (
                ("mini ViT from scratch, 32 px", Job(train, test, None, 64, precision)),
                ("ViT-Tiny fine-tuned, 224 px", Job(photos / "train", photos / "val", tiny, 16, precision)),
            ):
                compare(f"{name}, {precision}", job, options.epochs, options.rounds)


def imagenet(shared: Path, folder: Path) -> None:
    """Copy photographs to train and to validate on into a folder per class; for the pace, any ten classes will do."""
    paths = sorted((shared / "data" / "imagenet_val800").glob("*/*.JPEG"))
    if not paths:
        sys.exit(f"{shared} lacks the images; name their folder with --shared")
    for part, chosen in (("train", paths[:PHOTOS]), ("val", paths[PHOTOS : PHOTOS + PHOTOS // 10])):
        for place, path in enumerate(chosen):
            group = folder / part / str(place % 10)
            group.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, group / path.name)


def compare(name: str, job: Job, epochs: int, rounds: int) -> None:
    """Let both train in turn, and print a row."""
    ours, plain = [], []
    with progress(name, total=2 * rounds, unit="runs") as advance:
        for _ in range(rounds):
            ours.append(our_pace(job, epochs))
            advance(1)
            plain.append(plain_pace(job, epochs))
            advance(1)
    ratio = statistics.median(one / other for one, other in zip(ours, plain, strict=True))
    one, other = statistics.median(ours), statistics.median(plain)
    print(f"{name:38} {one:9.1f} {other:9.1f} {ratio:6.2f}  images/s", flush=True)


def our_pace(job: Job, epochs: int) -> float:
    """Give the images per second of the command."""
    with tempfile.TemporaryDirectory() as name:
        run = Path(name) / "run"
        values = ["--mean", "0.5", "--std", "0.5"] if job.start else []
        own = ["--val", str(job.val), *values, "-o", str(run), "--flip", "--quiet"]
        called("-m", "vit_edge", "train", *job.options(epochs), *own)
        lines = (run / METRICS).read_text(encoding="utf-8").splitlines()
    paces: list[float] = [json.loads(line)["images_per_second"] for line in lines[1:]]
    return statistics.median(paces)


def plain_pace(job: Job, epochs: int) -> float:
    """Give the images per second of the plain loop."""
    script = str(Path(__file__).with_name("plain_training.py"))
    paces: list[float] = json.loads(called(script, *job.options(epochs)))
    return statistics.median(paces[1:])


def called(*arguments: str) -> str:
    """Run Python, and give what it printed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{shlex.join(command)} failed:\n{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()

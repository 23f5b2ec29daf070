"""Trains on CIFAR-10 with the commands a user would give, exports what was trained to INT8, and tells what came of it.

With the ``dev`` extra installed: ``python benchmarks/cifar.py --shared DIR --output RUNS``, where DIR holds
``data/cifar10_jpeg.tar.gz`` (``train/`` and ``test/`` with a folder per class) and
``models/vit_tiny_patch16_224.safetensors``, a ViT-Tiny of ImageNet. A part of the training images chooses the best
epoch; the 10,000 test images are seen once, at the end. The parts, in an order that lets later ones use earlier ones:

``scratch``: the mini ViT, about half an hour on two cores.
``frozen``: a linear probe of the ViT-Tiny at 224 pixels.
``tuned``: the ViT-Tiny with all its weights, at 96 pixels, where a step costs a fifth.
``qat``: static INT8 files of a linear probe at 96 pixels, which they hurt, of the same checkpoint after an epoch of
quantization-aware training, and of the same after that epoch without quantizers.
``distillation``: the mini ViT on 500 images per class, for the same time with a teacher, the ViT-Tiny fine-tuned on the
same images, and without one.
"""

import argparse
import json
import math
import os
import shlex
import statistics
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vit_edge.training import BEST, METRICS

ROOT = Path(__file__).parents[1]

PARTS = ("scratch", "frozen", "tuned", "qat", "distillation")

# A share of the training images chooses the best epoch; CIFAR's images may be mirrored.
USUAL = "--val-share 0.04 --flip"

# Half an hour is short: what keeps a long run from learning by heart would only slow this one down.
SCRATCH = f"{USUAL} --augment shift --mixup 0 --drop-path 0 --batch-size 128 --lr 0.002 --epochs 28"
FROZEN = "--val-share 0.04 --freeze --augment none --epochs 30 --batch-size 256"
TUNED = f"{USUAL} --image-size 96 --epochs 4 --batch-size 64 --lr 0.0003"
PROBE = f"{FROZEN} --image-size 96"
# In float32, since bf16 rounds about as coarsely as the grids that are trained on.
ON = f"{USUAL} --epochs 1 --batch-size 64 --lr 0.0003"
QAT = f"{ON} --qat --target tensorrt"
STATIC = "--target tensorrt --min-agreement 0 --max-drift 100"

FEW = 500
TEACHER = f"{USUAL} --image-size 64 --epochs 6 --batch-size 32"
STUDENT = f"{USUAL} --epochs {{epochs}}"
TAUGHT = 30


def main() -> None:
    """Run the parts one by one, and print a line for each result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="the folder of model and data")
    parser.add_argument("--output", type=Path, required=True, help="where images and runs are kept")
    parser.add_argument("--parts", default=",".join(PARTS), help="what is run, of " + ", ".join(PARTS))
    parser.add_argument("--precision", default="float32", help="bf16 where the processor has it")
    options = parser.parse_args()
    parts = options.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"expected parts of {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
    options.output.mkdir(parents=True, exist_ok=True)
    bench = Bench(
        shared=options.shared,
        images=unpack(options.shared, options.output),
        runs=options.output,
        precision=options.precision,
    )
    for part in parts:
        getattr(bench, part)()


def unpack(shared: Path, folder: Path, *, per_class: int | None = None) -> Path:
    """Unpack CIFAR-10 into a folder, unless it is there; of each class all images, or only so many."""
    images = folder / "cifar10"
    if not images.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        archive = shared / "data" / "cifar10_jpeg.tar.gz"
        if not archive.is_file():
            sys.exit(f"{archive} is not there; name its folder with --shared")
        partial = folder / "cifar10.partial"
        counts: dict[str, int] = {}
        with tarfile.open(archive) as file:
            for member in file:
                group = str(Path(member.name).parent)
                counts[group] = counts.get(group, 0) + 1
                if per_class is None or counts[group] <= per_class:
                    file.extract(member, partial, filter="data")
        partial.rename(images)
    return images


@dataclass(frozen=True)
class Bench:
    """The parts, each of which trains, exports and checks.

    Attributes:
        shared: The folder of model and data.
        images: The folder of ``train`` and ``test``.
        runs: Where runs and files are kept.
        precision: Of training.
    """

    shared: Path
    images: Path
    runs: Path
    precision: str

    def scratch(self) -> None:
        """Train the mini ViT from random weights."""
        self.train("scratch", SCRATCH)
        self.export("scratch", "scratch")

    def frozen(self) -> None:
        """Train a new head on the ViT-Tiny's features."""
        self.train("frozen", FROZEN, *self.from_tiny())
        self.export("frozen", "frozen")

    def tuned(self) -> None:
        """Fine-tune all weights of the ViT-Tiny."""
        self.train("tuned", TUNED, *self.from_tiny())
        self.export("tuned", "tuned")

    def qat(self) -> None:
        """Compare a static file with those of the same checkpoint after more training, with quantizers and without."""
        self.train("probe", PROBE, *self.from_tiny())
        probe = ("--from", str(self.checkpoint("probe")))
        self.train("qat", QAT, *probe, precision="float32")
        self.train("plain", ON, *probe, precision="float32")
        for name in ("probe", "qat", "plain"):
            self.export(name, f"{name}-static", STATIC)

    def distillation(self) -> None:
        """Compare a student with and without a teacher, on few images and for the same time."""
        few = unpack(self.shared, self.runs / "few", per_class=FEW) / "train"
        self.train("teacher", TEACHER, *self.from_tiny(), images=few)
        teacher = ("--teacher", str(self.checkpoint("teacher")))
        taught = self.train("taught", STUDENT.format(epochs=TAUGHT), *teacher, images=few)
        # A few epochs tell the pace of the plain run, which is given no less time than the other took.
        alone = self.train("pace", STUDENT.format(epochs=3), images=few)
        self.train("alone", STUDENT.format(epochs=math.ceil(TAUGHT * alone / taught)), images=few)
        for name in ("taught", "alone"):
            self.export(name, name)

    def from_tiny(self) -> tuple[str, ...]:
        """Give the options that start from the ViT-Tiny, whose file says nothing of itself."""
        tiny = self.shared / "models" / "vit_tiny_patch16_224.safetensors"
        return ("--from", str(tiny), "--mean", "0.5", "--std", "0.5")

    def checkpoint(self, name: str) -> Path:
        """Give the best checkpoint of a run."""
        return self.runs / name / BEST

    def train(
        self,
        name: str,
        options: str,
        *more: str,
        images: Path | None = None,
        precision: str | None = None,
    ) -> float:
        """Train, on all images and in the usual precision unless told otherwise, and give the images per second."""
        run = self.runs / name
        started = time.monotonic()
        called(
            *("train", str(images or self.images / "train"), "-o", str(run), "--force"),
            *(*shlex.split(options), *more, "--precision", precision or self.precision),
        )
        minutes = (time.monotonic() - started) / 60
        epochs = [json.loads(line) for line in (run / METRICS).read_text(encoding="utf-8").splitlines()]
        best = max(epoch["val_accuracy"] for epoch in epochs)
        pace: float = statistics.harmonic_mean([epoch["images_per_second"] for epoch in epochs])
        print(
            f"{name}: {len(epochs)} epochs in {minutes:.1f} min, {pace:.0f} images/s, "
            f"{100 * best:.2f} % of the validation images right",
            flush=True,
        )
        return pace

    def export(self, run: str, name: str, options: str = "") -> None:
        """Export a run's best checkpoint to INT8, and print what both answer on the test images."""
        file = self.runs / f"{name}.onnx"
        checkpoint = str(self.checkpoint(run))
        called(
            *("export", checkpoint, "-o", str(file), "--force", "--precision", "int8"),
            *("--calibrate", str(self.images / "train"), *shlex.split(options)),
        )
        told = called(
            *("check", str(file), "--against", checkpoint, "--data", str(self.images / "test")),
            *("--min-agreement", "0", "--max-drift", "100", "--max-drop", "100", "--json"),
        )
        found: dict[str, Any] = json.loads(told)
        low, high = found["drop_interval"]
        torch, int8, agreement = (100 * found[key] for key in ("reference_top1", "model_top1", "agreement"))
        print(
            f"{name}: of {found['images']} test images torch answers {torch:.2f} % right, INT8 {int8:.2f} %: a drop of "
            f"{found['drop']:.2f} points ({low:.2f}..{high:.2f}); agreement {agreement:.2f} %, drift "
            f"{found['drift']:.4f}, {file.stat().st_size / 1e6:.2f} MB",
            flush=True,
        )


def called(*arguments: str) -> str:
    """Run a command of ours, and give what it printed."""
    print("$ vit-edge", shlex.join(arguments), flush=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "vit_edge", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


if __name__ == "__main__":
    main()

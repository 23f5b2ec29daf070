"""Measures the start: importing the runtime, and the way from a new process to its first answer.

It races torch, and ONNX Runtime and OpenCV used by hand, which do no more than they must: their resize is OpenCV's own,
whose answers differ, and nothing is checked. The memory at the end of the first answer is compared as well.

With the ``export`` extra installed: ``python benchmarks/startup.py MODEL CHECKPOINT IMAGE``, where MODEL is what
``vit-edge export`` made of CHECKPOINT, a ``vit_tiny_patch16_224`` as safetensors. Every measurement is a process of
its own; the ways take turns, so that a busy machine slows all alike. The modules are compiled beforehand, as pip does
at the installation.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from vit_edge.cli.progress import progress

IMPORT_TARGET_S = 0.3
TORCH_TARGET = 0.25
HAND_TARGET = 1.15
MEMORY_TARGET = 1.15

# Whatever else the machine does only ever adds time: of all starts the ratios are those of the fastest fifth.
_QUANTILE = 0.2

# Each script prints one line of JSON as soon as it has its answer; what a process does at its end is not measured.
_IMPORT = """
import json, time
start = time.perf_counter()
{statement}
print(json.dumps({{"seconds": time.perf_counter() - start}}))
"""

_OURS = """
import sys
from vit_edge.runtime import Classifier
answer = Classifier(sys.argv[1])(sys.argv[3]).index
"""

_HAND = """
import sys
import cv2
import numpy as np
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
source = session.get_inputs()[0]
image = cv2.cvtColor(cv2.imread(sys.argv[3]), cv2.COLOR_BGR2RGB)
height, width = image.shape[:2]
short = min(height, width)
size = int(248 * width / short), int(248 * height / short)
image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
left, top = (size[0] - 224) // 2, (size[1] - 224) // 2
pixels = np.ascontiguousarray(image[top : top + 224, left : left + 224])
if source.type == "tensor(float)":
    pixels = np.ascontiguousarray(((pixels.astype(np.float32) / 255 - 0.5) / 0.5).transpose(2, 0, 1))
logits = session.run(None, {source.name: pixels[None]})[0][0]
exponents = np.exp(logits - logits.max())
probabilities = exponents / exponents.sum()
answer = int(probabilities.argmax())
"""

# What a short script does, and no slower than it must: no random weights are drawn only to be replaced, and neither
# torchvision nor a model library is imported.
_TORCH = """
import sys
import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from vit_edge.models import ViT, named
with torch.device("meta"):
    model = ViT(named("vit_tiny_patch16_224", classes=1000))
model.load_state_dict(load_file(sys.argv[2]), assign=True)
model.eval()
image = Image.open(sys.argv[3]).convert("RGB")
width, height = image.size
short = min(width, height)
width, height = int(248 * width / short), int(248 * height / short)
left, top = round((width - 224) / 2), round((height - 224) / 2)
image = image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + 224, top + 224))
pixels = (np.asarray(image, np.float32) / 255 - 0.5) / 0.5
with torch.inference_mode():
    answer = model(torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None]).argmax().item()
"""

# The peak of this process alone: what getrusage tells includes the process that started it.
_REPORT = """
import json, pathlib
status = pathlib.Path("/proc/self/status")
lines = status.read_text().splitlines() if status.exists() else []
peak = [line.split()[1] for line in lines if line.startswith("VmHWM")]
print(json.dumps({"answer": answer, "peak_mb": int(peak[0]) / 1024 if peak else None}), flush=True)
"""


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="the .onnx file")
    parser.add_argument("checkpoint", type=Path, help="the .safetensors file that it was made from")
    parser.add_argument("image", type=Path, help="an image to classify")
    parser.add_argument("--rounds", type=int, default=11, help="processes of each kind")
    options = parser.parse_args()
    files = [options.model, options.checkpoint, options.image]
    if absent := [path for path in files if not path.is_file()]:
        parser.error(f"there is no file {absent[0]}")
    if options.rounds < 1:
        parser.error("expected at least 1 round")
    print_imports(options.rounds)
    print_answers(files, options.rounds)


def print_imports(rounds: int) -> None:
    """Time the imports, as the process that imports sees them."""
    scripts = {
        statement: _IMPORT.format(statement=statement)
        for statement in (
            "import vit_edge.runtime",
            "from vit_edge.runtime import Classifier",
            "import torch",
        )
    }
    results = interleaved(scripts, [], rounds)
    print(f"{'import, in a new process':44} {'median s':>9} {'slowest s':>10}")
    for name, runs in results.items():
        seconds = [run["seconds"] for run in runs]
        print(f"{name:44} {statistics.median(seconds):9.3f} {max(seconds):10.3f}")
    print(f"{'target for the runtime: below':44} {IMPORT_TARGET_S:9.3f}\n")


def print_answers(files: list[Path], rounds: int) -> None:
    """Time from starting a process to reading its first answer."""
    ways = {"vit-edge": _OURS, "ONNX Runtime and OpenCV by hand": _HAND, "torch": _TORCH}
    results = interleaved({name: script + _REPORT for name, script in ways.items()}, files, rounds)
    print(
        f"{'process start to first answer':44} {'median s':>9} {'slowest s':>10} {'peak MB':>8} {'answer':>7}"
    )
    quick: dict[str, float] = {}
    memory: dict[str, float] = {}
    for name, runs in results.items():
        seconds, peaks = [run["elapsed"] for run in runs], [run["peak_mb"] for run in runs]
        quick[name] = float(np.quantile(seconds, _QUANTILE))
        memory[name] = float("nan") if None in peaks else statistics.median(peaks)
        peak = "unknown" if None in peaks else f"{memory[name]:.0f}"
        answers = {run["answer"] for run in runs}
        if len(answers) > 1:
            sys.exit(f"{name} gave different answers to one image: {sorted(answers)}")
        print(
            f"{name:44} {statistics.median(seconds):9.3f} {max(seconds):10.3f} {peak:>8} {answers.pop():>7}"
        )
    ours, hand, torch = ways
    for title, ratio, target in (
        ("time, vit-edge / torch", quick[ours] / quick[torch], TORCH_TARGET),
        ("time, vit-edge / by hand", quick[ours] / quick[hand], HAND_TARGET),
        ("peak memory, vit-edge / by hand", memory[ours] / memory[hand], MEMORY_TARGET),
    ):
        print(f"{title:44} {ratio:9.3f}, at most {target} wanted")


def interleaved(scripts: dict[str, str], files: list[Path], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Run scripts in turn, each time in a new process; the first turn warms the disk's cache and is dropped."""
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in scripts}
    with (
        tempfile.TemporaryDirectory() as compiled,
        progress("timing", total=rounds + 1, unit="rounds") as advance,
    ):
        for turn in range(rounds + 1):
            # Who follows a process that gives much memory back starts more slowly, so that chance sets the order.
            for name in random.Random(turn).sample(list(scripts), len(scripts)):
                result = run(scripts[name], files, compiled)
                if turn > 0:
                    results[name].append(result)
            advance()
    return results


def run(script: str, files: list[Path], compiled: str) -> dict[str, Any]:
    """Run a script in a new process: its line of JSON, and the seconds from its start until that line came."""
    command = [sys.executable, "-c", script, *map(str, files)]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(compiled)) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        elapsed = time.perf_counter() - start
    if process.returncode != 0:
        sys.exit(f"a measured process failed with status {process.returncode}")
    return {**json.loads(line), "elapsed": elapsed}


def environment(compiled: str) -> dict[str, str]:
    """Give the processes this repository's code, compiled into a folder, and the processor as it is."""
    # Where the first is set, OpenBLAS is told to see another processor than there is.
    dropped = ("OPENBLAS_CORETYPE", "PYTHONDONTWRITEBYTECODE")
    kept = {key: value for key, value in os.environ.items() if key not in dropped}
    kept["PYTHONPYCACHEPREFIX"] = compiled
    folders = (str(Path(__file__).parents[1]), kept.get("PYTHONPATH", ""))
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, folders))}


if __name__ == "__main__":
    main()

"""Measures the start: importing the runtime, and the way from a new process to its first answer, against torch.

With the ``export`` extra installed: ``python benchmarks/startup.py MODEL CHECKPOINT IMAGE``, where MODEL is what
``vit-edge export`` made of CHECKPOINT, a ``vit_tiny_patch16_224`` as safetensors. Every measurement is a process of
its own; the two ways take turns, so that a busy machine slows both alike.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from vit_edge.cli.progress import progress

IMPORT_TARGET_S = 0.3
RATIO_TARGET = 0.25

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
    results = interleaved({"vit-edge": _OURS + _REPORT, "torch": _TORCH + _REPORT}, files, rounds)
    print(
        f"{'process start to first answer':44} {'median s':>9} {'slowest s':>10} {'peak MB':>8} {'answer':>7}"
    )
    for name, runs in results.items():
        seconds, peaks = [run["elapsed"] for run in runs], [run["peak_mb"] for run in runs]
        peak = "unknown" if None in peaks else f"{statistics.median(peaks):.0f}"
        answers = {run["answer"] for run in runs}
        if len(answers) > 1:
            sys.exit(f"{name} gave different answers to one image: {sorted(answers)}")
        print(
            f"{name:44} {statistics.median(seconds):9.3f} {max(seconds):10.3f} {peak:>8} {answers.pop():>7}"
        )
    ours, theirs = (statistics.median(run["elapsed"] for run in runs) for runs in results.values())
    print(f"{'vit-edge / torch':44} {ours / theirs:9.3f}")
    print(f"{'target: at most':44} {RATIO_TARGET:9.3f}")


def interleaved(scripts: dict[str, str], files: list[Path], rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Run scripts in turn, each time in a new process; the first turn warms the disk's cache and is dropped."""
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in scripts}
    with progress("timing", total=rounds + 1, unit="rounds") as advance:
        for turn in range(rounds + 1):
            for name, script in scripts.items():
                result = run(script, files)
                if turn > 0:
                    results[name].append(result)
            advance()
    return results


def run(script: str, files: list[Path]) -> dict[str, Any]:
    """Run a script in a new process: its line of JSON, and the seconds from its start until that line came."""
    command = [sys.executable, "-c", script, *map(str, files)]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        elapsed = time.perf_counter() - start
    if process.returncode != 0:
        sys.exit(f"a measured process failed with status {process.returncode}")
    return {**json.loads(line), "elapsed": elapsed}


def environment() -> dict[str, str]:
    """Give the processes this repository's code, and the processor as it is."""
    # Where this is set, OpenBLAS is told to see another processor than there is.
    kept = {key: value for key, value in os.environ.items() if key != "OPENBLAS_CORETYPE"}
    folders = (str(Path(__file__).parents[1]), kept.get("PYTHONPATH", ""))
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, folders))}


if __name__ == "__main__":
    main()

"""Measures what only a fresh process shows: the way from its start to the first answer, and its peak memory."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import vit_edge

from ..errors import VitEdgeError
from ..runtime.timing import as_steps, in_turns
from .load import Times
from .measure import Setting, Step
from .pictures import Pictures

_TIMEOUT_S = 600.0

# What a small program does: the runtime, one model, one image. The clock stops when its first line arrives; then it
# answers on for a while, since some memory is taken with the first batch only.
_CHILD = """
import json, sys
from vit_edge.runtime import Classifier
setting = json.loads(sys.argv[3])
classifier = Classifier(
    sys.argv[1], setting["provider"], setting["threads"], provider_options=setting["provider_options"]
)
print(classifier(sys.argv[2]).index, flush=True)

import threading
batch = setting["batch"]
def work():
    for _ in range(5):
        classifier([sys.argv[2]] * batch, batch_size=batch)
workers = [threading.Thread(target=work) for _ in range(setting["concurrency"] - 1)]
for worker in workers:
    worker.start()
work()
for worker in workers:
    worker.join()

# What getrusage tells on Linux includes the process that started this one, from before it became this program.
import pathlib
try:
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
except (OSError, StopIteration):
    try:
        import resource
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    except ImportError:
        peak = 0
print(peak, flush=True)
"""


@dataclass(frozen=True, slots=True)
class Start:
    """What fresh processes with a model in a setting showed.

    Attributes:
        model: The file.
        setting: How it was run.
        first_answer: From the start of a process to its first answer, the imports included.
        peak_mb: The largest memory that one of them had resident, in MB of 10^6 bytes; None where the system does
            not tell.
    """

    model: Path
    setting: Setting
    first_answer: Times
    peak_mb: float | None

    def to_dict(self) -> dict[str, Any]:
        """Give plain values, ready for JSON."""
        return {"first_answer": self.first_answer.to_dict(), "peak_mb": self.peak_mb}


def measure_starts(
    cases: Sequence[tuple[Path, Setting]], pictures: Pictures, *, count: int = 5
) -> Generator[Step, None, tuple[Start, ...]]:
    """Start processes in turns, each for one model; what they hold is theirs alone.

    The first round reads the files into the system's cache and is not counted.

    Args:
        cases: Models, and how each is run.
        pictures: Their first is what is classified.
        count: How many processes are measured for each case.

    Raises:
        VitEdgeError: A process failed.
    """
    with tempfile.TemporaryDirectory(prefix="vit-edge-") as folder:
        picture = Path(folder, "picture")
        picture.write_bytes(pictures.files[0])
        calls = [partial(_start, *case, picture) for case in cases]
        found = yield from as_steps(in_turns(calls, count + 1), partial(Step, "starting"))
    starts = []
    for (model, setting), processes in zip(cases, found, strict=True):
        seconds, peaks = zip(*processes[1:], strict=True)
        starts.append(Start(model, setting, Times.of(seconds), max(peaks) / 1e6 or None))
    return tuple(starts)


def _start(model: Path, setting: Setting, picture: Path) -> tuple[float, int]:
    """Run one process; the seconds until its first answer came, and its peak memory in bytes."""
    # -P: no file of the folder that the user stands in is to be taken for a module.
    command = [sys.executable, "-P", "-c", _CHILD, str(model), str(picture), json.dumps(setting.to_dict())]
    with tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=_environment()) as process:
            assert process.stdout is not None
            late = threading.Timer(_TIMEOUT_S, process.kill)
            late.start()
            try:
                answer = process.stdout.readline()
                seconds = time.perf_counter() - start
                peak = process.stdout.readline()
            finally:
                late.cancel()
        if process.returncode != 0 or not answer or not peak:
            errors.seek(0)
            lines = errors.read().decode("utf-8", "replace").strip().splitlines()
            lines = lines or [f"no reason given after {seconds:.0f} s to its first answer"]
            raise VitEdgeError(
                f"a process with {model} ended with status {process.returncode} ({lines[-1]}); "
                "see whether `vit-edge classify` runs it, or leave the start out with --starts 0"
            )
    return seconds, int(peak)


def _environment() -> dict[str, str]:
    """Give the process the code that runs here."""
    folders = (str(Path(vit_edge.__file__).parents[1]), os.environ.get("PYTHONPATH", ""))
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, folders))}

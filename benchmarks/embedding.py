"""Measures what the runtime costs an application, against ONNX Runtime used by hand with the same preprocessing.

With the ``runtime`` extra installed: ``python benchmarks/embedding.py MODEL IMAGES``. It times a camera's frames of
1280 x 720 pixels through `Classifier` and by hand, a batch of eight against eight single calls, and compares the
answers of eight threads that share one classifier. ``--install`` makes an environment with the ``runtime-headless``
extra and tells its size; that needs the network. What the start costs is in ``startup.py``.
"""

import argparse
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vit_edge.cli.progress import progress
from vit_edge.runtime import Classifier
from vit_edge.runtime.cores import usable_cores
from vit_edge.runtime.image import IMAGE_SUFFIXES, read_image
from vit_edge.runtime.timing import take_turns

ROOT = Path(__file__).parents[1]

OVERHEAD_TARGET = 1.05
BATCH_TARGET = 1.0
SIZE_TARGET_MB = 350

BATCH = 8
THREADS = 8

Frame = NDArray[np.uint8]


def main() -> None:
    """Print the ratios beside what is wanted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="the .onnx file")
    parser.add_argument("images", type=Path, help="a folder of photographs")
    parser.add_argument("--install", action="store_true", help="measure the installed size as well")
    options = parser.parse_args()
    paths = sorted(path for path in options.images.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not options.model.is_file() or len(paths) < BATCH:
        parser.error(f"expected a model file, and a folder of at least {BATCH} images")
    frames = [camera_frame(path) for path in paths[: 3 * BATCH]]
    for threads in sorted({1, usable_cores()}):
        with Classifier(options.model, "cpu", threads) as classifier:
            print_overhead(classifier, frames)
            print_batch(classifier, frames[:BATCH])
    with Classifier(options.model, "cpu") as classifier:
        print_threads(classifier, frames)
    if options.install:
        print_size()


def camera_frame(path: Path) -> Frame:
    """Make a frame with real content: (720, 1280, 3) uint8 RGB."""
    return np.asarray(cv2.resize(read_image(path), (1280, 720), interpolation=cv2.INTER_CUBIC), np.uint8)


def print_overhead(classifier: Classifier, frames: list[Frame]) -> None:
    """Time frames through the classifier, and through preprocessing and `session.run` back to back."""
    session: Any = classifier._session
    name = session.get_inputs()[0].name
    film = cycle(frames)

    def by_hand() -> None:
        pixels = classifier._input.prepare(next(film), classifier.preprocessing)
        session.run(None, {name: pixels[None]})

    def called() -> None:
        classifier(next(film))

    def framed() -> None:
        classifier.classify_frame(next(film))

    hand, call, frame = timed("overhead", by_hand, called, framed)
    for title, time in (("Classifier", call), ("classify_frame", frame)):
        print_ratio(f"{title} / by hand, {threads_of(classifier)}", time / hand, f"at most {OVERHEAD_TARGET}")
    print(f"{'':50} {hand:.2f} ms a frame by hand")


def print_batch(classifier: Classifier, frames: list[Frame]) -> None:
    """Time a batch against single calls, as throughput."""

    def single() -> None:
        for frame in frames:
            classifier(frame)

    def batched() -> None:
        classifier(frames, batch_size=BATCH)

    alone, together = timed("batch", single, batched)
    print_ratio(
        f"throughput, batch {BATCH} / single, {threads_of(classifier)}",
        alone / together,
        f"at least {BATCH_TARGET}",
    )


def print_threads(classifier: Classifier, frames: list[Frame]) -> None:
    """Compare the answers of threads that share the classifier, bit for bit."""
    expected = [classifier(frame, top=1000).top for frame in frames]
    jobs = 4 * list(range(len(frames)))
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(lambda place: classifier.classify_frame(frames[place], top=1000).top, jobs)
        same = sum(answer == expected[place] for place, answer in zip(jobs, found, strict=True))
    print(f"{f'the same bits from {THREADS} threads':50} {same} of {len(jobs)}")
    if same < len(jobs):
        sys.exit("threads that share a classifier got other answers")


def print_size() -> None:
    """Install the headless runtime into a new environment and add up its files."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=False)
        empty = size_mb(Path(folder))
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", folder)
        subprocess.run([*pip, "install", "--quiet", f"{ROOT}[runtime-headless]"], check=True)
        size = size_mb(Path(folder)) - empty
    print(f"{'installed, extra runtime-headless':50} {size:.0f} MB, below {SIZE_TARGET_MB} wanted")


def size_mb(folder: Path) -> float:
    """Add up the files of a folder, in megabytes."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def timed(title: str, *contenders: Callable[[], object]) -> tuple[float, ...]:
    """Time calls in turns, in milliseconds."""
    turns = take_turns(contenders)
    with progress(title, total=9, unit="rounds") as advance:
        return drained(turns, advance)


def drained(turns: Generator[Any, None, tuple[float, ...]], advance: Callable[[], None]) -> tuple[float, ...]:
    """Run a generator to its end, and give what it returns."""
    while True:
        try:
            next(turns)
        except StopIteration as end:
            result: tuple[float, ...] = end.value
            return result
        advance()


def threads_of(classifier: Classifier) -> str:
    """Say how many threads compute an answer."""
    return f"{classifier.threads} thread{'s' if classifier.threads > 1 else ''}"


def print_ratio(title: str, ratio: float, wanted: str) -> None:
    """Print a ratio beside what is wanted of it."""
    print(f"{title:50} {ratio:.3f}, {wanted} wanted")


if __name__ == "__main__":
    main()

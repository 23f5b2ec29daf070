"""Measures the loop: its throughput on a file, the age of its answers on a stream, its memory, and cut streams.

With the ``dev`` extra installed: ``python benchmarks/live.py --shared DIR``, where DIR holds
what ``benchmarks/accuracy.py`` names. ``--model FILE`` takes a finished file instead of exporting one. The streams
come from real servers on loopback; in their pictures runs a clock, so that no buffer on the way stays hidden.
``--minutes 10`` lets the memory be watched as long as that. An OpenCV that was built with GStreamer, as Debian's is,
shows H.264 read by that too; with ``--model``, no more is needed beside it than onnxruntime, typer and pytest.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))  # the servers of streams are the tests' own

from tests.streams import Server, mjpeg_server, read_clock, rtsp_missing, rtsp_server
from vit_edge.cli.progress import note
from vit_edge.runtime import Classifier, Summary, open_source, watch
from vit_edge.runtime.image import read_image
from vit_edge.runtime.labels import Labels
from vit_edge.runtime.preprocess import crop_pixels
from vit_edge.runtime.timing import time_ms

Pixels = NDArray[np.uint8]

SIZES = ((640, 480), (1280, 720))

FPS = 30

# A picture of RTP ends with a mark, by which GStreamer knows it whole at once.
H264_PIPELINE = "rtspsrc location={url} latency=0 ! rtph264depay ! h264parse ! avdec_h264 max-threads=1"

# The first answers of a stream wait for a server that is just beginning.
_WARM_UP = 30


def main() -> None:
    """Print every figure beside the wanted one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="the folder of model and data")
    parser.add_argument("--model", type=Path, help="a file made by vit-edge export")
    parser.add_argument("--minutes", type=float, default=2.0, help="how long the memory is watched")
    parser.add_argument("--frames", type=int, default=200, help="frames of each measurement")
    parser.add_argument("--rounds", type=int, default=5, help="turns of what is compared")
    parser.add_argument("--parts", default="preprocess,file,age,cuts,memory", help="what is measured")
    options = parser.parse_args()
    images = sorted((options.shared / "data" / "calibration250").glob("*.JPEG"))
    if not images:
        parser.error(f"{options.shared} lacks the images; name their folder with --shared")
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or export(options.shared, Path(folder))
        with Classifier(model, spinning=False) as classifier:
            print(f"{'':58} {'measured':>9} {'wanted':>9}")
            if "preprocess" in options.parts:
                print_preprocessing(classifier, images)
            for size in SIZES:
                if "file" in options.parts:
                    clip = make_clip(Path(folder) / f"{size[0]}.mp4", images, size, options.frames)
                    print_throughput(classifier, clip, size, options.rounds)
                if "age" in options.parts:
                    print_age(classifier, size, options.frames)
            if "cuts" in options.parts:
                print_cuts(classifier)
            if "memory" in options.parts:
                print_memory(classifier, options.minutes)


def export(shared: Path, folder: Path) -> Path:
    """Export the shared ViT-Tiny to INT8, for raw pixels."""
    from preprocess import PREPROCESSING

    from vit_edge.checkpoint import load_checkpoint
    from vit_edge.export import Options, export_module

    labels = Labels.read(shared / "data" / "imagenet1k_classes.txt")
    checkpoint = load_checkpoint(
        shared / "models" / "vit_tiny_patch16_224.safetensors", labels=labels, preprocessing=PREPROCESSING
    )
    note("exporting the ViT-Tiny")
    return export_module(
        checkpoint.model,
        folder / "tiny.onnx",
        labels=labels,
        preprocessing=PREPROCESSING,
        calibrate=shared / "data" / "calibration250",
        options=Options(precision="int8", input="uint8"),
    ).path


def row(name: str, value: str, wanted: str = "") -> None:
    """Print a figure."""
    print(f"{name:58} {value:>9} {wanted:>9}", flush=True)


def print_preprocessing(classifier: Classifier, paths: list[Path]) -> None:
    """Compare the preprocessing of a frame with Pillow's, in time and in the answers."""
    from PIL import Image
    from preprocess import PREPROCESSING, camera_frame, interleaved, pillow_crop

    frame = camera_frame(paths)
    image = Image.fromarray(frame)
    ours, pillow = interleaved(
        {"ours": lambda: crop_pixels(frame, PREPROCESSING), "Pillow": lambda: pillow_crop(image)}, 100
    ).values()
    row("preprocessing of a 1280x720 frame / Pillow's", f"{ours / pillow:.2f}", "<= 0.60")
    changed = 0
    for path in paths:
        pixels = read_image(path)
        changed += classifier(pixels).index != classifier_of_crop(
            classifier, pillow_crop(Image.fromarray(pixels))
        )
    row("answers that differ from those after Pillow", f"{changed / len(paths):.1%}", "<= 0.5%")


def classifier_of_crop(classifier: Classifier, crop: Pixels) -> int:
    """Answer a picture that is prepared but for its normalisation, which a crop of its own size leaves alone."""
    from vit_edge.runtime.preprocess import normalise

    pixels = crop if classifier.input == "uint8" else normalise(crop, classifier.preprocessing)
    return int(classifier.logits(pixels[None]).argmax())


def make_clip(path: Path, images: list[Path], size: tuple[int, int], frames: int) -> Path:
    """Make a video of real pictures, ten frames of each."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, size)
    for place in range(frames):
        picture = read_image(images[place // 10 % len(images)])
        writer.write(np.ascontiguousarray(cv2.resize(picture, size)[..., ::-1]))
    writer.release()
    return path


def print_throughput(classifier: Classifier, clip: Path, size: tuple[int, int], rounds: int) -> None:
    """Compare the loop on a file with preprocessing and inference back to back on its frames, already decoded."""
    with open_source(clip) as source:
        frames = [frame.image for frame in source]
    alone: list[float] = []
    loop: list[float] = []
    decode: list[float] = []
    for _ in range(rounds):
        alone.append(time_ms(lambda: [classifier.logits(classifier.pixels(frame)[None]) for frame in frames]))
        with watch(classifier, clip) as answers:
            loop.append(time_ms(lambda: sum(1 for _ in answers)))
        with open_source(clip) as source:
            decode.append(time_ms(lambda: sum(1 for _ in source)))
    ratio = statistics.median(one / other for one, other in zip(alone, loop, strict=True))
    name = "{}x{}".format(*size)
    row(f"{name} file: loop's throughput / preprocess + run alone", f"{ratio:.2f}", ">= 0.90")
    for what, times in (("preprocess + run", alone), ("loop", loop), ("decoding alone", decode)):
        row(f"    {what}, ms a frame", f"{statistics.median(times) / len(frames):.2f}")


def servers(size: tuple[int, int]) -> Iterator[tuple[str, str, AbstractContextManager[Server], str]]:
    """Give the streams that can be had here: name, source, server, and the wanted ratio of age and work."""
    yield "MJPEG over HTTP", "{url}", mjpeg_server(size=size, fps=FPS), "< 1.50"
    if missing := rtsp_missing():
        note(f"no RTSP: {missing} are missing")
        return
    yield "MJPEG over RTSP", "{url}", rtsp_server(size=size, fps=FPS, codec="jpeg"), "< 1.50"
    # FFmpeg's parser puts a picture of H.264 out when the next one begins: a thirtieth of a second that is not ours.
    yield "H.264 over RTSP", "{url}", rtsp_server(size=size, fps=FPS), "< 1.50"
    if cv2.CAP_GSTREAMER in cv2.videoio_registry.getBackends():
        yield "H.264 through GStreamer", H264_PIPELINE, rtsp_server(size=size, fps=FPS), "< 1.50"


def print_age(classifier: Classifier, size: tuple[int, int], count: int) -> None:
    """Compare the true age of answers, by the clock in the picture, with the time of the work on them."""
    for name, source, serving, wanted in servers(size):
        ages = []
        with serving as server, watch(classifier, source.format(url=server.url)) as answers:
            for answer in answers:
                ages.append((time.monotonic() - read_clock(answer.image)) * 1e3)
                if len(ages) == count + _WARM_UP:
                    break
            summary = answers.summary
        print_ages(f"{size[0]}x{size[1]} {name}", ages[_WARM_UP:], summary, wanted)


def print_ages(name: str, ages: list[float], summary: Summary, wanted: str) -> None:
    """Print what was found of one stream."""
    # Their medians in the running loop, after each frame's pause: threads that do not spin wake up first.
    work = summary.prepare_ms + summary.infer_ms
    true = statistics.median(ages)
    row(f"{name}: median age by its clock / work", f"{true / work:.2f}", wanted)
    row("    median age by its clock, ms", f"{true:.1f}")
    row("    median age as told, ms", f"{summary.age_p50_ms:.1f}")
    row("    preprocess + inference in the loop, ms", f"{work:.1f}")


def print_cuts(classifier: Classifier, cuts: int = 5) -> None:
    """Cut a stream and restore it, and count what is lost beside the gaps."""
    outages, clocks = [], []
    with mjpeg_server(size=SIZES[0], fps=FPS) as server, watch(classifier, server.url) as answers:
        for _ in range(cuts):
            clocks += [read_clock(next(answers).image) for _ in range(2 * FPS)]
            server.stop()
            stopped_s = time.monotonic()
            time.sleep(0.7)
            server.start()
            outages.append((stopped_s, time.monotonic()))
        clocks += [read_clock(next(answers).image) for _ in range(2 * FPS)]
        summary = answers.summary
    step_s = max(
        later - earlier
        for earlier, later in pairwise(clocks)
        if not any(earlier <= stopped_s < later for stopped_s, _ in outages)
    )
    longest = [0.0, 0.0]
    for stopped_s, started_s in outages:
        before = max(clock for clock in clocks if clock <= stopped_s)
        after = min(clock for clock in clocks if clock >= stopped_s)
        longest = [max(longest[0], stopped_s - before), max(longest[1], after - started_s)]
    row(f"cuts of a stream, and gaps that were told ({cuts} cuts)", str(summary.gaps), str(cuts))
    row("    answers / frames outside of the gaps", f"{summary.answers / summary.frames:.3f}")
    row("    longest step of the clock outside of the gaps, frames", f"{step_s * FPS:.1f}")
    row("    from the last answered picture to a cut, at most, ms", f"{longest[0] * 1e3:.0f}")
    row("    from a restored server to the first picture, at most, ms", f"{longest[1] * 1e3:.0f}")


def print_memory(classifier: Classifier, minutes: float) -> None:
    """Watch the process's memory while it answers a stream."""
    first_s = min(60.0, minutes * 30)
    base = 0
    with mjpeg_server(size=SIZES[0], fps=FPS) as server, watch(classifier, server.url) as answers:
        start = time.monotonic()
        for _ in answers:
            passed = time.monotonic() - start
            if not base and passed >= first_s:
                base = resident_bytes()
            if passed >= minutes * 60:
                break
        grown = resident_bytes() - base
        summary = answers.summary
    row(
        f"memory grown from {first_s:.0f} s to {minutes * 60:.0f} s, {summary.answers} answers, MB",
        f"{grown / 1e6:.2f}",
        "< 5.00",
    )


def resident_bytes() -> int:
    """Give how much memory this process holds, as Linux tells it."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()

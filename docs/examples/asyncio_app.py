"""Several cameras at once in asyncio, with one model: a JSON line for each answer.

``python asyncio_app.py model.onnx SOURCE...``, where a SOURCE is a camera's number, an address, a video or a folder of
images. The event loop stays free: frames are waited for and classified in threads, which share the one classifier. A
live source that gives more than can be classified passes frames over by itself.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator

from vit_edge.runtime import Classifier, Frame, Source, SourceError, VitEdgeError, open_source


async def frames_of(source: Source) -> AsyncIterator[Frame]:
    """Give a source's frames without holding up the event loop."""
    frames = iter(source)
    while (frame := await asyncio.to_thread(next, frames, None)) is not None:
        yield frame


async def watch(classifier: Classifier, name: str) -> int:
    """Print an answer for each frame of a source; gives their number."""
    count = 0
    with await asyncio.to_thread(open_source, name) as source:
        async for frame in frames_of(source):
            prediction = await asyncio.to_thread(classifier.classify_frame, frame.image, top=3)
            age_ms = (time.monotonic() - frame.captured_s) * 1e3
            values = {"source": source.name, "frame": frame.number, "age_ms": round(age_ms, 1)}
            print(json.dumps(values | prediction.to_dict()), flush=True)
            count += 1
    return count


async def guarded(classifier: Classifier, name: str) -> int:
    """Watch a source; one that fails is told on standard error and stops no other."""
    try:
        return await watch(classifier, name)
    except SourceError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 0


async def main(model: str, names: list[str]) -> None:
    """Watch all sources until they end."""
    with Classifier(model, spinning=False) as classifier:
        counts = await asyncio.gather(*(guarded(classifier, name) for name in names))
    print(f"{sum(counts)} frames of {len(names)} sources", file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    try:
        asyncio.run(main(sys.argv[1], sys.argv[2:]))
    except VitEdgeError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)

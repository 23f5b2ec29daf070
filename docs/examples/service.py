"""A service over HTTP that answers images, in FastAPI; requests that come at the same time are answered together.

``pip install fastapi uvicorn``, then ``MODEL=model.onnx uvicorn service:app``. Send an image's bytes::

    curl --data-binary @photo.jpg http://127.0.0.1:8000/classify

While one batch is computed, the requests that come meanwhile gather for the next one: nobody waits for company, and a
lone request is answered at once.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from fastapi import FastAPI, HTTPException, Request
from numpy.typing import NDArray

from vit_edge.runtime import Classifier, ImageError, Prediction, read_image

MOST_TOGETHER = 8
"""The most requests that are answered together."""

MOST_WAITING = 64
"""The most requests that wait; a further one is told to come back, rather than to wait for long."""

MOST_BYTES = 20_000_000
"""The largest image that is taken."""

Job = tuple[NDArray[np.uint8], asyncio.Future[tuple[Prediction, int]]]


class Batcher:
    """Answers images with one classifier, together where several wait."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self._jobs: asyncio.Queue[Job] = asyncio.Queue(MOST_WAITING)

    async def answer(self, image: NDArray[np.uint8]) -> tuple[Prediction, int]:
        """Answer an image; gives the number of those answered together as well.

        Raises:
            asyncio.QueueFull: Too many wait already.
        """
        answer: asyncio.Future[tuple[Prediction, int]] = asyncio.get_running_loop().create_future()
        self._jobs.put_nowait((image, answer))
        return await answer

    async def run(self) -> None:
        """Answer what comes, for ever."""
        while True:
            jobs = [await self._jobs.get()]
            while len(jobs) < MOST_TOGETHER and not self._jobs.empty():
                jobs.append(self._jobs.get_nowait())
            try:
                images = [image for image, _ in jobs]
                found = await asyncio.to_thread(self._classifier, images, batch_size=len(images))
            except Exception as error:
                self._tell([answer for _, answer in jobs], error)
                continue
            for (_, answer), prediction in zip(jobs, found, strict=True):
                # Whoever went away meanwhile gets none.
                if not answer.done():
                    answer.set_result((prediction, len(jobs)))

    @staticmethod
    def _tell(answers: list[asyncio.Future[Any]], error: Exception) -> None:
        for answer in answers:
            if not answer.done():
                answer.set_exception(error)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Hold the model open for as long as the service runs."""
    with Classifier(os.environ.get("MODEL", "model.onnx")) as classifier:
        app.state.classifier, app.state.batcher = classifier, Batcher(classifier)
        running = asyncio.create_task(app.state.batcher.run())
        try:
            yield
        finally:
            running.cancel()


app = FastAPI(title="vit-edge", lifespan=lifespan)


@app.post("/classify")
async def classify(request: Request) -> dict[str, Any]:
    """Answer the image in the request's body."""
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > MOST_BYTES:
            raise HTTPException(413, f"expected an image of at most {MOST_BYTES} bytes")
    try:
        # Decoded apart, so that a broken image is its sender's alone.
        image = await asyncio.to_thread(read_image, bytes(data))
        prediction, together = await request.app.state.batcher.answer(image)
    except ImageError as error:
        raise HTTPException(400, str(error)) from error
    except asyncio.QueueFull as error:
        raise HTTPException(503, "too many requests wait; come back", {"Retry-After": "1"}) from error
    least = request.app.state.classifier.threshold or 0.0
    values = prediction.to_dict() | {"together": together}
    return values | ({"label": "unknown"} if prediction.probability < least else {})


@app.get("/about")
def about(request: Request) -> dict[str, Any]:
    """Tell what the model is, and whether its probabilities can be trusted."""
    classifier: Classifier = request.app.state.classifier
    return {
        "labels": [label.name for label in classifier.labels.items],
        "provider": classifier.provider,
        "calibrated": classifier.calibrated,
        "threshold": classifier.threshold,
        "source": dict(classifier.metadata.source),
    }

"""Saves frames now and then, and always the unsure ones, to calibrate or train with later."""

import contextlib
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2

from ..answer import Answer
from ..errors import SinkError
from ..still import Scene
from .worker import WorkedSink, Worker

EVERY_S = 60.0
"""How often a frame is saved whatever its answer is."""

MOST_FILES, MOST_BYTES = 2000, 2_000_000_000
"""How much a folder may hold before nothing more is saved into it."""

# An answer whose best two classes are this close could as well be the other one.
_CLOSE = 0.2

# Little is lost to a network by it, and it takes a tenth of a PNG's room.
_QUALITY = 95

_SUFFIX = ".jpg"


class GrabSink(WorkedSink[tuple[Answer, bool]]):
    """Saves frames into a folder, each whole or not at all."""

    name = "grabbing of frames"

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        live: bool = True,
        every_s: float = EVERY_S,
        most_files: int = MOST_FILES,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        """Store the folder; it is made when this context is entered.

        Args:
            folder: Where the frames go, as JPEG files whose names begin with their time (UTC).
            live: Whether a frame is rather left out than the loop held up by a slow disk.
            every_s: How often a frame is saved whatever its answer is. Unsure ones are always saved, once a scene.
            most_files: How many images the folder may hold, those from before as well.
            most_bytes: How many bytes they may have in all.

        Raises:
            SinkError: A number is out of range.
        """
        if not every_s > 0 or most_files < 1 or most_bytes < 1:
            raise SinkError(
                f"expected every_s, most_files and most_bytes above 0, got {every_s}, {most_files} and {most_bytes}"
            )
        self._folder, self._live = Path(folder), live
        self._every_s, self._most_files, self._most_bytes = every_s, most_files, most_bytes
        self._files = self._bytes = 0
        self._due_s = 0.0
        self._unsure = Scene()

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        sizes = [path.stat().st_size for path in self._folder.glob(f"*{_SUFFIX}")]
        self._files, self._bytes = len(sizes), sum(sizes)
        self._require_room()
        self._worker = Worker(self._save, size=4, newest=self._live)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        worker = self._dismiss()
        if worker is not None:
            worker.finish()

    def show(self, answer: Answer) -> bool:
        """Save the answer's frame, if it is due or unsure."""
        if self._worker is None:
            return True
        now = time.monotonic()
        unsure = is_unsure(answer)
        if unsure:
            # The same doubt thirty times a second teaches nothing.
            small = self._unsure.small(answer.image)
            unsure = self._unsure.moved(small)
            if unsure:
                self._unsure.keep(small)
        if unsure or now >= self._due_s:
            self._due_s = now + self._every_s
            self._worker.give((answer, unsure))
        return True

    def _require_room(self) -> None:
        if self._files >= self._most_files or self._bytes >= self._most_bytes:
            raise SinkError(
                f"{self._folder} holds {self._files} frames of {self._bytes / 1e6:.0f} MB, which is as much as it may; "
                "move them away, or raise the bound"
            )

    def _save(self, work: tuple[Answer, bool]) -> None:
        answer, unsure = work
        self._require_room()
        done, data = cv2.imencode(
            _SUFFIX, cv2.cvtColor(answer.image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
        )
        if not done:
            raise SinkError(f"OpenCV cannot write a JPEG of shape {answer.image.shape}")
        moment = time.strftime("%Y%m%dT%H%M%S", time.gmtime(answer.time))
        stem = f"{moment}.{int(answer.time % 1 * 1000):03}Z-{answer.frame:07}{'-unsure' if unsure else ''}"
        target = self._folder / f"{stem}{_SUFFIX}"
        part = self._folder / f".{stem}.{os.getpid()}.part"
        try:
            part.write_bytes(data.tobytes())
            part.replace(target)
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
        self._files += 1
        self._bytes += len(data)


def is_unsure(answer: Answer) -> bool:
    """Tell whether an answer is unknown, or its best two classes are close."""
    if not answer.known or not answer.top:
        return True
    return len(answer.top) > 1 and answer.top[0].probability - answer.top[1].probability < _CLOSE

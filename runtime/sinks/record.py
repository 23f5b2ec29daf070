"""Records annotated frames as a video whose pictures come at a constant rate and at their right times."""

import math
import os
import shutil
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from ..answer import Answer
from ..draw import annotate
from ..errors import SinkError
from .worker import WorkedSink, Worker

LIVE_FPS = 25.0
"""The rate of a live source's recording: enough for the eye, and cheap to compute."""

# What OpenCV's wheels can write everywhere, by the name's end.
_CODECS = {".mp4": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}

# Below this much room on the disk a recording is finished while that still goes; the index of an hour takes 2 MB.
_RESERVE_BYTES = 50_000_000

_CHECK_S = 1.0

# How long the end may take; a recording without its end cannot be played.
_FINISH_S = 5.0


class RecordSink(WorkedSink[tuple[Answer, float]]):
    """Writes a video file, which gets its name when it is whole.

    A live source's answers come at an uneven rate: the picture of each moment is repeated until the next one, so that
    the recording plays as fast as the world went. A file's frames are recorded one by one at the file's rate.
    """

    name = "recording"
    costly = True

    def __init__(self, path: str | os.PathLike[str], *, fps: float | None = None, live: bool = True) -> None:
        """Store the options; the file is begun with the first answer.

        Args:
            path: Where the video goes: ``.mp4``, ``.mov``, ``.mkv`` or ``.avi``. One that is there is replaced.
            fps: Its pictures a second; 25 unless given.
            live: Whether frames have their moments; otherwise each is one picture.

        Raises:
            SinkError: The name has another end, or *fps* is out of range.
        """
        self._path, self._live = Path(path), live
        self._fps = LIVE_FPS if fps is None else fps
        if self._path.suffix.lower() not in _CODECS:
            raise SinkError(f"expected a recording's name to end in {', '.join(_CODECS)}, got {self._path}")
        if not 0 < self._fps <= 1000:
            raise SinkError(f"expected a recording of more than 0 pictures a second, got {self._fps}")
        # Its suffix tells OpenCV the container.
        self._part = self._path.with_name(f".{self._path.stem}.{os.getpid()}.part{self._path.suffix}")
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._picture: NDArray[np.uint8] | None = None
        self._began_s = 0.0
        self._written = 0
        self._checked_s = 0.0
        self._closing = False

    def __enter__(self) -> Self:
        folder = self._path.parent
        if not folder.is_dir():
            raise SinkError(f"there is no folder {folder}; make it first")
        if self._path.is_dir():
            raise SinkError(f"{self._path} is a folder; name a file")
        if not os.access(folder, os.W_OK):
            raise SinkError(f"{folder} may not be written; choose another folder")
        self._require_room()
        self._worker = Worker(
            self._take,
            size=2,
            newest=self._live,
            idle=self._fill if self._live else None,
            idle_s=2 / self._fps if self._live else None,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        worker = self._dismiss()
        if worker is None:
            return
        self._closing = self._live
        try:
            finished = worker.finish(_FINISH_S)
        except BaseException:
            self._finish()
            raise
        if not finished:  # to end it now, while its thread writes, would crash
            raise SinkError(f"the disk does not take {self._path}")
        if self._live and self._picture is not None:
            self._write()  # the last one, which has had no next one
        self._finish()

    def show(self, answer: Answer) -> bool:
        """Record an answer."""
        if self._worker is not None:
            # Not the answer's own time, which jumps when the computer's clock is set.
            self._worker.give((answer, time.monotonic() - answer.age_ms / 1e3))
        return True

    def _take(self, work: tuple[Answer, float]) -> None:
        answer, moment_s = work
        picture = annotate(answer)
        if self._writer is None:
            self._begin(picture)
            self._began_s = moment_s
        if self._live:
            # All pictures before this moment are the one before.
            self._fill(moment_s)
            self._picture = self._fitted(picture)
        else:
            self._picture = self._fitted(picture)
            self._write()

    def _fill(self, until_s: float | None = None) -> None:
        """Repeat the last picture up to a moment, now unless given."""
        if self._picture is None:
            return
        due = math.floor(((time.monotonic() if until_s is None else until_s) - self._began_s) * self._fps)
        while self._written < due and not self._closing:
            self._write()

    def _begin(self, picture: NDArray[np.uint8]) -> None:
        height, width = picture.shape[:2]
        self._size = (width + width % 2, height + height % 2)  # the codecs halve the colours' sides
        codec = cv2.VideoWriter.fourcc(*_CODECS[self._path.suffix.lower()])
        writer = cv2.VideoWriter(str(self._part), codec, self._fps, self._size)
        if not writer.isOpened():
            raise SinkError(
                f"OpenCV {cv2.__version__} cannot write {self._path}; try a name that ends in .avi"
            )
        self._writer = writer

    def _fitted(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Give a picture as OpenCV writes it: of the video's size, with black where it has another shape, and BGR."""
        width, height = self._size
        if picture.shape[:2] != (height, width):
            scale = min(width / picture.shape[1], height / picture.shape[0])
            if abs(picture.shape[1] - width) > 1 or abs(picture.shape[0] - height) > 1:
                size = max(1, int(picture.shape[1] * scale)), max(1, int(picture.shape[0] * scale))
                picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
            across, down = width - picture.shape[1], height - picture.shape[0]
            picture = np.asarray(
                cv2.copyMakeBorder(
                    picture,
                    down // 2,
                    down - down // 2,
                    across // 2,
                    across - across // 2,
                    cv2.BORDER_CONSTANT,
                ),
                np.uint8,
            )
        return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), np.uint8)

    def _write(self) -> None:
        assert self._writer is not None
        assert self._picture is not None
        now = time.monotonic()
        if now - self._checked_s >= _CHECK_S:
            self._checked_s = now
            self._require_room()
        self._writer.write(self._picture)
        self._written += 1

    def _require_room(self) -> None:
        # OpenCV says nothing of a disk that is full.
        if shutil.disk_usage(self._path.parent).free < _RESERVE_BYTES:
            raise SinkError(
                f"less than {_RESERVE_BYTES // 1_000_000} MB are free beside {self._path}; make room there"
            )

    def _finish(self) -> None:
        """Write the file's end, look whether it can be played, and give it its name."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        writer.release()
        if not self._written:
            self._part.unlink(missing_ok=True)
            return
        video = cv2.VideoCapture(str(self._part))
        playable, _ = video.read()
        video.release()
        if not playable:
            raise SinkError(f"{self._part} cannot be played; is the disk full?")
        self._part.replace(self._path)

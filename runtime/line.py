"""The threads of the loop: what is read, prepared and answered at the same time."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .answer import UNKNOWN, Answer
from .belt import Belt, Ended
from .classifier import Classifier
from .frame import Frame
from .graph_input import Pixels
from .pace import Pace
from .prediction import Score
from .relief import Relief
from .sources import Source
from .steady import Steady
from .still import Scene
from .summary import Summary, Tally

_LOG = logging.getLogger(__name__)

# How many frames of a file lie between two stages, so that each can go ahead while another is held up.
_AHEAD = 2

# A scene that stands still is looked at anew so often all the same: a change may be too small for the small picture.
_LOOK_AGAIN_S = 10.0

# How long a stop waits for the threads, all together; an answer that takes longer is left behind.
_STOP_S = 0.7


@dataclass(frozen=True, slots=True)
class Plan:
    """The options of a loop, checked."""

    top: int
    threshold: float
    steady_s: float
    max_age_ms: float | None
    rate_hz: float | None
    still: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Prepared:
    """A frame on its way to the model; where the scene stands still, with the pixels of the frame that it is like."""

    frame: Frame
    pixels: Pixels
    prepare_s: float
    still: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class _Answered:
    """A frame with what the model says of it."""

    prepared: _Prepared
    label: str
    probability: float
    known: bool
    top: tuple[Score, ...]
    repeated: bool
    infer_s: float


class Line:
    """The threads between a source and its answers, and what they share."""

    def __init__(self, classifier: Classifier, source: Source, plan: Plan) -> None:
        self.source = source
        self.relief = Relief(plan.max_age_ms)
        self._classifier, self._plan = classifier, plan
        live = source.live
        size = 1 if live else _AHEAD
        self._frames: Belt[Frame] = Belt(size, newest=False)
        self._prepared: Belt[_Prepared] = Belt(size, newest=live)
        self.answers: Belt[_Answered] = Belt(size, newest=live)
        self._tally = Tally()
        self._pace = Pace(live=live, max_age_ms=plan.max_age_ms)
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        self.source.__enter__()
        stages: list[tuple[str, Callable[[], None]]] = [("prepare", self._prepare), ("infer", self._infer)]
        if not self.source.live:
            stages.append(("read", self._read))
        for name, stage in stages:
            thread = threading.Thread(target=stage, name=f"watch-{name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        if not self._pace.stop():
            return
        for belt in (self._frames, self._prepared, self.answers):
            belt.end(discard=True)
        self.source.close()
        until = time.monotonic() + _STOP_S
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, until - time.monotonic()))

    def next(self, timeout_s: float | None) -> Answer | None:
        answered = self.answers.get(timeout_s)
        if answered is None:
            return None
        prepared = answered.prepared
        frame = prepared.frame
        age_ms = (time.monotonic() - frame.captured_s) * 1e3
        self._tally.answered(
            age_ms=age_ms,
            prepare_ms=prepared.prepare_s * 1e3,
            infer_ms=answered.infer_s * 1e3,
            repeated=answered.repeated,
        )
        if self._plan.max_age_ms is not None and age_ms > self._plan.max_age_ms:
            self._tally.late += 1
        if sentence := self.relief.note(age_ms, self._pace.needed_s * 1e3):
            _LOG.warning(sentence)
        return Answer(
            time=time.time() - age_ms / 1e3,
            source=frame.name,
            frame=frame.number,
            label=answered.label,
            probability=answered.probability,
            top=answered.top,
            age_ms=age_ms,
            dropped=self._dropped(),
            latency_ms=0.0 if answered.repeated else (prepared.prepare_s + answered.infer_s) * 1e3,
            image=frame.image,
            known=answered.known,
            repeated=answered.repeated,
            fps=self._tally.fps,
        )

    def summary(self) -> Summary:
        gaps = self.source.gaps
        return self._tally.summary(
            dropped=self._dropped(), gaps=len(gaps), gap_s=sum(gap.seconds for gap in gaps)
        )

    def _dropped(self) -> int:
        return (
            self.source.dropped + self._pace.passed_over + self._prepared.pushed_off + self.answers.pushed_off
        )

    # The stages. Each ends the belt that it fills, with the error if there was one.

    def _read(self) -> None:
        """Read a file's frames ahead of the preprocessing."""
        with _ending(self._frames):
            for frame in self.source:
                if not self._frames.put(frame):
                    return

    def _prepare(self) -> None:
        scene = Scene() if self._plan.still else None
        looked: _Prepared | None = None
        with _ending(self._prepared):
            for frame in self._wanted() if self.source.live else _taken(self._frames):
                self._tally.began(frame.captured_s)
                self._tally.frames = max(self._tally.frames, frame.number + 1)
                if self._pace.too_old(frame.captured_s, self._pace.needed_s):
                    continue
                start = time.perf_counter()
                small = scene.small(frame.image) if scene else None
                if (
                    scene is not None
                    and small is not None
                    and looked is not None
                    and not scene.moved(small)
                    and frame.captured_s - looked.frame.captured_s < _LOOK_AGAIN_S
                ):
                    prepared = replace(looked, frame=frame, still=True)
                else:
                    pixels = self._classifier.pixels(frame.image)
                    prepared = _Prepared(frame, pixels, time.perf_counter() - start)
                    self._pace.prepared(prepared.prepare_s)
                    if scene is not None and small is not None:
                        scene.keep(small)
                        looked = prepared
                if not self._prepared.put(prepared):
                    return

    def _wanted(self) -> Iterator[Frame]:
        """Give a live source's newest frame, each time just so early that it is prepared when the model is free.

        Taken earlier it would grow old while it waits; taken later the model would wait.
        """
        frames = iter(self.source)
        period_s = 0.0 if self._plan.rate_hz is None else 1 / self._plan.rate_hz
        due_s = 0.0
        while True:
            before = self.source.dropped
            if not self._pace.sleep_until(due_s):
                return
            self._tally.rested += self.source.dropped - before
            if not self._pace.await_turn():
                return
            frame = next(frames, None)
            if frame is None:
                return
            # From the time that was due, so that waiting for a frame does not add up.
            due_s = max(due_s + period_s, time.monotonic() - period_s) if period_s else 0.0
            yield frame

    def _infer(self) -> None:
        fps = self.source.fps
        timed = self.source.live or fps
        steady = Steady(time_constant_s=self._plan.steady_s if timed else 0.0, threshold=self._plan.threshold)
        row: NDArray[np.float32] | None = None
        answered: Pixels | None = None
        with _ending(self.answers):
            if self.source.live:
                self._warm_up()
            for prepared in _taken(self._prepared):
                frame = prepared.frame
                infer_s = 0.0
                # The frame that a still one is like may have been passed over.
                repeated = prepared.still and prepared.pixels is answered
                if row is None or not repeated:
                    if self._pace.too_old(frame.captured_s, self._pace.infer_s):
                        continue
                    row, infer_s = self._run(prepared.pixels)
                    answered = prepared.pixels
                # A file's own clock: how fast it is worked through must not change its answers.
                moment_s = frame.number / fps if fps and not self.source.live else frame.captured_s
                verdict = steady.update(row, moment_s)
                best = self._classifier.best(verdict.probabilities, self._plan.top)
                if verdict.index is None:
                    label, probability = UNKNOWN, best[0].probability
                else:
                    label = self._classifier.labels[verdict.index].name
                    probability = float(verdict.probabilities[verdict.index])
                self._pace.answered()
                known = verdict.index is not None
                if not self.answers.put(
                    _Answered(prepared, label, probability, known, best, repeated, infer_s)
                ):
                    return

    def _warm_up(self) -> None:
        """Run the model before there is a frame, since its first answer takes longest."""
        size = self._classifier.preprocessing.crop
        pixels = self._classifier.pixels(np.zeros((*size, 3), np.uint8))
        for _ in range(2):
            self._pace.infer_s = 0.0
            self._run(pixels)

    def _run(self, pixels: Pixels) -> tuple[NDArray[np.float32], float]:
        """Give the probabilities, (classes,) float32, and the seconds that they took."""
        self._pace.begins()
        start = time.perf_counter()
        row: NDArray[np.float32] = self._classifier.probabilities(pixels[None])[0]
        infer_s = time.perf_counter() - start
        self._pace.ended(infer_s)
        return row, infer_s


@contextmanager
def _ending(belt: Belt[Any]) -> Iterator[None]:
    """End a belt when the stage that fills it ends, with its error if it has one."""
    try:
        yield
    except BaseException as error:
        belt.end(error)
    else:
        belt.end()


def _taken(belt: Belt[Any]) -> Iterator[Any]:
    """Take things off a belt until it ends; an error at its end is raised."""
    while True:
        try:
            yield belt.get()
        except Ended:
            return

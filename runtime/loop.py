"""The loop over a live source or a file: capture, preprocess, infer and show, each in its own thread."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from os import PathLike
from types import TracebackType
from typing import Self, cast

import numpy as np
from numpy.typing import NDArray

from .answer import Answer
from .belt import Ended
from .classifier import Classifier
from .errors import WatchError
from .line import Line, Plan
from .sources import Source, open_source
from .summary import Summary

STEADY_S = 0.4
"""The time constant of steadying: long against a frame, short against a person's patience."""


def watch(
    classifier: Classifier,
    source: Source | str | int | PathLike[str] | Iterable[NDArray[np.uint8]],
    *,
    top: int = 5,
    threshold: float | None = None,
    steady_s: float = STEADY_S,
    max_age_ms: float | None = None,
    rate_hz: float | None = None,
    still: bool = False,
) -> "Watch":
    """Classify what a source gives, without lag.

    The newest frame of a live source is classified, and what was passed over meanwhile is counted; of a file every
    frame is, in order. The source is closed at the end.

    Example::

        with Classifier("model.onnx", spinning=False) as classifier, watch(classifier, 0) as answers:
            for answer in answers:
                print(answer.label, answer.age_ms)

    Args:
        classifier: An open model file.
        source: What `open_source` gives or takes: a camera's index, an address, a file, arrays.
        top: How many classes each answer holds.
        threshold: An answer less probable than this is ``unknown``, 0..1; the file's own value unless given.
        steady_s: The time constant of the exponential average over time; 0 takes each frame by itself. Pictures
            that are no sequence, such as a folder's, are never averaged.
        max_age_ms: How old an answer may be, from the taking of its frame. Frames that would be older are passed
            over, and `Watch.relief` tells the rest of the program to do less; a warning says when that isn't enough.
        rate_hz: How many frames a second at most are classified, for a live source.
        still: Whether the answer is repeated, and the model spared, while the scene stands still.

    Raises:
        WatchError: An option is out of range, or is not for such a source.
        SourceError: The source cannot be opened.
    """
    opened = cast(Source, source) if hasattr(source, "live") else open_source(source)
    limits = (("top", top, 1), ("steady_s", steady_s, 0), ("threshold", threshold, 0))
    for name, value, least in limits:
        if value is not None and not value >= least:
            raise WatchError(f"expected {name} of at least {least}, got {value}")
    if threshold is not None and threshold > 1:
        raise WatchError(f"expected a threshold of 0 to 1, got {threshold}")
    for name, limit in (("max_age_ms", max_age_ms), ("rate_hz", rate_hz)):
        if limit is None:
            continue
        if not limit > 0:
            raise WatchError(f"expected {name} above 0, got {limit}")
        if not opened.live:
            raise WatchError(
                f"{name} is for a live source; {opened.name} gives every frame as fast as it is answered"
            )
    return Watch(
        classifier,
        opened,
        Plan(
            top,
            (classifier.threshold or 0.0) if threshold is None else threshold,
            steady_s,
            max_age_ms,
            rate_hz,
            still,
        ),
    )


class Watch:
    """A loop that runs: an iterator of answers, which is closed at its end, by `close`, or as a context manager."""

    def __init__(self, classifier: Classifier, source: Source, plan: Plan) -> None:
        """Store what `watch` has checked; the threads begin with the first answer that is asked for."""
        self._line = Line(classifier, source, plan)
        self._started = False

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # The threads know the line alone, so that a loop which nobody holds any more ends.
        with suppress(Exception):
            self.close()

    def __iter__(self) -> Iterator[Answer]:
        return self

    def __next__(self) -> Answer:
        answer = self.wait()
        assert answer is not None
        return answer

    def wait(self, timeout_s: float | None = None) -> Answer | None:
        """Give the next answer; None where none came for *timeout_s*.

        Raises:
            StopIteration: There will be no more.
        """
        self._start()
        try:
            return self._line.next(timeout_s)
        except Ended:
            self.close()
            raise StopIteration from None
        except BaseException:
            self.close()
            raise

    @property
    def source(self) -> Source:
        """What is watched."""
        return self._line.source

    @property
    def summary(self) -> Summary:
        """What was done so far."""
        return self._line.summary()

    @property
    def relief(self) -> int:
        """How much the program is to shed to hold the frames' age: 0 for nothing, each step half of what is left."""
        return self._line.relief.step

    @property
    def behind(self) -> bool:
        """Whether another answer is waiting already."""
        return len(self._line.answers) > 0

    def close(self) -> None:
        """End the loop within a second, from any thread, and let go of the source."""
        self._line.close()

    def _start(self) -> None:
        if not self._started:
            self._started = True
            self._line.start()

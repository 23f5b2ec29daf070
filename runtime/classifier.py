"""Classifies images with a model file: decode, preprocess, infer, answer."""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Self, overload

# Before ONNX Runtime: the threads that OpenCV's BLAS starts spin for a while, and a session that opened meanwhile
# would have one core less.
import cv2  # noqa: F401
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from .errors import ImageError, ModelError
from .graph_input import GraphInput, InputType, Pixels
from .image import ImageSource, read_image
from .labels import Labels
from .metadata import Metadata
from .model_file import read_properties, require_file
from .placement import Placed
from .prediction import Prediction, Score, softmax
from .preprocess import Preprocessing
from .processor import differences, processor
from .providers import PROVIDERS
from .seal import check_seal
from .session import Started, refusal, start_session

# Seals of the files whose notes are in the log: a server that opens a file for every worker logs them once.
_noted: set[str] = set()


class Classifier:
    """A model file held open, ready to classify images; any number of threads may share it.

    Attributes:
        name: The file's path.
        seal: The digest by which the file is known, 64 hexadecimal digits.
        provider: The short name of the execution provider that it runs on.
        threads: How many threads compute one answer.
        metadata: What the file says of itself.

    Example::

        classifier = Classifier("model.onnx")
        print(classifier("photo.jpg").label)
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes,
        provider: str = "auto",
        threads: int | None = None,
        *,
        provider_options: Mapping[str, str] | None = None,
        spinning: bool = True,
        compiling: Callable[[str], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        """Open a model file.

        Args:
            model: The path or the bytes of a file made by ``vit-edge export``.
            provider: An execution provider: ``auto`` (the best that works among those that the file was made for and
                checked on, else the processor), ``cpu``, ``cuda``, ``tensorrt``, ``openvino``, ``directml``,
                ``coreml``, ``qnn`` or ``xnnpack``.
            threads: How many threads compute one answer. Unless given, as many as `vit-edge bench --keep` found best
                for this file on this device, or as many as the process has cores.
            provider_options: Options of ONNX Runtime's provider, as text, that win over those that suit a ViT.
            spinning: Whether threads that wait for work keep their cores busy meanwhile; False for a session that
                answers a camera, and idles between its frames.
            compiling: Entered, with what is being done, while a provider compiles the graph: that can take minutes.

        Raises:
            ModelError: The file is absent, damaged, or carries no labels or preprocessing.
            ProviderError: The provider is missing, does not start, or did not take the model.
        """
        data: Path | bytes
        if isinstance(model, bytes):
            data, name = model, "the model"
        else:
            data, name = Path(model), str(Path(model))
            require_file(data)
        self.name = name

        self.seal = check_seal(data, name)
        started = start_session(
            data,
            name=name,
            provider=provider,
            threads=threads,
            options=provider_options,
            spinning=spinning,
            seal=self.seal,
            compiling=compiling,
        )
        self.provider, self.threads = started.provider, started.threads
        session = started.session
        # Not the session's: what a provider compiled need not carry them.
        self.metadata = Metadata.from_properties(read_properties(data), name)
        self._input = GraphInput.of(session, name)
        self._largest_batch = started.largest_batch
        self._check_shapes(session)
        self._place: Callable[[], Placed] | None = started.placed
        self._placed: Placed | None = None
        self._session: onnxruntime.InferenceSession | None = session
        self._buffers = threading.local()
        self._notes = tuple(f"{name} {note}" for note in _notes(started, self.metadata.recipe))
        if self._notes and self.seal not in _noted:
            import logging  # where nothing differs, nothing is logged, and the start is quicker without

            _noted.add(self.seal)
            for note in self._notes:
                logging.getLogger(__name__).warning(note)

    @property
    def labels(self) -> Labels:
        """The classes in the order of the model's outputs."""
        return self.metadata.labels

    @property
    def preprocessing(self) -> Preprocessing:
        """What happens to an image before the network sees it."""
        return self.metadata.preprocessing

    @property
    def temperature(self) -> float:
        """What the logits are divided by before the softmax, as the file says; 1 where it says nothing."""
        return float(self.metadata.scores.get("temperature") or 1.0)

    @property
    def calibrated(self) -> bool:
        """Whether the file carries a temperature: its probabilities are then about the share of right answers."""
        return self.metadata.scores.get("temperature") is not None

    @property
    def threshold(self) -> float | None:
        """The probability below which the file calls an answer unknown; None where it says nothing.

        Predictions name the likeliest class all the same; whoever shows them decides.
        """
        threshold = self.metadata.scores.get("threshold")
        return None if threshold is None else float(threshold)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know: how this device differs from the one that the file was made for and measured on.

        Each is a sentence; there are none where nothing differs. They are logged as warnings as well, once a file.
        """
        return self._notes

    @property
    def placement(self) -> Mapping[str, int]:
        """How many of the graph's nodes each provider runs, by its short name; the one with the most comes first.

        Counted before providers fuse them; with ONNX Runtime before 1.24, which does not tell, after that, by
        profiling one answer.

        Raises:
            ModelError: The classifier was closed before it was first asked.
        """
        return {provider: sum(operators.values()) for provider, operators in self.operators.items()}

    @property
    def operators(self) -> Placed:
        """How many nodes of each operator each provider runs; see `placement`."""
        if self._placed is None:
            self._open_session()
            assert self._place is not None
            self._placed = self._place()
        return self._placed

    @property
    def input(self) -> InputType:
        """What the graph takes: ``float32``, normalised planes, or ``uint8``, raw pixels (see `pixels`)."""
        return self._input.type

    @property
    def batch(self) -> int | None:
        """The only batch size that the graph takes; None where any is taken."""
        return self._input.batch

    # A path as text is a sequence of text too; the first signature wins, as the code does.
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, images: ImageSource, *, top: int = 5, batch_size: int = 1
    ) -> Prediction: ...

    @overload
    def __call__(
        self, images: Sequence[ImageSource], *, top: int = 5, batch_size: int = 1
    ) -> list[Prediction]: ...

    def __call__(
        self, images: ImageSource | Sequence[ImageSource], *, top: int = 5, batch_size: int = 1
    ) -> Prediction | list[Prediction]:
        """Classify an image or a list of them.

        Args:
            images: A path, the bytes of an image file, or an array (height, width, 3) uint8, RGB, 0..255
                (grayscale and RGBA arrays are taken too); or a list of these.
            top: How many classes each answer holds.
            batch_size: How many images of a list are in work at once. On the processor each is computed by itself,
                as many side by side as there are `threads`: that is faster there than one large tensor, and each image
                gets the answer that it gets alone. Other providers, and a graph of a fixed batch size, get them as one
                tensor; with dynamic INT8, that takes one activation scale per tensor, they can then change each
                other's answers a little.

        Returns:
            A prediction for an image, a list of predictions in the same order for a list.

        Raises:
            ImageError: An image cannot be read.
            ModelError: The classifier was closed, or ONNX Runtime failed.
        """
        if top < 1 or batch_size < 1:
            raise ModelError(f"expected top and batch_size of at least 1, got {top} and {batch_size}")
        if isinstance(images, (str, Path, bytes, np.ndarray)):
            return self._classify([images], top)[0]
        several: Sequence[ImageSource] = images
        if not isinstance(several, Sequence):
            raise ImageError(
                f"expected a path, bytes, an array, or a list of these, got {type(images).__name__}; "
                "turn an iterator into a list first"
            )
        sources = list(several)  # not every sequence has slices: a deque has none
        if self._alone:
            return self._side_by_side(sources, top, min(batch_size, len(sources), self.threads))
        return [
            prediction
            for start in range(0, len(sources), batch_size)
            for prediction in self._classify(sources[start : start + batch_size], top)
        ]

    def classify_frame(self, frame: NDArray[np.uint8], *, top: int = 5) -> Prediction:
        """Classify a camera's frame: the quickest way in.

        Nothing is copied: what the graph takes of the frame is computed into memory that each thread keeps for its
        next frame, and is given to the graph from there.

        Args:
            frame: (height, width, 3) uint8, RGB, 0..255; a part of a larger array too.
            top: How many classes the answer holds.

        Raises:
            ImageError: *frame* has another shape or type.
            ModelError: The classifier was closed, or ONNX Runtime failed.
        """
        if top < 1:
            raise ModelError(f"expected top of at least 1, got {top}")
        start = time.perf_counter()
        buffer: Pixels | None = getattr(self._buffers, "pixels", None)
        if buffer is None:
            buffer = self._buffers.pixels = self._input.empty()[None]
        self._input.prepare(frame, self.preprocessing, out=buffer[0])
        (probabilities,) = self.probabilities(buffer)
        return Prediction(self.best(probabilities, top), (time.perf_counter() - start) * 1e3)

    def pixels(self, image: ImageSource) -> Pixels:
        """Give what the graph takes of an image, resized and cropped.

        Returns:
            (3, height, width) float32, RGB, normalised, where `input` is ``float32``; (height, width, 3) uint8, RGB,
            0..255, where it is ``uint8``: such a graph normalises by itself.

        Raises:
            ImageError: The image cannot be read.
        """
        return self._input.prepare(read_image(image), self.preprocessing)

    def logits(self, pixels: Pixels) -> NDArray[np.float32]:
        """Run the graph.

        Args:
            pixels: Images as `pixels` gives them, one or more along a first axis: (batch, 3, height, width) float32
                or (batch, height, width, 3) uint8.

        Returns:
            (batch, classes) float32.

        Raises:
            ImageError: *pixels* has another shape or type.
            ModelError: The classifier was closed, or ONNX Runtime failed.
        """
        self._input.require(pixels)
        most = self._largest_batch
        if self.batch is None and most is not None and len(pixels) > most:
            return np.concatenate(
                [self._run(pixels[start : start + most]) for start in range(0, len(pixels), most)]
            )
        if self.batch is None or self.batch == len(pixels):
            return self._run(pixels)
        # A graph of a fixed batch size: the last batch is filled up with copies, whose answers are dropped.
        parts = []
        for start in range(0, len(pixels), self.batch):
            part = pixels[start : start + self.batch]
            filled = np.concatenate([part, np.repeat(part[-1:], self.batch - len(part), axis=0)])
            parts.append(self._run(filled)[: len(part)])
        return np.concatenate(parts)

    def probabilities(self, pixels: Pixels) -> NDArray[np.float32]:
        """Run the graph and turn its logits into probabilities, at the file's temperature.

        Args:
            pixels: As `logits` takes them.

        Returns:
            (batch, classes) float32, 0..1, each row's sum is 1.

        Raises:
            ImageError: *pixels* has another shape or type.
            ModelError: The classifier was closed, ONNX Runtime failed, or the answers are no numbers.
        """
        logits = self.logits(pixels)
        if not np.isfinite(logits).all():
            raise ModelError(
                f"{self.name} answered with infinite values or NaN; export it anew with --precision int8 or float32"
            )
        return softmax(logits, self.temperature)

    def best(self, probabilities: NDArray[np.floating[Any]], top: int) -> tuple[Score, ...]:
        """Give the likeliest classes, best first.

        Args:
            probabilities: (classes,), 0..1.
            top: How many at most.
        """
        order = np.argsort(-probabilities, kind="stable")[:top]
        return tuple(
            Score(self.labels[index].name, float(probabilities[index]), int(index), self.labels[index].id)
            for index in order
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the session and its memory; what calls it later gets an error."""
        self._session = None
        self._place = None  # holds the session as well

    def _open_session(self) -> onnxruntime.InferenceSession:
        # Another thread may close the classifier meanwhile; this answer still comes.
        session = self._session
        if session is None:
            raise ModelError(
                f"the classifier of {self.name} was closed; make a new one to classify more images"
            )
        return session

    def _run(self, pixels: Pixels) -> NDArray[np.float32]:
        session = self._open_session()
        try:
            (logits,) = session.run(None, {self._input.name: pixels})
        # ONNX Runtime's exceptions share no base but this one.
        except Exception as error:
            raise refusal(error, self.name) from error
        return np.asarray(logits, dtype=np.float32)

    @property
    def _alone(self) -> bool:
        """Whether images of a batch are computed each by itself."""
        return self.provider == "cpu" and self.batch is None

    def _side_by_side(self, images: Sequence[ImageSource], top: int, workers: int) -> list[Prediction]:
        def one(image: ImageSource) -> Prediction:
            return self._classify([image], top)[0]

        if workers < 2:
            return [one(image) for image in images]
        from concurrent.futures import ThreadPoolExecutor  # not needed for the first answer of most programs

        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(one, images))

    def _classify(self, images: Iterable[ImageSource], top: int) -> list[Prediction]:
        pixels: list[Pixels] = []
        prepare_ms = []
        for image in images:
            start = time.perf_counter()
            pixels.append(self.pixels(image))
            prepare_ms.append((time.perf_counter() - start) * 1e3)
        start = time.perf_counter()
        # One image needs no copy.
        probabilities = self.probabilities(pixels[0][None] if len(pixels) == 1 else np.stack(pixels))
        infer_ms = (time.perf_counter() - start) * 1e3 / len(pixels)
        return [
            Prediction(self.best(row, top), before + infer_ms)
            for row, before in zip(probabilities, prepare_ms, strict=True)
        ]

    def _check_shapes(self, session: onnxruntime.InferenceSession) -> None:
        taken, given = self._input.size, self.preprocessing.crop
        if taken != given:
            raise ModelError(
                f"{self.name} takes {taken[0]}x{taken[1]} pixels but its preprocessing gives {given[0]}x{given[1]}; "
                "export it anew"
            )
        classes = session.get_outputs()[0].shape[-1]
        if classes != len(self.labels):
            raise ModelError(
                f"{self.name} has {classes} outputs but {len(self.labels)} labels; export it anew with all labels"
            )


def _notes(started: Started, recipe: Mapping[str, Any]) -> Iterator[str]:
    """Say what differs from what the file was made for: sentences without their subject, the file."""
    for provider, reason in started.refused:
        yield f"was made for {provider} and runs on the provider {started.provider} here: {reason}"
    if started.refused:
        # Said already, with the reason.
        recipe = {key: value for key, value in recipe.items() if key != "provider"}
    yield from differences(recipe, PROVIDERS[started.provider], processor())
    yield from started.notes

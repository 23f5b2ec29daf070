"""Picks the kind of source by what it is given."""

import math
import os
import re
import stat
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from numpy.typing import NDArray

from ..address import path_of, redact_text, scheme_of
from ..errors import SourceError
from ..image import IMAGE_SUFFIXES, read_image
from .camera import open_camera
from .files import VIDEO_SUFFIXES, images_in, images_of, open_images, open_video_file
from .gstreamer import jetson_pipeline, open_pipeline
from .live import LiveSource
from .pipe import images_in_pipe
from .pulled import Pictures, PulledDevice, PulledSource
from .raspberry import open_raspberry
from .source import Capture, Source
from .stream import open_stream

_NUMBERED = re.compile(r"(picamera|csi)(?::(\d+))?")

_GLOB = frozenset("*?[")

_KINDS = (
    "a camera's number or device, an address (rtsp://, http://), a video, an image, a folder or glob of images, "
    "- for images on standard input, picamera:N, csi:N, or a GStreamer pipeline"
)


def open_source(
    source: str | int | os.PathLike[str] | Iterable[NDArray[Any]], *, capture: Capture | None = None
) -> Source:
    """Open a source of frames, of the kind that fits what is given.

    Args:
        source: A camera's number (``0``) or device (``/dev/video0``); an address (``rtsp://``, ``http://``); the path
            of a video, an image or a folder of images; a glob of images; ``-`` for images on standard input;
            ``picamera`` or ``picamera:1``; ``csi:0`` for a Jetson's camera; a GStreamer pipeline; or an iterable of
            arrays as `read_image` takes them.
        capture: How frames are taken; as a camera likes unless given.

    Raises:
        SourceError: There is no such source, it cannot be opened, or it gives no picture.
        ImageError: It is a single image that cannot be read, or an array that is none.

    >>> import numpy as np
    >>> with open_source([np.zeros((48, 64, 3), np.uint8)] * 2) as source:
    ...     [(frame.number, frame.image.shape) for frame in source]
    [(0, (48, 64, 3)), (1, (48, 64, 3))]
    """
    capture = capture or Capture()
    if isinstance(source, bool):
        raise SourceError(f"expected {_KINDS}, got {source}")
    if isinstance(source, int):
        return _live(lambda: _camera(source, capture), capture)
    if isinstance(source, os.PathLike):
        return _open_path(Path(source), str(source), capture)
    if not isinstance(source, str):
        return _open_arrays(source, capture)
    return _open_text(source, capture)


def _open_text(text: str, capture: Capture) -> Source:
    numbered = _NUMBERED.fullmatch(text)
    scheme = scheme_of(text.strip())
    if scheme is not None:  # what was copied has blanks around it; those of a path may be its own
        text = text.strip()
    if not text.strip():
        raise SourceError(f"expected {_KINDS}, got nothing")
    if text.isascii() and text.isdigit():
        return _live(lambda: _camera(int(text), capture), capture)
    if text == "-":
        return _open_pipe(0, "standard input", capture)
    if numbered is not None:
        number = int(numbered[2] or 0)
        if numbered[1] == "picamera":
            return _live(lambda: open_raspberry(number, capture=capture), capture)
        pipeline = jetson_pipeline(number, capture)
        return _live(lambda: open_pipeline(pipeline, capture=capture, name=text), capture)
    if re.search(r"\s!\s", text):
        return _live(lambda: open_pipeline(text, capture=capture), capture)
    if scheme == "file":
        return _open_path(Path(unquote(path_of(text))), text, capture)
    if scheme in ("http", "https") and PurePosixPath(path_of(text)).suffix.lower() in VIDEO_SUFFIXES:
        return _file(open_video_file(text), capture)
    if scheme is not None:
        return _live(lambda: open_stream(text, capture=capture), capture)
    return _open_path(Path(text).expanduser(), text, capture)


def _open_path(path: Path, text: str, capture: Capture) -> Source:
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        if path.is_relative_to("/dev") and sys.platform == "linux":
            return _live(lambda: open_camera(path, capture=capture), capture)
        if _GLOB & set(text):
            paths = images_of(text)
            return _file(open_images(paths, text), capture)
        if isinstance(error, PermissionError):
            raise SourceError(f"{redact_text(text)} may not be read; check its permissions") from None
        raise SourceError(f"{redact_text(text)} does not exist; expected {_KINDS}") from None
    if stat.S_ISCHR(mode):
        return _live(lambda: open_camera(path, capture=capture), capture)
    if stat.S_ISFIFO(mode):
        return _open_pipe(path, text, capture)
    if stat.S_ISDIR(mode):
        return _file(open_images(images_in(path), text), capture)
    if not os.access(path, os.R_OK):
        raise SourceError(f"{text} may not be read; check its permissions")
    if path.suffix.lower() in IMAGE_SUFFIXES - {".gif"}:
        return _file(open_images([path], text), capture)
    return _file(open_video_file(path), capture)


def _camera(number: int, capture: Capture) -> LiveSource:
    if number < 0:
        raise SourceError(f"expected a camera's number from 0, got {number}")
    return open_camera(number, capture=capture)


def _live(open_live: Callable[[], LiveSource], capture: Capture) -> LiveSource:
    if capture.live is False:
        raise SourceError(
            "a camera or stream is always live: record it to a file to have every frame answered"
        )
    return open_live()


def _file(source: PulledSource, capture: Capture) -> PulledSource:
    if capture.live:
        source.close()
        raise SourceError(f"{source.name} is no live source; every frame of a file is answered")
    return source


def _open_pipe(pipe: int | Path, name: str, capture: Capture) -> Source:
    if pipe == 0 and sys.stdin is not None and sys.stdin.isatty():
        raise SourceError(f"{name} is a terminal; pipe JPEG or PNG images into it, one after another")
    closed = threading.Event()
    return _pulled(name, images_in_pipe(pipe, name, closed), capture, closed)


def _open_arrays(arrays: Iterable[NDArray[Any]], capture: Capture) -> Source:
    try:
        pictures = iter(arrays)
    except TypeError:
        raise SourceError(
            f"expected {_KINDS}, or an iterable of arrays; got {type(arrays).__name__}"
        ) from None
    return _pulled("arrays", _arrays(pictures), capture, threading.Event())


def _arrays(arrays: Iterator[NDArray[Any]]) -> Pictures:
    try:
        for array in arrays:
            yield "arrays", read_image(array)
    finally:
        if isinstance(arrays, Generator):
            arrays.close()


def _pulled(name: str, pictures: Pictures, capture: Capture, closed: threading.Event) -> Source:
    if not capture.live:
        return PulledSource(name, pictures, closed=closed)
    # However long a sender is silent, it cannot be opened again.
    capture = replace(capture, reconnect=False, stall_s=math.inf, open_s=math.inf)
    return LiveSource(
        name,
        lambda: PulledDevice(pictures),
        capture=capture,
        explain=lambda reason: f"{name}: {reason}",
        closed=closed,
    )

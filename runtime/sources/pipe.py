"""Images one after another in a pipe: JPEG and PNG, plain, as MJPEG, or with the parts of a web camera between."""

import logging
import os
import queue
import threading
from collections.abc import Iterator
from pathlib import Path

from ..errors import ImageError, SourceError
from ..image import read_image
from .pulled import Pictures

_LOG = logging.getLogger(__name__)

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"

_CHUNK = 2**16

# More than any image, in bytes: a stream in which none ends must not fill the memory.
_LARGEST = 2**28

# How often a reader that waits looks whether it has been closed, seconds.
_TICK_S = 0.2


def images_in_pipe(pipe: int | Path, name: str, closed: threading.Event) -> Pictures:
    """Give the images that come through a pipe, until its end.

    One that is damaged is noted in the log and left out, unless none can be read.

    Args:
        pipe: A file descriptor, or the path of a named pipe.
        name: For people.
        closed: Ends it, also while it waits.

    Raises:
        SourceError: No image comes.
    """
    seen = read = 0
    for data in split_images(_chunks(pipe, closed), name):
        seen += 1
        try:
            image = read_image(data)
        except ImageError as error:
            _LOG.warning("left out image %d from %s: %s", seen, name, error)
            continue
        read += 1
        yield name, image
    if not read and not closed.is_set():
        raise SourceError(
            f"expected JPEG or PNG images one after another from {name}, got "
            + (f"{seen}, none of which can be read; the log says why" if seen else "none")
        )


def split_images(chunks: Iterator[bytes], name: str) -> Iterator[bytes]:
    """Cut a stream of bytes into its JPEG and PNG files; what lies between them is skipped.

    An image that the end of the stream cuts short is left out, and the log says so.

    Raises:
        SourceError: One is larger than 256 MiB.
    """
    stream = _Bytes(chunks, name)
    while (start := stream.seek_image()) is not None:
        try:
            length = _jpeg_length(stream) if start == _JPEG else _png_length(stream)
            data = stream.take(length)
        except EOFError:
            _LOG.warning("%s ends within an image, which is left out", name)
            return
        yield data


class _Bytes:
    """What has come through so far and was not taken, and the means to wait for more."""

    def __init__(self, chunks: Iterator[bytes], name: str) -> None:
        self._chunks = chunks
        self._name = name
        self._data = bytearray()

    def need(self, length: int) -> bytearray:
        """Give what is there, at least so many bytes of it."""
        if length > _LARGEST:
            raise SourceError(
                f"{self._name} holds an image of more than {_LARGEST >> 20} MiB; expected smaller ones"
            )
        while len(self._data) < length:
            chunk = next(self._chunks, None)
            if chunk is None:
                raise EOFError
            self._data += chunk
        return self._data

    def take(self, length: int) -> bytes:
        """Give so many bytes and forget them."""
        data = bytes(self.need(length)[:length])
        del self._data[:length]
        return data

    def seek_image(self) -> bytes | None:
        """Skip to the next image; give how it starts, or None at the end."""
        while True:
            found = {mark: at for mark in (_JPEG, _PNG) if (at := self._data.find(mark)) >= 0}
            if found:
                mark = min(found, key=lambda mark: found[mark])
                del self._data[: found[mark]]
                return mark
            # A mark may lie across two chunks.
            del self._data[: max(0, len(self._data) - len(_PNG) + 1)]
            try:
                self.need(len(self._data) + 1)
            except EOFError:
                return None


def _jpeg_length(stream: _Bytes) -> int:
    """Find the end of a JPEG (ITU-T T.81, annex B): its segments tell their lengths, scans end at a marker."""
    at = 2
    while True:
        # No more than the end needs: the next image may be long in coming.
        data = stream.need(at + 2)
        marker = data[at + 1]
        if data[at] != 0xFF:  # damaged: the decoder will say so
            return at
        if marker == 0xD9:
            return at + 2
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD7:  # TEM and RST stand alone
            at += 2
        else:
            at += 2 + int.from_bytes(stream.need(at + 4)[at + 2 : at + 4], "big")
            if marker == 0xDA:
                at = _scan_end(stream, at)


def _scan_end(stream: _Bytes, at: int) -> int:
    """Find the marker after a scan's data, in which FF stands only before 00 and before RST markers."""
    while True:
        data = stream.need(at + 2)
        found = data.find(0xFF, at, len(data) - 1)
        if found < 0:
            at = len(data) - 1
        elif data[found + 1] == 0 or 0xD0 <= data[found + 1] <= 0xD7:
            at = found + 2
        else:
            return found


def _png_length(stream: _Bytes) -> int:
    """Find the end of a PNG: its chunks tell their lengths (PNG specification, section 5.3)."""
    at = len(_PNG)
    while True:
        data = stream.need(at + 8)
        kind = data[at + 4 : at + 8]
        at += 12 + int.from_bytes(data[at : at + 4], "big")
        if kind == b"IEND":
            return at


def _chunks(pipe: int | Path, closed: threading.Event) -> Iterator[bytes]:
    """Read a pipe in a thread of its own, since a read that waits for a silent sender cannot be interrupted."""
    chunks: queue.Queue[bytes | OSError] = queue.Queue(maxsize=1)

    def read() -> None:
        try:
            descriptor = pipe if isinstance(pipe, int) else os.open(pipe, os.O_RDONLY)
            while not closed.is_set():
                chunk = os.read(descriptor, _CHUNK)
                chunks.put(chunk)
                if not chunk:
                    break
            if not isinstance(pipe, int):
                os.close(descriptor)
        except OSError as error:
            chunks.put(error)

    threading.Thread(target=read, daemon=True, name="vit-edge pipe").start()
    while not closed.is_set():
        try:
            chunk = chunks.get(timeout=_TICK_S)
        except queue.Empty:
            continue
        if isinstance(chunk, OSError):
            raise SourceError(
                f"the pipe cannot be read ({chunk.strerror}); start its sender again"
            ) from chunk
        if not chunk:
            return
        yield chunk

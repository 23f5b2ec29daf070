"""Video files, image files, folders and globs of images."""

import glob
import logging
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2

from ..address import redact, redact_text, remove_secrets
from ..errors import ImageError, SourceError
from ..image import IMAGE_SUFFIXES, read_image
from .opencv import ask_ffmpeg, open_video, read_through, stated_fps, to_rgb
from .pulled import Pictures, PulledSource

_LOG = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"})
"""The suffixes by which an ``http://`` address is a file rather than a live stream."""

# How long a server may take to send the next piece of a file, seconds.
_SERVER_S = 30.0

# So many frames the count of a whole video may be off.
_SPARE_FRAMES = 2

# More than any video has.
_MOST_FRAMES = 10**9

# How often reading goes on after pictures that cannot be decoded, and what counts as waiting for a server, seconds.
_TRIES, _SILENT_S = 100, 1.0


def open_images(paths: Sequence[Path], name: str) -> PulledSource:
    """Give image files in the order of *paths*.

    One that cannot be read is noted in the log and left out, unless none can be read.
    """
    return PulledSource(name, _images(paths))


def _images(paths: Sequence[Path]) -> Pictures:
    read = 0
    for path in paths:
        try:
            image = read_image(path)
        except ImageError as error:
            if len(paths) == 1:
                raise
            _LOG.warning("left out: %s", error)
            continue
        read += 1
        yield str(path), image
    if not read:
        raise SourceError(f"of {len(paths)} images none can be read; the log says why")


def images_in(folder: Path) -> list[Path]:
    """Find every image below a folder, in the order of the names; hidden files and folders are left out.

    Raises:
        SourceError: There is none, or the folder cannot be read.
    """
    found = list(_walk(folder))
    if not found:
        raise SourceError(f"expected images (such as .jpg or .png files) in {folder}, got none")
    return found


def _walk(folder: Path) -> Iterator[Path]:
    try:
        for path in sorted(folder.iterdir()):
            if path.name.startswith("."):
                continue
            if path.is_dir():
                yield from _walk(path)
            elif path.suffix.lower() in IMAGE_SUFFIXES:
                yield path
    except OSError as error:
        raise SourceError(f"{folder} cannot be read ({error.strerror}); check its permissions") from error


def images_of(pattern: str) -> list[Path]:
    """Find the images that a glob names, ``**`` for any folders, in the order of the names.

    Raises:
        SourceError: There is none.
    """
    found = [Path(path) for path in sorted(glob.glob(os.path.expanduser(pattern), recursive=True))]  # noqa: PTH111, PTH207
    images = [path for path in found if path.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        what = f"{len(found)} files, none of them an image" if found else "nothing"
        raise SourceError(f"expected {redact_text(pattern)} to name images, got {what}; check the pattern")
    return images


def open_video_file(path: Path | str) -> PulledSource:
    """Open a video file, or one at an ``http://`` address; every frame of it counts.

    Raises:
        SourceError: It is no video that this OpenCV reads.
    """
    name = redact(str(path))
    settings: tuple[int, ...] = ()
    if isinstance(path, str):
        limit = round(1000 * _SERVER_S)
        settings = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, limit, cv2.CAP_PROP_READ_TIMEOUT_MSEC, limit)
    video = open_video(str(path), cv2.CAP_FFMPEG, settings)
    if video is None and isinstance(path, Path):  # a system's own decoder may know more
        video = open_video(str(path), cv2.CAP_ANY)
    if video is None:
        said = ask_ffmpeg(str(path), _SERVER_S)
        reason = f" ({remove_secrets(said, str(path))})" if said else ""
        raise SourceError(
            f"{name} is damaged, or no video that OpenCV {cv2.__version__} reads{reason}; copy it again, or convert "
            f"it with `ffmpeg -i FILE out.mp4`"
        )
    return PulledSource(name, _frames(video, str(path), name), fps=stated_fps(video))


def _frames(video: cv2.VideoCapture, path: str, name: str) -> Pictures:
    end = _End(video)
    failed = 0
    try:
        while True:
            start_s = time.monotonic()
            found, picture = video.read()
            if found:
                if failed:
                    _LOG.warning(
                        "left out: a part of %s after frame %d, which is damaged", name, end.given - 1
                    )
                failed = 0
                end.add()
                yield name, to_rgb(picture)
                continue
            failed += 1
            # What follows a damaged picture may be whole; a server that was waited for will not answer at once.
            if end.missing <= _SPARE_FRAMES or failed > _TRIES or time.monotonic() - start_s > _SILENT_S:
                break
    finally:
        video.release()
    if not end.given:
        raise SourceError(f"{name} holds no picture that can be decoded; copy it again")
    if end.missing > _SPARE_FRAMES:
        _tell_missing(end, path, name)


class _End:
    """Compares what a video gave with what it says that it has, which containers know more or less well."""

    def __init__(self, video: cv2.VideoCapture) -> None:
        self._video = video
        self.fps = stated_fps(video) or 0.0
        stated = video.get(cv2.CAP_PROP_FRAME_COUNT)
        # Where there is none, OpenCV makes a number up, often a negative one; other decoders guess.
        known = 0 < stated < _MOST_FRAMES and video.getBackendName() == "FFMPEG"
        self.stated = int(stated) if known else 0
        self.given = 0
        self._place = 0

    def add(self) -> None:
        """Count a frame."""
        self.given += 1
        # Frames that are not evenly spaced are fewer than the duration's share, from which some counts are made.
        position_s = self._video.get(cv2.CAP_PROP_POS_MSEC) / 1000
        self._place = max(self.given, round(position_s * self.fps) + 1)

    @property
    def missing(self) -> int:
        """How many frames there should be after those that came."""
        return self.stated - self._place


def _tell_missing(end: _End, path: str, name: str) -> None:
    """Say that a video ended early: as an error where FFmpeg knows why, and else as a note, since it may be its way."""
    held, said = read_through(path, _SERVER_S)
    ended = f"{name} ended after {end.given} of some {end.stated} frames"
    if said:
        raise SourceError(
            f"{ended} ({remove_secrets(said, path)}); it is damaged or cut short, so copy it again, or check its server"
        )
    # One that was trimmed without coding it anew holds pictures that are not shown, and sound may go on for a while.
    if end.stated - held > _SPARE_FRAMES and end.missing > max(end.fps, end.stated / 20):
        _LOG.warning("%s; it may be cut short", ended)

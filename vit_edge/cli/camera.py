"""``vit-edge camera``: a webcam, a video or a stream, classified without lag."""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from ..errors import OptionError
from . import options as shared
from .progress import note, working
from .serve import make_page
from .stop import Stop

if TYPE_CHECKING:
    from ..runtime.answer import Answer
    from ..runtime.loop import Watch
    from ..runtime.sinks import Fan, Sink
    from ..runtime.sources import Source

# How often a window answers its user, and a signal is looked for, while no answer comes.
_GLANCE_S = 0.05


def camera(
    model: Annotated[Path, typer.Argument(help="A file made by `vit-edge export`.")],
    source: Annotated[
        str,
        typer.Argument(
            help="A camera's number or device, an address (rtsp://, http://), a video, a folder or glob of images, or "
            "- for images on standard input."
        ),
    ] = "0",
    window: Annotated[
        bool | None,
        typer.Option(
            "--window/--no-window", help="Show the answers in a window.  [default: where there is a screen]"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a frame.")] = False,
    record: Annotated[
        Path | None,
        typer.Option(
            metavar="VIDEO", help="Record the annotated frames into a video (.mp4, .mov, .mkv, .avi)."
        ),
    ] = None,
    grab: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Save a frame now and then, and all the unsure ones, to calibrate or train with.",
        ),
    ] = None,
    grab_every: Annotated[
        float, typer.Option(metavar="S", help="Seconds from one saved frame to the next.")
    ] = 60.0,
    grab_most: Annotated[
        int, typer.Option(min=1, metavar="COUNT", help="How many frames the folder may hold, at most 2 GB.")
    ] = 2000,
    serve: Annotated[
        str | None,
        typer.Option(
            metavar="[HOST:PORT]",
            help="Show the answers on a live page, in a browser: at 127.0.0.1:8000 unless told otherwise; where others "
            "can reach it, it has a token.",
        ),
    ] = None,
    serve_token: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN",
            envvar="VIT_EDGE_SERVE_TOKEN",
            help="The live page's token, to keep one address over restarts; a new one each time unless given.",
        ),
    ] = None,
    max_age: Annotated[
        float | None,
        typer.Option(
            metavar="MS",
            help="How old an answer may be: whatever else there is to do is shed to hold it, and where that isn't "
            "enough, it is said.",
        ),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(metavar="HZ", help="Classify at most so many frames a second.")
    ] = None,
    still: Annotated[
        bool, typer.Option("--still", help="Spare the model while the scene stands still.")
    ] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Take each frame by itself, without steadying.")] = False,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="A less probable answer is `unknown`.  [default: what the file says]"
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many classes each answer holds.")] = 5,
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="The camera's picture, as in 1280x720.")
    ] = None,
    fps: Annotated[float | None, typer.Option(help="The camera's frames a second.")] = None,
    fourcc: Annotated[
        str | None, typer.Option(help="The four letters of the camera's format, as in MJPG.")
    ] = None,
    reconnect: Annotated[bool, typer.Option(help="Open a camera or stream that goes away again.")] = True,
    provider: shared.Provider = "auto",
    provider_option: shared.ProviderOptions = None,
    threads: shared.Threads = None,
    spin: Annotated[
        bool,
        typer.Option(
            "--spin", help="Let waiting threads keep their cores busy, which can save a millisecond."
        ),
    ] = False,
    quiet: shared.Quiet = False,
) -> None:
    """Classify a webcam, a video or a stream, without lag.

    Of a camera or stream the newest frame is classified, of a file every frame. Ctrl-C ends it, finishes the recording
    and prints a summary; so does SIGTERM. The exit status is then 0 for a camera or stream, which has no other end, and
    as usual for the signal (130, 143) for a file, which has.
    """
    from ..runtime.classifier import Classifier
    from ..runtime.loop import STEADY_S, watch
    from ..runtime.sinks import Fan
    from ..runtime.sources import Capture, open_source

    if max_age is not None and not max_age > 0:
        raise OptionError(f"expected --max-age above 0 ms, got {max_age:g}")
    stop, live = Stop(), False
    with ExitStack() as stack:
        stack.enter_context(_notes(quiet=quiet))
        stack.enter_context(stop)
        classifier = stack.enter_context(
            Classifier(
                model,
                provider,
                threads,
                provider_options=shared.provider_options(provider_option),
                spinning=spin,
                compiling=partial(working, quiet=quiet),
            )
        )
        page = make_page(serve, token=serve_token, classifier=classifier, model=model)
        capture = Capture(size=_size(size), fps=fps, fourcc=fourcc, reconnect=reconnect)
        opened = stack.enter_context(open_source(source, capture=capture))
        live = opened.live
        if rate is not None and not live:
            raise OptionError("--rate is for a camera or stream; of a file every frame is answered")
        answers = watch(
            classifier,
            opened,
            top=top,
            threshold=threshold,
            steady_s=0.0 if raw else STEADY_S,
            max_age_ms=max_age,
            rate_hz=rate,
            still=still,
        )
        sinks = list(
            _sinks(
                opened,
                stack,
                window=window,
                as_json=as_json,
                record=record,
                record_fps=min(rate, 25.0) if rate is not None else None,
                grab=grab,
                grab_every=grab_every,
                grab_most=grab_most,
                title=f"{model.name} - {opened.name}",
                quiet=quiet,
            )
        )
        if page is not None:
            sinks.append(page)
        try:
            with Fan(sinks, relief=lambda: answers.relief) as fan:
                stop.calls(fan.hurry)
                if page is not None and page.serving:
                    # A token that was made just now is nowhere else.
                    known = serve_token or "token=" not in page.url
                    note(f"live page: {page.url}", quiet=quiet and bool(known))
                with answers:
                    _loop(answers, fan, stop)
        finally:
            note(f"{opened.name}: {answers.summary}", quiet=quiet)
    if stop.number is not None and not live:
        raise typer.Exit(128 + stop.number)


def _loop(answers: "Watch", fan: "Fan", stop: Stop) -> None:
    while stop.number is None:
        try:
            answer = answers.wait(_GLANCE_S)
        except StopIteration:
            return
        if not (fan.idle() if answer is None else fan.show(answer)):
            return


def _sinks(
    source: "Source",
    stack: ExitStack,
    *,
    window: bool | None,
    as_json: bool,
    record: Path | None,
    record_fps: float | None,
    grab: Path | None,
    grab_every: float,
    grab_most: int,
    title: str,
    quiet: bool,
) -> "Iterator[Sink]":
    """Make the outputs that were asked for; what cannot be had is said, and left out.

    Raises:
        SinkError: An option is out of range.
    """
    from ..runtime.sinks import GrabSink, JsonSink, RecordSink, TextSink, WindowSink
    from ..runtime.sinks.window import why_no_window

    shown = False
    if window is not False:
        if (reason := why_no_window()) is None:
            shown = True
            yield WindowSink(title)
        else:
            note(f"no window: {reason}", quiet=quiet and window is None)
    if as_json:
        yield JsonSink(stack.enter_context(_stdout()), live=source.live)
    elif not shown:
        yield TextSink(stack.enter_context(_stdout()), live=source.live, place=_place(source))
    if record is not None:
        yield RecordSink(record, fps=record_fps if source.live else source.fps, live=source.live)
    if grab is not None:
        yield GrabSink(grab, live=source.live, every_s=grab_every, most_files=grab_most)


def _place(source: "Source") -> "Callable[[Answer], str] | None":
    """Give what to begin a line of text with: the time of day, the place in a video, or the name of an image."""
    fps = source.fps
    if source.live:
        return None
    if fps is None:
        return lambda answer: answer.source
    return lambda answer: "{:.0f}:{:05.2f}".format(*divmod(answer.frame / fps, 60))


@contextmanager
def _stdout() -> Iterator[BinaryIO]:
    """Give standard output without a buffer: what is stuck in one would hinder the end of the program."""
    if sys.stdout is None:
        raise OptionError("standard output is closed; leave it open, or ask for other outputs")
    sys.stdout.flush()
    with open(os.dup(sys.stdout.fileno()), "wb", buffering=0) as stream:  # noqa: PTH123  a descriptor
        yield stream


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    width, times, height = text.lower().partition("x")
    if not (times and width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise OptionError(f"expected a size as WIDTHxHEIGHT, as in 1280x720, got {text!r}")
    return int(width), int(height)


@contextmanager
def _notes(*, quiet: bool) -> Iterator[None]:
    """Print what the runtime logs, as lines on stderr."""
    logger = logging.getLogger("vit_edge.runtime")
    handler = _Handler(logging.ERROR if quiet else logging.WARNING)
    handler.setFormatter(logging.Formatter("note: %(message)s"))
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        note(self.format(record))

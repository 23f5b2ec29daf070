"""The command line ``vit-edge``: it parses, calls, prints and sets the exit status; nothing else prints."""

import io
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from .. import __version__
from ..errors import OptionError, VitEdgeError
from .bench import bench
from .camera import camera
from .check import check
from .choose import choose
from .classify import classify
from .compile import compile_
from .demo import demo
from .doctor import doctor
from .export import export
from .hiding import Command, Group, hide
from .info import info, models
from .serve import complete
from .train import train
from .verify import verify

__all__ = ["app", "main"]

app = typer.Typer(
    name="vit-edge",
    cls=Group,
    help="Take a Vision Transformer from PyTorch to a small device, fast and provably intact.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_COMMANDS: tuple[Callable[..., Any], ...] = (
    demo,
    train,
    export,
    check,
    verify,
    choose,
    classify,
    camera,
    bench,
    info,
    models,
    doctor,
    compile_,
)
for _command in _COMMANDS:
    # A function's name gives way to Python's own names by an underscore.
    app.command(_command.__name__.rstrip("_"), cls=Command)(_command)

# Which extra brings a module that may be absent.
_EXTRAS = {
    "cv2": "runtime",
    "onnxruntime": "runtime",
    "huggingface_hub": "export",
    "onnx": "export",
    "onnxscript": "export",
    "onnxsim": "export",
    "safetensors": "export",
    "torch": "export",
    "torchvision": "train",
    "accelerate": "train",
    "sklearn": "demo",
    "starlette": "page",
    "uvicorn": "page",
}

# Commands whose own extra brings what they need of the others.
_OWN_EXTRA = {"train": "train"}


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vit-edge {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; an error that the user can mend is one sentence on stderr.

    The exit status is 0 for success, 1 for a failure or a broken bound, 2 for a wrong use of the command line.
    """
    # A file's name or a label that the terminal's encoding lacks is shown as an escape, and stops nothing.
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app(args=complete(sys.argv[1:]))
    except OptionError as error:
        _fail(str(error), status=2)
    except VitEdgeError as error:
        _fail(str(error), status=1)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        extra = _OWN_EXTRA.get("".join(sys.argv[1:2]), extra)
        _fail(
            f"{error.name} is not installed; install what this command needs with "
            f"`pip install 'vit-edge[{extra}]'`",
            status=1,
        )
    except ImportError as error:
        # OpenCV's ordinary wheel needs the libraries of a desktop.
        if "libGL" not in str(error) and "cv2" not in (error.name or ""):
            raise
        _fail(
            f"OpenCV cannot load here ({error}); without a screen take its headless wheel: "
            "`pip uninstall -y opencv-python && pip install opencv-python-headless`",
            status=1,
        )
    except BrokenPipeError:
        # The reader of our output went away (`| head`); Python would complain once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _fail(sentence: str, *, status: int) -> None:
    typer.echo(f"error: {hide(sentence, sys.argv[1:])}", err=True)
    sys.exit(status)

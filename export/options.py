"""What an export is asked for: precision, graph, and the bounds that its answers must keep."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from ..errors import OptionError
from ..evaluation import Bounds
from .pareto import PICKS, Pick
from .schedule import parse_schedule
from .targets import target

Precision = Literal["auto", "float32", "float16", "int8"]
Input = Literal["float32", "uint8"]


MAX_PICTURES = 64
"""The most pictures that a capsule holds: at 224 pixels, each takes 0.1 to 0.2 MB of the file."""

DEFAULT_BOUNDS = {
    "float32": Bounds(min_agreement=0.999, max_drift=1e-4, max_drop=0.1, min_batched_agreement=0.999),
    "float16": Bounds(min_agreement=0.99, max_drift=0.02, max_drop=0.5, min_batched_agreement=0.99),
    "int8": Bounds(min_agreement=0.98, max_drift=0.15, max_drop=1.0, min_batched_agreement=0.93),
}
"""The bounds of each precision where the user states none."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to export.

    Attributes:
        precision: ``auto`` is INT8 where it keeps its bounds, else float32 with the reason; any other stops where
            it breaks them.
        simplify: Whether onnxsim simplifies the graph.
        opset: The ONNX operator set of the graph.
        batch: A fixed batch size; None takes any.
        samples: How many of the calibration images are used, spread evenly over all.
        min_agreement, max_drift, max_drop: In place of the default bounds of the shipped precision.
        min_speedup: How many times as fast as the float graph an INT8 graph must answer on this machine.
        targets: What the files are for, keys of `TARGETS`; one file each.
        input: What the graph takes: ``float32``, normalised planes, or ``uint8``, raw pixels (batch, height, width, 3).
        budget_s: How long the search for the INT8 graph may take, in seconds.
        pick: Which of the candidates that keep their bounds ships: ``balanced`` (the closest that is at most 12 %
            slower than the fastest), ``fastest``, ``smallest`` or ``closest``.
        merge_tokens: ``auto`` tries schedules of token merging; BLOCK:TOKENS,… sets one; None merges nothing.
        target_python: An interpreter whose ONNX Runtime has the target's execution provider, where this one's has not.
        threshold: The probability below which the file calls an answer unknown, in the place of the default.
        capsule: Which pictures travel in the file for `vit-edge verify`: None, a few that are made by code; a number,
            so many of the calibration images, 0 for none at all; a folder, 8 of its images.
        force: Whether an existing file may be replaced.
    """

    precision: Precision = "auto"
    simplify: bool = True
    opset: int = 20
    batch: int | None = None
    samples: int = 128
    min_agreement: float | None = None
    max_drift: float | None = None
    max_drop: float | None = None
    min_speedup: float = 1.05
    targets: tuple[str, ...] = ("cpu",)
    input: Input = "float32"
    budget_s: float = 300.0
    pick: Pick = "balanced"
    merge_tokens: str | None = None
    target_python: Path | None = None
    threshold: float | None = None
    capsule: int | Path | None = None
    force: bool = False
    bounds: dict[str, Bounds] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, value, known in (
            ("precision", self.precision, get_args(Precision)),
            ("input", self.input, get_args(Input)),
            ("pick", self.pick, PICKS),
        ):
            if value not in known:
                raise OptionError(f"expected --{name} to be one of {', '.join(known)}, got {value}")
        if not self.targets or len(set(self.targets)) != len(self.targets):
            raise OptionError(f"expected each target once, got {', '.join(self.targets) or 'none'}")
        for name in self.targets:
            if target(name).recipe == "float16" and self.precision == "int8":
                raise OptionError(
                    f"the provider of the target {name} does not run INT8; leave out --precision for float16"
                )
        if not self.budget_s >= 0:
            raise OptionError(f"expected --budget of at least 0, got {self.budget_s}")
        if self.merge_tokens not in (None, "auto"):
            parse_schedule(self.merge_tokens)
        if self.batch is not None and self.batch < 1:
            raise OptionError(f"expected --batch of at least 1, got {self.batch}")
        if isinstance(self.capsule, int) and not 0 <= self.capsule <= MAX_PICTURES:
            raise OptionError(
                f"expected --capsule as a folder or a number of pictures from 0 to {MAX_PICTURES}, got {self.capsule}"
            )
        if self.samples < 1:
            raise OptionError(f"expected --samples of at least 1, got {self.samples}")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise OptionError(f"expected --threshold from 0 to 1, got {self.threshold}")
        if not self.min_speedup >= 0:
            raise OptionError(f"expected --min-speedup of at least 0, got {self.min_speedup}")
        given = {
            name: value
            for name in ("min_agreement", "max_drift", "max_drop")
            if (value := getattr(self, name)) is not None
        }
        # The user's bounds are for the precision asked for; float32 is where every export begins, and keeps its own.
        lossy = {
            "auto": ("int8", "float16"),
            "int8": ("int8",),
            "float16": ("float16",),
            "float32": ("float32",),
        }
        bounds = {
            name: replace(default, **given) if name in lossy[self.precision] else default
            for name, default in DEFAULT_BOUNDS.items()
        }
        object.__setattr__(self, "bounds", bounds)

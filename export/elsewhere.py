"""Answers and times on an execution provider that lives in another interpreter's ONNX Runtime.

Wheels of ONNX Runtime with different providers overwrite each other, so that each needs an environment of its own.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ..errors import ExportError, OptionError
from .images import Tick
from .targets import Target

_WORKER = Path(__file__).with_name("elsewhere_worker.py")


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A target's provider, in the ONNX Runtime of some interpreter.

    Attributes:
        target: What the provider is asked for.
        python: The interpreter; this one where its own ONNX Runtime has the provider.
        timeout_s: How long one call may take.
    """

    target: Target
    python: Path = field(default_factory=lambda: Path(sys.executable))
    timeout_s: float = 600.0

    def require(self) -> None:
        """Make sure that the interpreter starts and that its ONNX Runtime has the provider.

        Raises:
            OptionError, ExportError: As `answers`.
        """
        with tempfile.TemporaryDirectory(prefix="vit-edge-") as folder:
            for _ in self._work({"do": "require"}, [], Path(folder), 1, ""):
                pass

    def answers(
        self, model: onnx.ModelProto, pixels: Path, *, threads: int
    ) -> Generator[Tick, None, NDArray[np.float32]]:
        """Run a graph on images, one by one.

        Args:
            model: The graph.
            pixels: A .npy file of (images, 3, height, width) float32, as the graph takes them.
            threads: How many threads compute one answer.

        Returns:
            (images, classes) float32, the logits.

        Raises:
            OptionError: There is no such interpreter, or it lacks ONNX Runtime or the provider.
            ExportError: The provider left the graph to another, failed, crashed, or took too long.
        """
        with tempfile.TemporaryDirectory(prefix="vit-edge-") as folder:
            logits = Path(folder, "logits.npy")
            task = {"do": "answer", "pixels": str(pixels.resolve()), "logits": str(logits)}
            yield from self._work(task, [model], Path(folder), threads, "answers")
            answered: NDArray[np.float32] = np.load(logits)
            return answered

    def race(
        self, models: Sequence[onnx.ModelProto], pixels: NDArray[np.float32], *, threads: int
    ) -> Generator[Tick, None, tuple[float, ...]]:
        """Time graphs in turns, as `speed.race` does here.

        Args:
            models: The graphs.
            pixels: One input, (batch, 3, height, width) float32.
            threads: How many threads compute one answer.

        Returns:
            For each graph the time of an answer in milliseconds: the 20th percentile.

        Raises:
            OptionError, ExportError: As `answers`.
        """
        with tempfile.TemporaryDirectory(prefix="vit-edge-") as folder:
            stored = Path(folder, "pixels.npy")
            np.save(stored, pixels)
            task = {"do": "race", "pixels": str(stored)}
            times = yield from self._work(task, models, Path(folder), threads, "timing")
            return tuple(times)

    def _work(
        self, task: dict[str, Any], models: Sequence[onnx.ModelProto], folder: Path, threads: int, stage: str
    ) -> Generator[Tick, None, Any]:
        paths = [folder / f"{place}.onnx" for place in range(len(models))]
        for path, model in zip(paths, models, strict=True):
            path.write_bytes(model.SerializeToString())
        task |= {
            "models": [str(path) for path in paths],
            "provider": self.target.provider_name,
            "options": self.target.provider_options(threads),
            "threads": threads,
        }
        with (folder / "errors.txt").open("w+b") as errors, self._start(errors) as child:
            try:
                result = yield from self._listen(child, json.dumps(task), stage)
            finally:
                child.kill()
        if result is None:
            raise self._silence(child.returncode, (folder / "errors.txt").read_text("utf-8", "replace"))
        if "refused" in result:
            raise ExportError(f"{self._place}: {result['refused']}; {self._advice}")
        return result["result"]

    def _start(self, errors: Any) -> "subprocess.Popen[str]":
        # Of this interpreter's own settings nothing may reach another one.
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        try:
            return subprocess.Popen(
                [str(self.python), str(_WORKER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                encoding="utf-8",
                errors="replace",
                env=kept,
            )
        except OSError as error:
            raise OptionError(
                f"cannot start the interpreter {self.python} ({error.strerror}); "
                f"give the python of an environment whose ONNX Runtime has the provider {self.target.provider}"
            ) from error

    def _listen(
        self, child: "subprocess.Popen[str]", task: str, stage: str
    ) -> Generator[Tick, None, dict[str, Any] | None]:
        """Pass on the child's progress; its last word, None where it ended without one."""
        assert child.stdin is not None
        assert child.stdout is not None
        lines: queue.Queue[str | None] = queue.Queue()
        thread = threading.Thread(target=_read, args=(child.stdout, lines), daemon=True)
        thread.start()
        try:
            child.stdin.write(task)
            child.stdin.close()
        except OSError:
            # It has ended before it read; what it left on its standard error says why.
            pass
        end = time.monotonic() + self.timeout_s
        while True:
            try:
                line = lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise ExportError(
                    f"{self._place}: no result after {self.timeout_s:.0f} s; give it more time, or fewer images"
                ) from None
            if line is None:
                child.wait()
                return None
            said: dict[str, Any] = json.loads(line)
            if "done" not in said:
                return said
            yield Tick(f"{stage} on {self.target.name}", said["done"], said["total"])

    def _silence(self, status: int, errors: str) -> Exception:
        if status < 0:
            return ExportError(f"{self._place} crashed ({signal.Signals(-status).name}); {self._advice}")
        reason = (errors.strip().splitlines() or ["no reason given"])[-1]
        if "ModuleNotFoundError" in reason:
            return OptionError(
                f"{self._place} lacks what the measurement needs ({reason}); install numpy and the wheel of "
                f"onnxruntime with the provider {self.target.provider} there"
            )
        return ExportError(f"{self._place} ended without a result ({reason}); {self._advice}")

    @property
    def _place(self) -> str:
        return f"{self.target.name} in {self.python}"

    @property
    def _advice(self) -> str:
        return f"mend that environment, or export for another target than {self.target.name}"


def _read(stream: Any, lines: "queue.Queue[str | None]") -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)

"""Two processes that train together, as `torchrun` starts them, beside one."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from vit_edge.checkpoint import load_checkpoint
from vit_edge.training import BEST, Recipe, Step, fit, new_model, open_run
from vit_edge.training.batches import batches
from vit_edge.training.run import LAST, METRICS, STATE

from .test_fit import CONFIG, LABELS, TIMES, painted

pytestmark = pytest.mark.slow

# 24 images in batches of 9: pairs that do not share out evenly, and at last fewer images than a whole batch.
RECIPE = Recipe(
    epochs=2,
    batch_size=9,
    learning_rate=3e-3,
    augment="trivial",
    mixup=0.8,
    cutmix=1.0,
    drop_path=0.2,
    ema=0.5,
)

_SCRIPT = """
import sys
from pathlib import Path
from tests.training.test_processes import train
train(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def train(folder: Path, run: Path, *, stop_at: int = 0) -> None:
    """Train, or go on, and write down which images this process was given."""
    rank = os.environ.get("RANK", "0")
    pictures = Path(tempfile.mkdtemp(dir=folder))
    sets = painted(pictures / "training"), painted(pictures / "validation", seed=1)
    model = new_model(CONFIG, seed=0)
    stop_at = int(os.environ.get("STOP_AT", stop_at))

    def look(step: Step) -> None:
        if os.environ.get("SHARDED"):
            shards: list[Any] = [value for name, value in model.named_parameters() if "qkv.b" in name]
            (half,) = {len(value.to_local()) for value in shards}
            assert half == 3 * CONFIG.width // 2
        if step.step == stop_at:
            raise InterruptedError

    run = open_run(run, resume=True)
    epochs = fit(
        model, *sets, labels=LABELS, recipe=RECIPE, run=run, resume=True, save_every_s=0, on_step=look
    )
    try:
        list(epochs)
    except InterruptedError:
        if "STOP_AT" in os.environ:
            raise
        return
    world = int(os.environ.get("WORLD_SIZE", "1"))
    seen = [
        place
        for batch in batches(sets[0], RECIPE, epochs=[1], rank=int(rank), world=world)
        if batch.weight
        for place in batch.places.tolist()
    ]
    (folder / f"seen.{rank}.json").write_text(json.dumps(seen))


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")

# A file as `accelerate config` writes it, for two processes on one machine without a GPU.
ACCELERATE = """
compute_environment: LOCAL_MACHINE
distributed_type: FSDP
fsdp_config:
  fsdp_version: 2
  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP
  fsdp_state_dict_type: FULL_STATE_DICT
mixed_precision: "no"
num_machines: 1
num_processes: 2
use_cpu: true
"""


def launch(
    folder: Path, run: Path, *, launcher: tuple[str, ...] = TORCHRUN, status: int = 0, **variables: str
) -> str:
    """Start two processes, and give what they wrote on stderr."""
    folder.mkdir(exist_ok=True)
    script = folder / "script.py"
    script.write_text(_SCRIPT)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    environment |= {"CUDA_VISIBLE_DEVICES": "", **variables}
    done = subprocess.run(
        [sys.executable, *launcher, str(script), str(folder), str(run)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        check=False,
    )
    assert done.returncode == status, done.stderr[-3000:]
    return done.stderr


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    train(folder, folder / "run")
    return folder / "run"


def require_same(one: Path, two: Path) -> None:
    """Check that two runs are one to rounding: weights, losses, accuracy."""
    for name in (BEST, LAST):
        weights, others = (load_checkpoint(run / name).model.state_dict() for run in (one, two))
        for key, value in weights.items():
            torch.testing.assert_close(others[key], value, rtol=0, atol=1e-5)
    told = [
        [
            {key: value for key, value in json.loads(line).items() if key not in TIMES}
            for line in (run / METRICS).read_text().splitlines()
        ]
        for run in (one, two)
    ]
    for ours, theirs in zip(*told, strict=True):
        assert ours["val_accuracy"] == theirs["val_accuracy"]
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
        assert ours["val_loss"] == pytest.approx(theirs["val_loss"], abs=1e-5)


def test_two_processes_give_the_weights_of_one(tmp_path: Path, alone: Path) -> None:
    """Gradients are averaged over gloo: to rounding, that is the whole batch in one process."""
    launch(tmp_path / "two", tmp_path / "run")
    require_same(alone, tmp_path / "run")
    seen = [json.loads((tmp_path / "two" / f"seen.{rank}.json").read_text()) for rank in range(2)]
    assert sorted(seen[0] + seen[1]) == list(range(24))
    assert all(seen)


def test_weights_that_are_shared_out_give_those_of_one(tmp_path: Path, alone: Path) -> None:
    """FSDP, as Accelerate's own configuration asks for it; each process holds half of every tensor."""
    (tmp_path / "config.yaml").write_text(ACCELERATE)
    config = ("--config_file", str(tmp_path / "config.yaml"))
    launch(
        tmp_path / "two",
        tmp_path / "run",
        launcher=("-m", "accelerate.commands.launch", *config),
        SHARDED="1",
    )
    require_same(alone, tmp_path / "run")


def test_a_run_of_one_goes_on_in_two_and_shared_out(tmp_path: Path, alone: Path) -> None:
    """Weights and optimizer are kept whole, so that a run may move to another machine; every step saves here."""
    run, folder = tmp_path / "run", tmp_path / "files"
    folder.mkdir()
    train(folder, run, stop_at=2)
    launch(folder, run, ACCELERATE_USE_FSDP="true", SHARDED="1", STOP_AT="4", status=1)
    assert torch.load(run / STATE, weights_only=True)["place"] == {"epoch": 2, "step": 0}
    launch(folder, run)
    require_same(alone, run)


def test_what_is_not_done_with_several_processes_is_refused(tmp_path: Path) -> None:
    """A setting that is passed over in silence costs a day on a cluster."""
    said = launch(tmp_path / "two", tmp_path / "run", ACCELERATE_USE_DEEPSPEED="true", status=1)
    assert "accelerate is set to DeepSpeed, and vit-edge trains with DDP or FSDP" in said

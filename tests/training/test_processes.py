"""Two processes that train together, as `torchrun` starts them, beside one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vit_edge.checkpoint import load_checkpoint
from vit_edge.training import BEST, Recipe, fit, new_model, open_run
from vit_edge.training.batches import batches
from vit_edge.training.run import LAST, METRICS

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


def train(folder: Path, run: Path) -> None:
    """Train, and write down which images this process was given."""
    rank = os.environ.get("RANK", "0")
    pictures = folder / rank
    sets = painted(pictures / "training"), painted(pictures / "validation", seed=1)
    list(fit(new_model(CONFIG, seed=0), *sets, labels=LABELS, recipe=RECIPE, run=open_run(run)))
    world = int(os.environ.get("WORLD_SIZE", "1"))
    seen = [
        place
        for batch in batches(sets[0], RECIPE, epoch=1, rank=int(rank), world=world)
        if batch.weight
        for place in batch.places.tolist()
    ]
    (folder / f"seen.{rank}.json").write_text(json.dumps(seen))


def launch(folder: Path, run: Path, *, processes: int) -> None:
    folder.mkdir()
    script = folder / "script.py"
    script.write_text(_SCRIPT)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    environment |= {"CUDA_VISIBLE_DEVICES": ""}
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes))
    done = subprocess.run(
        [sys.executable, *launcher, str(script), str(folder), str(run)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list(folder.glob("seen.*.json"))) == processes


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    train(folder, folder / "run")
    return folder / "run"


def test_two_processes_give_the_weights_of_one(tmp_path: Path, alone: Path) -> None:
    """Gradients are averaged over gloo: to rounding, that is the whole batch in one process."""
    launch(tmp_path / "two", tmp_path / "run", processes=2)
    for name in (BEST, LAST):
        one, two = (load_checkpoint(run / name).model.state_dict() for run in (alone, tmp_path / "run"))
        for key, value in one.items():
            torch.testing.assert_close(two[key], value, rtol=0, atol=1e-5)
    told = [
        [
            {key: value for key, value in json.loads(line).items() if key not in TIMES}
            for line in (run / METRICS).read_text().splitlines()
        ]
        for run in (alone, tmp_path / "run")
    ]
    for ours, theirs in zip(*told, strict=True):
        assert ours["val_accuracy"] == theirs["val_accuracy"]
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
        assert ours["val_loss"] == pytest.approx(theirs["val_loss"], abs=1e-5)
    seen = [json.loads((tmp_path / "two" / f"seen.{rank}.json").read_text()) for rank in range(2)]
    assert sorted(seen[0] + seen[1]) == list(range(24))
    assert all(seen)

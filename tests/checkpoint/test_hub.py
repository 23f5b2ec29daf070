"""Models by name: from the cache without a network, from a server, and from neither.

huggingface_hub reads its settings when it is imported, so each test runs a process of its own.
"""

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models import save_for_hf
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

REVISION = "0123456789abcdef0123456789abcdef01234567"
LOAD = """
import json, sys
from vit_edge.checkpoint import load_checkpoint
from vit_edge.errors import CheckpointError
for name in sys.argv[1:]:
    try:
        checkpoint = load_checkpoint(name)
        print(json.dumps([checkpoint.sha256, str(checkpoint.preprocessing), len(checkpoint.labels or ())]))
    except CheckpointError as error:
        print(json.dumps(str(error)))
"""


def load(cache: Path, endpoint: str, *names: str, **environment: str) -> list[Any]:
    """Load models by name in a fresh process; give what it printed, an error's text or what was loaded."""
    settings = {"HF_HUB_CACHE": str(cache), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", **environment}
    run = subprocess.run(
        [sys.executable, "-c", LOAD, *names],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
        env={**os.environ, **settings},
    )
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders saved by timm and by transformers, under the names that they have on the hub."""
    root = tmp_path_factory.mktemp("models")
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2, "num_classes": 2}
    of_timm = timm.create_model("vit_tiny_patch16_224", **sizes)
    names = {"label_names": ["cat", "dog"]}
    save_for_hf(of_timm, str(root / "timm"), safe_serialization=True, model_config=names)
    config = ViTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
    )
    ViTForImageClassification(config).save_pretrained(root / "hf", max_shard_size="20KB")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(root / "hf")
    of_timm_old = root / "old"
    save_for_hf(of_timm, str(of_timm_old), safe_serialization=False)
    torch.manual_seed(0)
    return {"timm/tiny.tuned": root / "timm", "someone/digits": root / "hf", "someone/old": of_timm_old}


@pytest.fixture
def closed() -> str:
    """An address at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def hub(models: dict[str, Path]) -> Iterator[tuple[str, list[str]]]:
    """A server that answers as the hub does for these models, and the paths that were asked for."""
    asked: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            owner, name, _, _, file = self.path.lstrip("/").split("/")
            asked.append(f"{self.command} {file}")
            folder = models.get(f"{owner}/{name}")
            path = folder / file if folder else None
            if path is None or not path.is_file():
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound" if folder else "RepoNotFound")
                self.send_header("X-Repo-Commit", REVISION)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            content = path.read_bytes()
            self.send_response(200)
            self.send_header("X-Repo-Commit", REVISION)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def put_into_cache(cache: Path, repository: str, folder: Path) -> None:
    """Lay a model into a cache as huggingface_hub does."""
    home = cache / f"models--{repository.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(REVISION)
    (home / "snapshots").mkdir()
    (home / "snapshots" / REVISION).symlink_to(folder, target_is_directory=True)


def test_cached_models_are_loaded_without_a_network(
    models: dict[str, Path], tmp_path: Path, closed: str
) -> None:
    """What was fetched once works on a train; timm's model, unlike transformers', has no processor's file."""
    for repository, folder in models.items():
        put_into_cache(tmp_path, repository, folder)
    of_timm, of_transformers = load(tmp_path, closed, "timm:tiny.tuned", "hf:someone/digits")
    weights = models["timm/tiny.tuned"] / "model.safetensors"
    assert of_timm == [
        hashlib.sha256(weights.read_bytes()).hexdigest(),
        "resize=35,crop=32,interpolation=bicubic,mean=0.5,std=0.5",
        2,
    ]
    assert of_transformers[1] == "resize=32x32,crop=32,interpolation=bilinear,mean=0.5,std=0.5"


@pytest.mark.parametrize("environment", [{}, {"HF_HUB_OFFLINE": "1"}])
def test_without_network_and_cache_one_sentence_names_the_local_way(
    tmp_path: Path, closed: str, environment: dict[str, str]
) -> None:
    """It must not end in the transport's own error, nor after half a minute of retries."""
    (error,) = load(tmp_path, closed, "timm:vit_tiny", **environment)
    assert error == (
        "timm:vit_tiny: no network: the model hub cannot be reached, and config.json is not in its cache; "
        "give the path of a downloaded folder or file instead"
    )


def test_a_model_is_fetched_once_with_only_the_files_it_needs(
    hub: tuple[str, list[str]], tmp_path: Path, closed: str
) -> None:
    """The second time it comes from the cache, also when the network is gone."""
    endpoint, asked = hub
    names = ("timm:tiny.tuned", "hf:someone/digits", "hf:someone/old")
    first = load(tmp_path, endpoint, *names)
    assert [len(result) for result in first] == [3, 3, 3]
    fetched = [line.removeprefix("GET ") for line in asked if line.startswith("GET")]
    assert sorted(file for file in fetched if "-of-" not in file) == [
        "config.json",
        "config.json",
        "config.json",
        "model.safetensors",
        "model.safetensors.index.json",
        "preprocessor_config.json",
        "pytorch_model.bin",
    ]
    assert load(tmp_path, closed, *names) == first


def test_a_name_that_the_hub_does_not_have_is_said_to_be_wrong(
    hub: tuple[str, list[str]], tmp_path: Path
) -> None:
    """A typing error is not a missing network."""
    absent, malformed = load(tmp_path, hub[0], "timm:vit_tinny", "hf:a b")
    assert absent == "timm:vit_tinny: no such model on the hub; check the name, or log in for a private one"
    assert malformed == "hf:a b: expected a name such as timm:NAME or hf:OWNER/NAME; check it"

"""The written file: whole or not there, never in the place of another, and the same each time."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from vit_edge.errors import ExportError, ModelError, OptionError
from vit_edge.export import file
from vit_edge.export.file import write_model
from vit_edge.runtime import Classifier
from vit_edge.runtime.labels import Labels
from vit_edge.runtime.metadata import Metadata
from vit_edge.runtime.preprocess import Preprocessing
from vit_edge.runtime.seal import check_seal

from ..conftest import listing

METADATA = Metadata(Labels.of(["red", "grün"]), Preprocessing(4, (4, 4), "bilinear", (0.5,) * 3, (0.5,) * 3))


def model(pixels: int = 4, *, extra: int = 0) -> onnx.ModelProto:
    """Give a classifier of means into two classes, with *extra* bytes of weights that nothing needs."""
    nodes = [
        helper.make_node("ReduceMean", ["pixels", "axes"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "matrix"], ["logits"]),
    ]
    matrix = np.array([[1, -1], [0, 1], [-1, 0]], np.float32)
    constants: dict[str, NDArray[Any]] = {
        "axes": np.array([2, 3], np.int64),
        "matrix": matrix,
        "ballast": np.zeros(extra, np.uint8),
    }
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 3, pixels, pixels])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def test_a_written_file_opens_and_has_its_size_told(tmp_path: Path) -> None:
    """What is told is what is on the disk, metadata and seal included."""
    path = tmp_path / "model.onnx"
    size = write_model(model(), METADATA, path)
    assert size == path.stat().st_size
    assert listing(tmp_path) == ["model.onnx"]
    with Classifier(path) as classifier:
        assert classifier.labels == METADATA.labels
        assert classifier.preprocessing == METADATA.preprocessing
    onnx.checker.check_model(onnx.load(path), full_check=True)


def test_the_file_has_a_new_files_ordinary_permissions(tmp_path: Path) -> None:
    """Temporary files are private, and a model that a service's user cannot read fails far from here."""
    before = os.umask(0o027)
    try:
        write_model(model(), METADATA, tmp_path / "model.onnx")
    finally:
        os.umask(before)
    assert (tmp_path / "model.onnx").stat().st_mode & 0o777 == 0o640


def test_an_existing_file_is_left_as_it_is_unless_forced(tmp_path: Path) -> None:
    """It may have taken a night to make."""
    path = tmp_path / "model.onnx"
    path.write_bytes(b"last night's")
    with pytest.raises(OptionError, match=r"model\.onnx exists; give --force"):
        write_model(model(), METADATA, path)
    assert path.read_bytes() == b"last night's"
    assert listing(tmp_path) == ["model.onnx"]
    write_model(model(), METADATA, path, force=True)
    check_seal(path, "model")
    assert listing(tmp_path) == ["model.onnx"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other folders that cannot be written")
def test_what_cannot_be_written_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    """The name of a file in the place of a folder, and a disk that is full."""
    (tmp_path / "taken").write_bytes(b"")
    with pytest.raises(ExportError, match=r"cannot write .*taken/model\.onnx \(Not a directory\)"):
        write_model(model(), METADATA, tmp_path / "taken" / "model.onnx")
    with pytest.raises(ExportError, match=r"cannot write .*absent/model\.onnx \(No such file or directory\)"):
        write_model(model(), METADATA, tmp_path / "absent" / "model.onnx")
    assert listing(tmp_path) == ["taken"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
@pytest.mark.parametrize("old", [b"last night's", None])
def test_a_full_disk_leaves_the_old_file_or_none(tmp_path: Path, old: bytes | None) -> None:
    """Small devices are where disks are full; a limit on the size of files fails a write in the same place."""
    import resource

    path = tmp_path / "model.onnx"
    if old is not None:
        path.write_bytes(old)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(ExportError, match=r"cannot write .*model\.onnx \(File too large\)"):
            write_model(model(extra=100_000), METADATA, path, force=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert listing(tmp_path) == ([] if old is None else ["model.onnx"])
    assert old is None or path.read_bytes() == old


def test_a_model_too_large_for_one_file_names_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above the format's limit every reader fails, each in its own way; the limit is lowered to be met here."""
    monkeypatch.setattr(file, "MAX_BYTES", 50_000)
    with pytest.raises(
        ExportError, match=r"the model takes 0\.0 GiB, and one ONNX file holds less than 2 GiB"
    ):
        write_model(model(extra=100_000), METADATA, tmp_path / "model.onnx")
    assert not listing(tmp_path)


# Writes files of 4 MB to the same name, as fast as it can, and says when it begins.
_WRITER = """
import sys
from pathlib import Path
from tests.export.test_file import METADATA, model
from vit_edge.export.file import write_model
large = model(extra=4_000_000)
print("ready", flush=True)
while True:
    write_model(large, METADATA, Path(sys.argv[1]), force=True)
    if sys.argv[2] == "new":
        Path(sys.argv[1]).unlink()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("name", ["new", "replaced"])
def test_a_kill_at_any_moment_leaves_a_whole_file_or_none(tmp_path: Path, name: str) -> None:
    """Power fails without asking, and half a model must never be there for a device to load."""
    path = tmp_path / "model.onnx"
    generator = random.Random(0)
    found = []
    for _ in range(4):
        root = Path(__file__).parents[2]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(root), *filter(None, sys.path)))}
        with subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(path), name], stdout=subprocess.PIPE, env=environment
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            time.sleep(generator.uniform(0.0, 0.15))
            child.send_signal(signal.SIGKILL)
        found.append(path.exists())
        if path.exists():
            check_seal(path, "model")
        if name == "replaced" and len(found) == 1:
            write_model(model(), METADATA, path, force=True)
    if name == "replaced":
        assert all(found[1:])


def test_a_file_cut_short_is_told_from_a_whole_one(tmp_path: Path) -> None:
    """This is what the test above relies on."""
    path = tmp_path / "model.onnx"
    write_model(model(extra=1000), METADATA, path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ModelError):
        check_seal(path, "model")


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    """A file's checksum then says whether two devices run the same, and no clock is in it."""
    write_model(model(), METADATA, tmp_path / "first.onnx")
    write_model(model(), METADATA, tmp_path / "second.onnx")
    assert (tmp_path / "first.onnx").read_bytes() == (tmp_path / "second.onnx").read_bytes()


def test_notes_of_other_tools_do_not_get_into_the_file(tmp_path: Path) -> None:
    """A tool's own entries could hold anything, and an entry of ours must be there once."""
    noted = model()
    noted.metadata_props.add(key="vit_edge.labels", value='["wrong", "too"]')
    noted.metadata_props.add(key="maker", value="/home/somebody")
    write_model(noted, METADATA, tmp_path / "model.onnx")
    entries = [entry.key for entry in onnx.load(tmp_path / "model.onnx").metadata_props]
    assert "maker" not in entries
    assert len(entries) == len(set(entries))
    assert [entry.key for entry in noted.metadata_props] == ["vit_edge.labels", "maker"]

"""What a file says of itself is read without ONNX Runtime, and as ONNX Runtime reads it."""

from pathlib import Path

import onnxruntime
import pytest

from vit_edge.runtime.model_file import CAPSULE, read_properties, read_property

from .onnx_writer import METADATA, colour_model

ENTRIES = {"vit_edge.labels": '["é", "写"]', "other": "", "again": "x" * 300}


def session_entries(model: bytes) -> dict[str, str]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    entries: dict[str, str] = session.get_modelmeta().custom_metadata_map
    return entries


@pytest.mark.parametrize("raw", [False, True])
def test_the_entries_are_those_that_a_session_gives(raw: bool, tmp_path: Path) -> None:
    """The provider is chosen by what they say, before there is a session."""
    model = colour_model(METADATA, changed=ENTRIES, raw=raw)
    path = tmp_path / "model.onnx"
    path.write_bytes(model)
    assert read_properties(model) == session_entries(model)
    assert read_properties(path) == read_properties(model)
    assert read_properties(model).items() >= ENTRIES.items()


def test_one_entry_is_read_by_itself(tmp_path: Path) -> None:
    """The capsule is far larger than all others together, and opening a model is not to pay for it."""
    model = colour_model(METADATA, changed=ENTRIES | {CAPSULE: "{}"})
    path = tmp_path / "model.onnx"
    path.write_bytes(model)
    for source in (model, path):
        for key, value in ENTRIES.items():
            assert read_property(source, key) == value
        assert read_property(source, CAPSULE) == "{}"
        assert CAPSULE not in read_properties(source)
        assert read_property(source, "vit_edge.absent") is None
    assert read_property(tmp_path / "absent.onnx", "other") is None


def test_a_files_part_is_no_error_here(tmp_path: Path) -> None:
    """Whoever opens it gets the reason; here there is nothing to be said of it."""
    model = colour_model()
    for length in range(len(model)):
        read_properties(model[:length])
    for damaged in (b"", b"\xff" * 40, b"\x72\xff\xff\xff\xff\x0f", b"\x0b"):
        assert read_properties(damaged) == {}
    assert read_properties(tmp_path / "absent.onnx") == {}
    (tmp_path / "empty.onnx").touch()
    assert read_properties(tmp_path / "empty.onnx") == {}

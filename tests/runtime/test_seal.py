"""The seal finds every change of a model file."""

import hashlib
from pathlib import Path

import pytest

from vit_edge.runtime.errors import ModelError
from vit_edge.runtime.seal import BLANK, KEY, check_seal, seal

from .onnx_writer import colour_graph, colour_model, sealed


def test_a_change_of_any_byte_is_found() -> None:
    """A flipped bit in the weights, labels or proof changes answers or what is believed of them."""
    model = colour_model()
    check_seal(model, "the model")
    for place in range(len(model)):
        for bit in (1, 128):
            changed = model[:place] + bytes([model[place] ^ bit]) + model[place + 1 :]
            with pytest.raises(ModelError, match=r"^the model (was changed or damaged|carries no)"):
                check_seal(changed, "the model")


def test_a_file_cut_anywhere_is_found() -> None:
    """A copy that broke off is the commonest damage of all."""
    model = colour_model()
    for length in range(len(model)):
        with pytest.raises(ModelError):
            check_seal(model[:length], "the model")


def test_bytes_put_in_anywhere_are_found() -> None:
    """Protobuf skips fields that it does not know, so they would go unseen."""
    model = colour_model()
    for place in (0, len(model) // 2, len(model)):
        with pytest.raises(ModelError):
            check_seal(model[:place] + b"\xa0\x06\x01" + model[place:], "the model")


def test_the_seal_is_the_sha256_of_the_file_with_zeros_in_its_place() -> None:
    """The documented rule, so that other programs can check a file too."""
    model = colour_model()
    place = model.rindex(KEY.encode()) + len(KEY) + 2
    blank = model[:place] + b"0" * 64 + model[place + 64 :]
    assert model[place : place + 64].decode() == hashlib.sha256(blank).hexdigest()


def test_a_file_and_its_bytes_are_checked_alike(tmp_path: Path) -> None:
    """The file is mapped rather than read, which is another code path."""
    path = tmp_path / "colours.onnx"
    path.write_bytes(colour_model())
    check_seal(path, "colours.onnx")
    data = bytearray(path.read_bytes())
    data[100] ^= 4
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"^colours.onnx was changed or damaged"):
        check_seal(path, "colours.onnx")
    path.write_bytes(b"")
    with pytest.raises(ModelError, match=r"^colours.onnx is empty"):
        check_seal(path, "colours.onnx")
    path.unlink()
    with pytest.raises(ModelError, match=r"^colours.onnx cannot be read \(No such file"):
        check_seal(path, "colours.onnx")


def test_a_label_that_looks_like_a_seal_does_not_take_its_place() -> None:
    """The seal is searched from the end, where it was written last."""
    decoy = KEY + "\x12\x40" + "0" * 64
    model = sealed(colour_graph(), {"vit_edge.labels": decoy})
    check_seal(model, "the model")
    assert model.index(decoy.encode()) < model.rindex(KEY.encode())


def test_only_a_blank_seal_is_filled() -> None:
    """Sealing twice, or a file that has no place for it, is a mistake in the program."""
    for data in (colour_model(), colour_graph(), b""):
        with pytest.raises(ValueError, match="expected a blank seal"):
            seal(data)
    assert len(BLANK) == 64

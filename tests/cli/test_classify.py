"""``vit-edge classify`` answers what it can, and tells the rest."""

import json
import os
import re
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from ..runtime.onnx_writer import METADATA, colour_model, flat_colour, save_picture
from .command import absent, call, command, environment, refused


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model and three pictures, in which the commands run."""
    (tmp_path / "colours.onnx").write_bytes(colour_model())
    (tmp_path / "pictures" / "more").mkdir(parents=True)
    save_picture(tmp_path / "pictures" / "b.png", flat_colour("blue"))
    save_picture(tmp_path / "pictures" / "a.png", flat_colour("green"))
    save_picture(tmp_path / "pictures" / "more" / "c.png", flat_colour("red"))
    (tmp_path / "pictures" / "notes.txt").write_text("no picture")
    return tmp_path


def classify(folder: Path, *arguments: object, **options: bytes) -> subprocess.CompletedProcess[str]:
    return call("classify", "colours.onnx", *arguments, cwd=folder, **options)  # type: ignore[arg-type]


def answers(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """Give the label of every source in JSON lines."""
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {line["source"]: line.get("label", "error") for line in lines}


ALL = {"pictures/a.png": "green", "pictures/b.png": "blue", "pictures/more/c.png": "red"}


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (("pictures/a.png",), {"pictures/a.png": "green"}),
        (("pictures/b.png", "pictures/a.png"), {"pictures/b.png": "blue", "pictures/a.png": "green"}),
        (("pictures",), ALL),
        (("pictures/*.png",), {"pictures/a.png": "green", "pictures/b.png": "blue"}),
        (("pictures/**/*.png",), ALL),
        (("pictures/[b-c].png", "pictures/more"), {"pictures/b.png": "blue", "pictures/more/c.png": "red"}),
    ],
)
def test_files_folders_and_globs_are_answered_in_order(
    sources: tuple[str, ...], expected: dict[str, str], folder: Path
) -> None:
    """Patterns in quotes reach the program where a shell's own list would be too long."""
    done = classify(folder, *sources, "--json")
    assert done.returncode == 0, done.stderr
    assert list(answers(done).items()) == list(expected.items())
    assert done.stderr == ""


def test_a_pattern_may_be_absolute(folder: Path) -> None:
    """As a script writes it."""
    done = classify(folder, folder / "pictures" / "*.png", "--json")
    assert list(answers(done).values()) == ["green", "blue"]


def test_a_file_whose_name_is_a_pattern_is_that_file(folder: Path) -> None:
    """Downloads are often called `photo [1].png`."""
    save_picture(folder / "photo [1].png", flat_colour("red"))
    save_picture(folder / "photo 1.png", flat_colour("blue"))
    assert answers(classify(folder, "photo [1].png", "--json")) == {"photo [1].png": "red"}
    (folder / "set [2]").mkdir()
    save_picture(folder / "set [2]" / "x.png", flat_colour("green"))
    assert answers(classify(folder, "set [2]", "--json")) == {"set [2]/x.png": "green"}


def test_an_image_comes_on_standard_input(folder: Path) -> None:
    """For cameras and downloads that never become a file."""
    data = (folder / "pictures" / "b.png").read_bytes()
    assert answers(classify(folder, "-", "--json", stdin=data)) == {"-": "blue"}
    done = classify(folder, "pictures/a.png", "-", "--json", stdin=data)
    assert answers(done) == {"pictures/a.png": "green", "-": "blue"}


def test_a_standard_input_without_an_image_is_one_sentence(folder: Path) -> None:
    """Empty, no image, or closed by whoever started the program."""
    for data, sentence in (
        (b"", "the image is empty (0 bytes)"),
        (b"hello", "the image is damaged, or no image"),
    ):
        done = classify(folder, "-", "--json", stdin=data)
        assert done.returncode == 1
        assert sentence in done.stderr
        assert "Traceback" not in done.stderr
    script = f'exec "{sys.executable}" -m vit_edge classify colours.onnx - <&-'
    done = subprocess.run(
        ["/bin/sh", "-c", script],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "error: no image comes on standard input" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_line_of_json_has_label_probability_and_time(folder: Path) -> None:
    """The documented keys, that other programs read."""
    (line,) = classify(folder, "pictures/a.png", "--json", "--top", "2").stdout.splitlines()
    values = json.loads(line)
    assert values.keys() == {"source", "label", "probability", "latency_ms", "top"}
    assert values["label"] == "green"
    assert 0.99 < values["probability"] < 1
    assert values["latency_ms"] > 0
    assert values["top"][0] == {"label": "green", "probability": values["probability"], "id": "n00000002"}
    assert len(values["top"]) == 2


def test_the_table_has_a_row_for_every_class_that_was_asked_for(folder: Path) -> None:
    """What people read: names in line, best first."""
    done = classify(folder, "pictures", "--top", "2")
    assert done.returncode == 0
    head, *rows = done.stdout.splitlines()
    assert head.split() == ["image", "probability", "ms", "label"]
    assert len(rows) == 6
    assert [row.split()[0] for row in rows[::2]] == list(ALL)
    assert [row.split()[-1] for row in rows[::2]] == list(ALL.values())
    assert all(row.split()[1] == "%" for row in rows[1::2])
    assert len({row.index(" %") for row in rows}) == 1
    assert len(classify(folder, "pictures").stdout.splitlines()) == 4


def test_one_bad_image_among_many_stops_nothing(folder: Path) -> None:
    """A thousand answers are not to be lost to one broken download; the status tells of it at the end."""
    (folder / "pictures" / "aa.png").write_bytes(b"no image")
    done = classify(folder, "pictures", "absent.png", "--json")
    assert done.returncode == 1
    assert answers(done) == ALL | {"pictures/aa.png": "error", "absent.png": "error"}
    bad = next(json.loads(line) for line in done.stdout.splitlines() if "absent" in line)
    assert bad == {"source": "absent.png", "error": "absent.png does not exist; check the path"}
    errors = done.stderr.splitlines()
    assert errors[0].startswith("error: pictures/aa.png is damaged, or no image")
    assert errors[1:] == [
        "error: absent.png does not exist; check the path",
        "2 of 5 images could not be read",
    ]


def test_a_bad_image_has_no_row_in_the_table(folder: Path) -> None:
    """Answers are on stdout, errors on stderr."""
    (folder / "pictures" / "aa.png").write_bytes(b"no image")
    done = classify(folder, "pictures")
    assert done.returncode == 1
    assert [row.split()[0] for row in done.stdout.splitlines()[1:]] == list(ALL)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("*.jpg", "no file matches *.jpg; check the pattern, or give a folder"),
        ("pictures/[", "no file matches pictures/[; check the pattern, or give a folder"),
        ("empty", "expected images (such as .jpg or .png files) in empty, got none"),
    ],
)
def test_a_source_without_images_is_refused(source: str, sentence: str, folder: Path) -> None:
    """No answer at all would look like success."""
    (folder / "empty").mkdir()
    assert refused("classify", "colours.onnx", source, cwd=folder) == sentence


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("absent.onnx", "there is no file absent.onnx; make one with `vit-edge export`"),
        ("pictures", "pictures is a folder; name the model file in it"),
        (
            "pictures/a.png",
            "pictures/a.png carries no labels, preprocessing and seal; make it with `vit-edge export`",
        ),
    ],
)
def test_a_model_that_is_none_is_refused(model: str, sentence: str, folder: Path) -> None:
    """Before any image is read."""
    assert refused("classify", model, "pictures", cwd=folder) == sentence


def test_a_provider_that_is_not_there_is_refused(folder: Path) -> None:
    """Rather than run somewhere else."""
    assert "there is no provider 'gpu'; choose one of auto, cpu" in refused(
        "classify", "colours.onnx", "pictures", "--provider", "gpu", cwd=folder
    )
    done = classify(folder, "pictures", "--provider", "cpu", "--threads", "1", "--json")
    assert answers(done) == ALL


@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:strict", "latin-1:strict"])
def test_names_that_the_terminal_cannot_show_stop_nothing(encoding: str, folder: Path) -> None:
    """Old archives hold names in other encodings, and a bare server's locale has only ASCII."""
    names = (b"caf\xe9.png", "été.png".encode(), "写真.png".encode())
    for name in names:
        save_picture(folder / "x.png", flat_colour("red")).rename(
            os.fsdecode(bytes(folder / "pictures") + b"/" + name)
        )
    env = environment(PYTHONIOENCODING=encoding)
    lines = call("classify", "colours.onnx", "pictures", "--json", cwd=folder, env=env)
    assert lines.returncode == 0, lines.stderr
    assert set(answers(lines)) == set(ALL) | {os.fsdecode(b"pictures/" + name) for name in names}
    table = subprocess.run(
        command("classify", "colours.onnx", "pictures"),
        cwd=folder,
        env=env,
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert len(table.stdout.splitlines()) == 7
    assert table.stderr == b""


def test_a_file_for_raw_pixels_is_answered_alike(folder: Path) -> None:
    """Which input a file takes is its own affair."""
    (folder / "colours.onnx").write_bytes(colour_model(raw=True))
    assert answers(classify(folder, "pictures", "--json")) == ALL


def test_a_device_that_differs_is_one_line_beside_the_answers(folder: Path) -> None:
    """On stderr, whatever else is quiet: the answers may be others than those that were proven."""
    recipe = {"precision": "int8", "processor": {"architecture": "s390x", "name": "", "features": []}}
    (folder / "colours.onnx").write_bytes(colour_model(replace(METADATA, recipe=recipe)))
    done = classify(folder, "pictures", "--json", "--quiet")
    assert done.returncode == 0
    assert answers(done) == ALL
    (line,) = done.stderr.splitlines()
    assert line.startswith("note: colours.onnx was measured on a processor of type s390x, and this ")


def many(folder: Path, count: int) -> Path:
    (folder / "many").mkdir()
    data = (folder / "pictures" / "a.png").read_bytes()
    for place in range(count):
        (folder / "many" / f"{place:03}.png").write_bytes(data)
    return folder / "many"


def test_progress_of_a_long_list_is_on_stderr_alone(folder: Path) -> None:
    """Answers are piped into other programs; a short list needs no progress."""
    many(folder, 30)
    done = classify(folder, "many", "--json")
    assert done.returncode == 0
    assert len(answers(done)) == 30
    assert "classifying: 30/30 images" in done.stderr
    assert classify(folder, "many", "--json", "--quiet").stderr == ""
    assert classify(folder, "pictures", "--json").stderr == ""


def on_a_terminal(folder: Path, *arguments: object, both: bool) -> tuple[bytes, bytes]:
    """Classify with stderr, or *both* streams, on a terminal; give what stdout's pipe and the terminal got."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        command("classify", "colours.onnx", *arguments),
        cwd=folder,
        env=environment(TERM="xterm"),
        stdin=subprocess.DEVNULL,
        stdout=theirs if both else subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    # Reading a terminal whose other end has closed is an error on Linux, an end on other systems.
    with suppress(OSError):
        while part := os.read(ours, 4096):
            shown += part
    os.close(ours)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return output or b"", shown


def test_a_bar_on_the_terminal_leaves_the_answers_in_their_pipe(folder: Path) -> None:
    """`vit-edge classify ... > answers.txt`: stderr is a terminal, stdout is not."""
    many(folder, 30)
    output, shown = on_a_terminal(folder, "many", "--json", both=False)
    assert len(output.splitlines()) == 30
    assert all(json.loads(line)["label"] == "green" for line in output.splitlines())
    assert b"classifying" in shown
    assert b"30/30" in shown
    assert b"label" not in shown


def test_rows_and_bar_share_a_terminal(folder: Path) -> None:
    """A row that begins at the end of the bar cannot be read."""
    many(folder, 30)
    _, shown = on_a_terminal(folder, "many", both=True)
    assert b"30/30" in shown
    # What a line shows at last: without colours and cursor moves, and after the last return to its start.
    lines = [re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", line).rsplit(b"\r")[-1] for line in shown.split(b"\r\n")]
    rows = [line for line in lines if b"many/" in line]
    assert [line for line in lines if b"probability" in line] == [b"image         probability      ms  label"]
    assert len(rows) == 30
    assert all(row.startswith(b"many/") and row.endswith(b"green") for row in rows)


def test_a_real_network_reads_handwriting_without_torch(
    digits_model: Path, digits_images: Path, tmp_path: Path
) -> None:
    """The whole product: an exported INT8 file, images from a folder, and nothing of the workshop installed."""
    env = environment(absent(tmp_path, "torch", "onnx", "safetensors", "huggingface_hub"))
    done = call("classify", digits_model, digits_images / "test", "--json", env=env)
    assert done.returncode == 0, done.stderr
    found = answers(done)
    assert found.keys() == {str(path) for path in digits_images.glob("test/*/*.png")}
    right = sum(Path(source).parent.name == label for source, label in found.items())
    # By chance it would be a tenth.
    assert right / len(found) > 0.75

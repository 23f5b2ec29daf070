"""The examples of docs/examples run as they stand, with the real thing: a window, a server, a device's service."""

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from string import Template
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import vit_edge

from ..runtime.onnx_writer import colour_model, flat_colour, save_picture

EXAMPLES = Path(vit_edge.__file__).parents[1] / "docs" / "examples"


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """Give a folder with a model that names colours, and pictures of them."""
    (tmp_path / "model.onnx").write_bytes(colour_model())
    for number, name in enumerate(("red", "green", "blue")):
        (tmp_path / name).mkdir()
        for copy in range(2):
            save_picture(
                tmp_path / name / f"{copy}.png", flat_colour(name, height=90, width=160, shade=number)
            )
    return tmp_path


def environment(**changed: str) -> dict[str, str]:
    folders = (str(EXAMPLES), str(Path(vit_edge.__file__).parents[1]), os.environ.get("PYTHONPATH", ""))
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, folders)), "NO_COLOR": "1"} | changed


def python(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=options.pop("env", environment()),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


def wait_for(found: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


# --- asyncio


def test_asyncio_watches_several_sources_with_one_model(desk: Path) -> None:
    """Each source's answers come in its own order, while neither waits for the other."""
    done = python(EXAMPLES / "asyncio_app.py", "model.onnx", "red", "blue", cwd=desk)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    for name in ("red", "blue"):
        own = [answer for answer in answers if answer["label"] == name]
        assert [answer["frame"] for answer in own] == [0, 1]
        assert all(answer["age_ms"] > 0 and answer["top"][0]["label"] == name for answer in own)
    assert len(answers) == 4
    assert done.stderr == "4 frames of 2 sources\n"


def test_asyncio_tells_a_source_that_fails_and_goes_on_with_the_others(desk: Path) -> None:
    """One camera is unplugged on most days."""
    done = python(EXAMPLES / "asyncio_app.py", "model.onnx", "absent", "green", cwd=desk)
    assert [json.loads(line)["label"] for line in done.stdout.splitlines()] == ["green", "green"]
    error, total = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert "absent" in error
    assert total == "2 frames of 2 sources"


def test_asyncio_without_arguments_tells_how_it_is_called(desk: Path) -> None:
    """And a model that is none is one sentence."""
    assert "asyncio_app.py model.onnx SOURCE..." in python(EXAMPLES / "asyncio_app.py").stderr
    done = python(EXAMPLES / "asyncio_app.py", "absent.onnx", "red", cwd=desk)
    assert done.stderr == "error: there is no file absent.onnx; make one with `vit-edge export`\n"


# --- FastAPI


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Run the service on a free port; gives its address."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (folder / "service.log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "service:app", "--port", str(port), "--log-level", "warning"],
        cwd=folder,
        env=environment(MODEL="model.onnx"),
        stdout=log,
        stderr=log,
    )
    address = f"http://127.0.0.1:{port}"

    def up() -> bool:
        assert process.poll() is None, (folder / "service.log").read_text()
        with suppress(OSError):
            return bool(ask(f"{address}/about"))
        return False

    try:
        wait_for(up)
        yield address
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=20)
        log.close()
    assert (folder / "service.log").read_text() == ""


def ask(address: str, data: bytes | None = None) -> Any:
    with urllib.request.urlopen(address, data=data, timeout=30) as answer:
        return json.load(answer)


def test_the_service_gives_each_request_its_own_answer(desk: Path) -> None:
    """Each gets its own answer, whoever it was computed with; a broken image is its sender's alone."""
    names = ("red", "green", "blue")
    images = {name: (desk / name / "0.png").read_bytes() for name in names}
    # A large picture takes a while, and holds up nobody else.
    large = save_picture(desk / "large.png", flat_colour("red", height=2000, width=3000)).read_bytes()
    with serving(desk) as address:
        assert ask(f"{address}/about")["labels"] == list(names)
        with ThreadPoolExecutor(24) as pool:
            slow = pool.submit(ask, f"{address}/classify", large)
            jobs = [(name, pool.submit(ask, f"{address}/classify", images[name])) for name in names * 16]
            broken = pool.submit(ask, f"{address}/classify", images["red"][:40])
            answers = [(name, job.result()) for name, job in jobs]
            with pytest.raises(urllib.error.HTTPError) as refused:
                broken.result()
            assert slow.result()["label"] == "red"
    assert all(answer["label"] == name and answer["top"][0]["label"] == name for name, answer in answers)
    assert all(1 <= answer["together"] <= 8 for _, answer in answers)
    assert refused.value.code == 400
    assert "truncated" in json.load(refused.value)["detail"]


def test_the_service_batches_what_waits_and_survives_an_error(desk: Path) -> None:
    """A batch that fails is told to all who were in it; those who come later are answered again."""
    pytest.importorskip("fastapi")
    script = """
import asyncio, sys
import numpy as np
from service import Batcher, MOST_TOGETHER, MOST_WAITING
from vit_edge.runtime import Classifier

class Wary:
    def __init__(self, classifier): self.classifier, self.broken = classifier, False
    def __call__(self, images, *, batch_size):
        if self.broken:
            raise RuntimeError("out of memory")
        return self.classifier(images, batch_size=batch_size)

async def main():
    wary = Wary(Classifier(sys.argv[1]))
    batcher = Batcher(wary)
    picture = np.full((20, 30, 3), (220, 30, 30), np.uint8)
    waiting = [asyncio.create_task(batcher.answer(picture)) for _ in range(MOST_TOGETHER + 2)]
    await asyncio.sleep(0)
    running = asyncio.create_task(batcher.run())
    print([together for _, together in await asyncio.gather(*waiting)])
    wary.broken = True
    print(await asyncio.gather(batcher.answer(picture), batcher.answer(picture), return_exceptions=True))
    wary.broken = False
    print((await batcher.answer(picture))[0].label)
    running.cancel()
    full = [asyncio.create_task(batcher.answer(picture)) for _ in range(MOST_WAITING + 1)]
    await asyncio.sleep(0.01)
    print(sum(task.done() and isinstance(task.exception(), asyncio.QueueFull) for task in full))

asyncio.run(main())
"""
    done = python("-c", script, desk / "model.onnx")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "[8, 8, 8, 8, 8, 8, 8, 8, 2, 2]",
        "[RuntimeError('out of memory'), RuntimeError('out of memory')]",
        "red",
        "1",
    ]


# --- systemd


def unit(folder: Path) -> Path:
    """Give the unit with the command of this environment in the place of the installed one."""
    (folder / "vit-edge").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m vit_edge "$@"\n')
    (folder / "vit-edge").chmod(0o755)
    text = (EXAMPLES / "vit-edge.service").read_text()
    assert text.count("ExecStart=/opt/vit-edge/bin/vit-edge ") == 1
    path = folder / "vit-edge.service"
    path.write_text(text.replace("/opt/vit-edge/bin/vit-edge camera", f"{folder / 'vit-edge'} camera"))
    return path


def settings(path: Path, key: str) -> list[str]:
    return [line.partition("=")[2] for line in path.read_text().splitlines() if line.startswith(f"{key}=")]


def test_the_unit_is_one_that_systemd_takes(desk: Path) -> None:
    """A misspelt key is ignored at boot, with a line in a journal that nobody reads."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze (Debian's package systemd)")
    command = ["systemd-analyze", "verify", "--man=no", str(unit(desk))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@contextmanager
def web_camera(picture: NDArray[np.uint8]) -> Iterator[str]:
    """Serve a picture over and over as MJPEG, as web cameras do; gives its address."""
    done, jpeg = cv2.imencode(".jpg", picture[..., ::-1])
    assert done

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            with suppress(OSError):  # until the reader goes
                while True:
                    self.wfile.write(head.encode() + jpeg.tobytes() + b"\r\n")
                    time.sleep(0.05)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/camera"
    finally:
        server.shutdown()
        server.server_close()


def test_the_units_command_logs_lines_of_json_and_ends_when_it_is_told(desk: Path) -> None:
    """With the unit's own settings, on a stream; SIGTERM is how systemd stops a service, which is no failure."""
    path = unit(desk)
    pairs = [pair.partition("=")[::2] for line in settings(path, "Environment") for pair in line.split()]
    (line,) = settings(path, "ExecStart")
    with web_camera(flat_colour("green", height=120, width=160)) as address:
        variables = dict(pairs) | {"MODEL": str(desk / "model.onnx"), "SOURCE": address}
        process = subprocess.Popen(
            [Template(word).substitute(variables) for word in line.split()],
            cwd=desk,
            env=environment(VIT_EDGE_CACHE=str(desk / "cache")),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            answers = [json.loads(process.stdout.readline()) for _ in range(4)]
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert [answer["label"] for answer in answers] == ["green"] * 4
    # Five a second are answered of the twenty that come.
    assert answers[-1]["dropped"] > 0


# --- Tkinter


@pytest.fixture
def screen() -> Iterator[str]:
    """Give a screen of its own."""
    if shutil.which("Xvfb") is None:
        pytest.skip("there is no Xvfb, a screen for tests")
    if importlib.util.find_spec("_tkinter") is None:
        pytest.skip("this Python has no Tkinter (Debian's python3-tk)")
    ours, theirs = os.pipe()
    command = ["Xvfb", "-displayfd", str(theirs), "-screen", "0", "800x700x24", "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=[theirs], stderr=subprocess.DEVNULL)
    os.close(theirs)
    try:
        with os.fdopen(ours) as numbers:
            yield f":{numbers.readline().strip()}"
    finally:
        server.terminate()
        server.wait(timeout=20)


def test_the_window_shows_the_picture_and_its_answer(desk: Path, screen: str) -> None:
    """Seen on the screen: the picture's colour is there, and the text under it is the answer."""
    from PIL import ImageGrab

    process = subprocess.Popen(
        [sys.executable, EXAMPLES / "window_app.py", "model.onnx", "blue"],
        cwd=desk,
        env=environment(DISPLAY=screen),
        stderr=subprocess.PIPE,
        text=True,
    )
    expected = flat_colour("blue", shade=2)[0, 0]

    def shown() -> bool:
        assert process.poll() is None, process.stderr and process.stderr.read()
        with suppress(OSError):
            pixels = np.asarray(ImageGrab.grab(xdisplay=screen))
            return int((pixels == expected).all(axis=2).sum()) == 640 * 360
        return False

    try:
        wait_for(shown)
    finally:
        process.kill()
        process.communicate()


def test_the_window_tells_the_answer_and_closes_at_once(desk: Path, screen: str) -> None:
    """A thread that goes on behind a closed window keeps the camera."""
    script = """
import sys, threading, time
from itertools import repeat
import numpy as np
from vit_edge.runtime import Capture, Classifier, open_source
from window_app import App

picture = np.full((90, 160, 3), (30, 220, 30), np.uint8)
with Classifier(sys.argv[1]) as classifier, open_source(repeat(picture), capture=Capture(live=True)) as source:
    app = App(classifier, source)
    def close():
        print(app.text["text"].splitlines()[0])
        app.close()
    app.root.after(1500, close)
    app.root.mainloop()
    print([thread.name for thread in threading.enumerate() if thread is app._worker])
"""
    done = python("-c", script, desk / "model.onnx", env=environment(DISPLAY=screen))
    assert done.returncode == 0, done.stderr
    answer, left = done.stdout.splitlines()
    assert answer.endswith("%  green")
    assert left == "[]"


def test_the_window_tells_what_is_wrong_in_one_sentence(desk: Path, screen: str) -> None:
    """Before it opens."""
    done = python(
        EXAMPLES / "window_app.py", "model.onnx", "absent", cwd=desk, env=environment(DISPLAY=screen)
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1


# --- Node


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the Node example with its package installed."""
    if shutil.which("npm") is None:
        pytest.skip("there is no npm")
    folder = tmp_path_factory.mktemp("node") / "node"
    shutil.copytree(EXAMPLES / "node", folder, ignore=shutil.ignore_patterns("node_modules"))
    # Its install script would download CUDA.
    done = subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"],
        cwd=folder,
        env=os.environ | {"ONNXRUNTIME_NODE_INSTALL": "skip"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"npm cannot install onnxruntime-node here: {done.stderr.splitlines()[:1]}")
    return folder


def verify(folder: Path, model: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["node", "verify.mjs", str(model)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
def test_node_passes_the_capsule_with_what_the_file_says_alone(
    node: Path, digits_model: Path, tmp_path: Path
) -> None:
    """Another language and another build of ONNX Runtime: labels, preprocessing and pictures out of the one file."""
    done = verify(node, digits_model)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "10 labels; resize 32, crop 32x32, bicubic"
    assert lines[-1].endswith(" passes: passed")
    assert len(lines) > 3
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(digits_model.read_bytes()[:-1] + b"!")
    done = verify(node, broken)
    assert done.returncode == 1
    assert done.stderr == "error: the file was changed or damaged since its export; copy it again\n"


@pytest.mark.slow
def test_node_fails_a_graph_that_answers_otherwise(node: Path, digits_model: Path, tmp_path: Path) -> None:
    """What passes everything proves nothing: here the weights of the head are turned around."""
    onnx = pytest.importorskip("onnx")
    from vit_edge.runtime.seal import BLANK, KEY, seal

    model = onnx.load(digits_model)
    output = model.graph.output[0].name
    node_ = next(one for one in model.graph.node if output in one.output)
    node_.output[list(node_.output).index(output)] = "turned"
    model.graph.node.append(onnx.helper.make_node("Neg", ["turned"], [output]))
    entry = next(one for one in model.metadata_props if one.key == KEY)
    model.metadata_props.remove(entry)
    model.metadata_props.add(key=KEY, value=BLANK.decode())
    (tmp_path / "turned.onnx").write_bytes(seal(model.SerializeToString()))
    done = verify(node, tmp_path / "turned.onnx")
    assert done.returncode == 1
    assert done.stdout.rstrip().endswith("FAILED")

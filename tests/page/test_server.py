"""The page's server: what it gives, whom it refuses, and that no browser slows the loop."""

import collections
import os
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.page.answers import LABELS, ask, connect, count_pictures, get, make_answer, noise
from vit_edge.errors import OptionError
from vit_edge.page import PageSink, board, guard, sink
from vit_edge.runtime import Answer, Fan

TOKEN = "correct horse / battery & staple"


def test_the_newest_answer_comes_with_its_picture() -> None:
    """What a browser shows is what the loop said of that very frame."""
    with PageSink(port=0) as page:
        assert page.show(make_answer(1))
        assert page.show(make_answer(7, dropped=2))
        news, picture = ask(page.url)
    assert news["answer"]["frame"] == 7
    assert news["answer"]["label"] == LABELS[0]
    assert [score["label"] for score in news["answer"]["top"]] == list(LABELS)
    assert (news["answer"]["age_ms"], news["answer"]["latency_ms"], news["answer"]["dropped"]) == (
        40.0,
        25.0,
        2,
    )
    image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert image is not None
    assert image.shape == (90, 160, 3)
    assert np.abs(image[45, 80].astype(int) - (230, 20, 20)).max() < 8, "red came out as something else"


def test_the_page_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where answers have to be in time, pictures for browsers are what can wait."""
    shown: list[int] = []

    def show(_: object, answer: Answer) -> bool:
        shown.append(answer.frame)
        return True

    monkeypatch.setattr(PageSink, "show", show)
    with Fan([PageSink(port=0)], relief=lambda: 5) as fan:
        assert all(fan.show(make_answer(place)) for place in range(5))
    assert shown == [0]


def test_a_browser_waits_for_the_next_answer() -> None:
    """Asking again and again would burn the device's power."""
    with PageSink(port=0) as page, ThreadPoolExecutor() as pool:
        page.show(make_answer(1))
        first, _ = ask(page.url)
        waiting = pool.submit(ask, page.url, run=first["run"], after=first["number"])
        time.sleep(0.5)
        assert not waiting.done()
        page.show(make_answer(2))
        news, picture = waiting.result(10)
    assert news["answer"]["frame"] == 2
    assert picture


def test_a_browser_that_comes_hears_at_once_how_things_stand() -> None:
    """A camera that still warms up must not look like a page that does not load."""
    with PageSink(port=0) as page:
        start_s = time.monotonic()
        nothing, picture = ask(page.url)
        assert time.monotonic() - start_s < board._PATIENCE_S / 2
    assert (nothing["number"], picture) == (0, b"")
    assert "answer" not in nothing


def test_a_browser_hears_that_there_is_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it can tell a silent camera from a lost connection."""
    monkeypatch.setattr(board, "_PATIENCE_S", 0.2)
    with PageSink(port=0) as page:
        page.show(make_answer(1))
        first, _ = ask(page.url)
        again, picture = ask(page.url, run=first["run"], after=first["number"])
        assert (again["number"], picture) == (first["number"], b"")


def test_a_browser_of_an_earlier_run_starts_anew() -> None:
    """After a restart its numbers are ahead of ours, and it would wait for ever."""
    with PageSink(port=0) as page:
        page.show(make_answer(1))
        news, picture = ask(page.url, run="another", after=10_000, since=10_000)
    assert news["answer"]["frame"] == 1
    assert news["steps"]
    assert picture


def test_pictures_are_made_only_for_who_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of JPEGs a minute that nobody sees are the model's time; browsers that look at once share one."""
    made = count_pictures(monkeypatch)
    with PageSink(port=0) as page, ThreadPoolExecutor() as pool:
        for frame in range(100):
            page.show(make_answer(frame))
        assert made == []
        replies = list(pool.map(lambda _: ask(page.url), range(4)))
        assert {news["answer"]["frame"] for news, _ in replies} == {99}
        assert len(made) == 1
        assert made[0][1] is not threading.current_thread()


def test_pictures_have_a_highest_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is answered faster than anyone can look; a second browser does not double the work."""
    monkeypatch.setattr(board, "_PICTURES_PER_S", 5.0)
    made = count_pictures(monkeypatch)
    with PageSink(port=0) as page:
        stop = threading.Event()

        def look() -> None:
            run, number = "", 0
            while not stop.is_set():
                news, _ = ask(page.url, run=run, after=number)
                run, number = news["run"], news["number"]

        lookers = [threading.Thread(target=look) for _ in range(3)]
        for looker in lookers:
            looker.start()
        for frame in range(200):
            page.show(make_answer(frame))
            time.sleep(0.01)
        stop.set()
        page.show(make_answer(999))
        for looker in lookers:
            looker.join()
    assert len(made) > 2
    assert min(np.diff([at_s for at_s, _ in made])) > 0.19


def test_a_large_picture_is_sent_smaller() -> None:
    """A 4K frame shows no more on a phone, and takes the device ten times as long."""
    with PageSink(port=0) as page:
        page.show(make_answer(image=np.zeros((2160, 3840, 3), np.uint8)))
        _, picture = ask(page.url)
    image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    assert image.shape == (720, 1280, 3)


def test_strange_answers_still_arrive() -> None:
    """Hostile labels, lone surrogates from a file's name, NaN, and an image that is none."""
    hostile = ("</script><b>\x00", "\udcff", "語")
    strange = make_answer(
        labels=hostile,
        probabilities=(float("nan"), 0.5, 0.1),
        age_ms=float("inf"),
        image=np.zeros((0, 0, 3), np.uint8),
    )
    with PageSink(port=0, about={"Name": "\udcff", "Path": os.PathLike, "Number": float("nan")}) as page:
        page.show(strange)
        news, picture = ask(page.url)
        assert get(page.url, "/about").status == 200
    assert [score["label"] for score in news["answer"]["top"]] == ["</script><b>\x00", "?", "語"]
    assert news["answer"]["probability"] is None
    assert news["answer"]["age_ms"] is None
    assert picture == b""


def test_every_answer_protects_the_page() -> None:
    """No other site may read, frame or keep what the camera sees; nothing may run but the page's own script."""
    with PageSink(port=0) as page:
        page.show(make_answer())
        for path in ("/", "/style.css", "/page.js", "/chart.js", "/icon.svg", "/about", "/answers", "/none"):
            reply = get(page.url, path, Origin="https://elsewhere.example")
            assert reply.status == (404 if path == "/none" else 200)
            assert reply.headers["cache-control"] == "no-store"
            assert reply.headers["x-content-type-options"] == "nosniff"
            assert reply.headers["cross-origin-resource-policy"] == "same-origin"
            policy = reply.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert not [name for name in reply.headers if name.startswith("access-control")]
            assert "server" not in reply.headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_the_page_takes_nothing(method: str) -> None:
    """There is nothing to change from outside, nor a preflight to grant."""
    with PageSink(port=0) as page:
        assert get(page.url, "/answers", method=method).status == 405


@pytest.mark.parametrize(
    "path", ["/../app.py", "/static/style.css", "//style.css", "/%2e%2e/app.py", "/sink.py"]
)
def test_no_other_file_is_served(path: str) -> None:
    """Paths name the page's own few files, never a place on the disk."""
    with PageSink(port=0) as page:
        assert get(page.url, path).status == 404


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", ""]
)
def test_a_name_that_is_not_ours_is_refused(host: str) -> None:
    """DNS rebinding: a site makes its own name point at this machine, and its script would read the camera."""
    with PageSink(port=0) as page:
        page.show(make_answer())
        for path in ("/", "/answers", "/page.js"):
            assert get(page.url, path, Host=host).status in (400, 421)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:9",
        "127.0.0.1:1",
        "[::1]:8",
        "192.168.1.5",
        socket.gethostname(),
        "cam.example.org",
    ],
)
def test_our_own_names_are_served(host: str) -> None:
    """With another port too: a tunnel to a device without a screen has its own."""
    with PageSink(port=0, names=("cam.example.org",)) as page:
        assert get(page.url, "/", Host=host).status == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_site_may_link_here_but_not_ask(site: str) -> None:
    """A page elsewhere must not even learn whether a camera runs."""
    with PageSink(port=0) as page:
        page.show(make_answer())
        assert get(page.url, "/answers", Sec_Fetch_Site=site, Sec_Fetch_Mode="no-cors").status == 403
        assert get(page.url, "/icon.svg", Sec_Fetch_Site=site, Sec_Fetch_Mode="no-cors").status == 403
        assert get(page.url, "/", Sec_Fetch_Site=site, Sec_Fetch_Mode="navigate").status == 200
        assert get(page.url, "/answers", Sec_Fetch_Site="same-origin").status == 200


def test_the_network_needs_a_token() -> None:
    """A camera must not be open to a whole network because of one option."""
    with (
        pytest.raises(OptionError, match=r"would see the camera; give a token, or take 127\.0\.0\.1"),
        PageSink("0.0.0.0", 0),
    ):
        pass
    with pytest.raises(OptionError, match="at least 8 characters"):
        PageSink("0.0.0.0", 0, token="guess")


def test_without_the_token_nothing_is_seen() -> None:
    """Neither the picture nor what the file says; only the page that asks for the token, and its colours."""
    with PageSink("0.0.0.0", 0, token=TOKEN) as page:
        page.show(make_answer(labels=("secret", "b", "c")))
        page_url = f"http://127.0.0.1:{page.port}/"
        for path in ("/", "/answers", "/about", "/page.js", "/?token=wrong", "/answers?token="):
            reply = get(page_url, path)
            assert reply.status == 401, path
            assert reply.headers["www-authenticate"] == "Bearer"
            assert b"secret" not in reply.body
            assert "set-cookie" not in reply.headers
        assert b"That is not the token" in get(page_url, "/?token=wrong").body
        assert b"That is not the token" not in get(page_url, "/").body
        assert get(page_url, "/", Authorization="Bearer no").status == 401
        assert get(page_url, "/", Cookie=f"vit_edge_{page.port}={TOKEN}").status == 401
        assert get(page_url, "/", Cookie=f"vit_edge_{page.port}=\xff").status == 401


def test_the_token_opens_the_page_and_leaves_the_address() -> None:
    """An address with the token in it would be kept in the history, and shared with a screenshot."""
    with PageSink("0.0.0.0", 0, token=TOKEN) as page:
        page.show(make_answer())
        path = "/" + page.url.split("/", 3)[3]
        opened = get(page.url, path)
        assert (opened.status, opened.headers["location"]) == (303, "./")
        cookie = opened.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        assert TOKEN not in cookie
        pair = cookie.partition(";")[0]
        for inner in ("/", "/answers", "/about", "/page.js"):
            assert get(page.url, inner, Cookie=pair).status == 200
        assert get(page.url, "/answers", Authorization=f"Bearer {TOKEN}").status == 200
    # A new token closes the door for those who knew the old one.
    with PageSink("127.0.0.1", page.port, token="another token") as other:
        assert get(other.url, "/", Cookie=pair).status == 401


def test_the_token_is_never_logged(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Logs are kept for long, and sent to those who help."""
    caplog.set_level(0)
    with PageSink("0.0.0.0", 0, token=TOKEN) as page:
        get(page.url, "/" + page.url.split("/", 3)[3])
        get(page.url, "/?token=wrong-token")
    told = caplog.text + "".join(capfd.readouterr())
    assert "token=" not in told
    assert TOKEN not in told


def test_noise_from_the_network_is_not_told(capfd: pytest.CaptureFixture[str]) -> None:
    """Whoever scans the ports must not fill the logs of a device."""
    with PageSink(port=0) as page:
        with connect(page.url, path=None) as strange:
            strange.sendall(b"\x16\x03\x01\x02\x00 nothing of the web\r\n\r\n")
            assert strange.recv(100).startswith(b"HTTP/1.1 400")
        assert get(page.url).status == 200
    assert capfd.readouterr() == ("", "")


def test_show_returns_while_the_server_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop must never wait for a picture that is being made, nor for the browser that wants it."""
    go_on, begun = threading.Event(), threading.Event()
    real = board.encode

    def slow(image: NDArray[np.uint8]) -> bytes:
        begun.set()
        go_on.wait(30)
        return real(image)

    monkeypatch.setattr(board, "encode", slow)
    with PageSink(port=0) as page, ThreadPoolExecutor() as pool:
        page.show(make_answer(0))
        asked = pool.submit(ask, page.url)
        assert begun.wait(10)
        shown = pool.submit(lambda: [page.show(make_answer(frame)) for frame in range(1, 2000)])
        try:
            assert all(shown.result(20))
            assert not asked.done()
        finally:
            go_on.set()
        first, _ = asked.result(10)
        news, _ = ask(page.url, run=first["run"], after=first["number"])
        assert news["answer"]["frame"] == 1999


def test_browsers_that_never_read_cost_no_memory() -> None:
    """Twenty dead tabs on a night's run: each holds at most one picture, however many answers come."""
    image = noise(480, 640)
    with PageSink(port=0) as page, ExitStack() as stalled:
        page.show(make_answer(0, image=image))
        for _ in range(20):
            stalled.enter_context(connect(page.url, receive_bytes=4096))
        tracemalloc.start()
        try:
            for frame in range(1, 40):
                page.show(make_answer(frame, image=image))
                time.sleep(0.02)
            before, _ = tracemalloc.get_traced_memory()
            for frame in range(40, 120):
                page.show(make_answer(frame, image=image))
                time.sleep(0.02)
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert after - before < 200_000, "less than half of one picture"
        # Who reads gets the newest, as if the others were not there.
        assert ask(page.url)[0]["answer"]["frame"] == 119


def test_a_browser_that_stalls_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its socket and its picture would stay for as long as the network keeps a dead peer: hours."""
    monkeypatch.setattr(guard, "_STALLED_S", 0.5)
    monkeypatch.setattr(guard, "_LOOK_EVERY_S", 0.1)
    with PageSink(port=0) as page:
        page.show(make_answer(image=noise(1080, 1280)))
        with connect(page.url, receive_bytes=4096) as stalled:
            wait_until(lambda: len(page._guard) == 1)
            wait_until(lambda: len(page._guard) == 0)
            with pytest.raises(ConnectionResetError):
                collections.deque(iter(lambda: stalled.recv(1 << 16), b""), maxlen=0)


def test_a_connection_that_says_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a request a connection would take all the files that a process may open, the recording's too."""
    monkeypatch.setattr(guard, "_SILENT_S", 0.5)
    monkeypatch.setattr(guard, "_LOOK_EVERY_S", 0.1)
    with PageSink(port=0) as page, connect(page.url, path=None) as silent:
        silent.sendall(b"GET / HT")
        with pytest.raises(ConnectionResetError):
            silent.recv(1)


def test_connections_are_limited_and_the_newest_gets_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of idle connections locks nobody out."""
    monkeypatch.setattr(guard, "_CONNECTIONS", 8)
    with PageSink(port=0) as page, ExitStack() as flood:
        page.show(make_answer())
        for _ in range(50):
            flood.enter_context(connect(page.url, path=None))
        assert ask(page.url)[0]["answer"]["frame"] == 0
        assert len(page._guard) <= 8


def test_it_ends_within_a_second_whatever_is_open() -> None:
    """Ctrl-C must not hang on a phone in someone's pocket; whoever waits hears that the run has ended."""
    with ThreadPoolExecutor() as pool, ExitStack() as open_still:
        with PageSink(port=0) as page:
            page.show(make_answer(image=noise(1080, 1280)))
            first, _ = ask(page.url)
            waiting = pool.submit(ask, page.url, run=first["run"], after=first["number"])
            for path in ("/answers", "/answers", None, None):
                open_still.enter_context(connect(page.url, path=path, receive_bytes=4096))
            time.sleep(0.5)
            start_s = time.monotonic()
        # uvicorn by itself would wait for two seconds and more; this machine may be busy.
        assert time.monotonic() - start_s < 1.5
        assert waiting.result(5)[0]["ended"]
    with pytest.raises(ConnectionRefusedError):
        get(page.url)
    assert not [thread for thread in threading.enumerate() if thread.name == "vit-edge page"]


def test_a_browser_that_has_just_shown_the_last_answer_hears_of_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is not waiting at that moment, and would say that the connection is lost."""
    monkeypatch.setattr(sink, "_FAREWELL_S", 2.0)
    with ThreadPoolExecutor() as pool:
        with PageSink(port=0) as page:
            page.show(make_answer())
            first, _ = ask(page.url)

            def come_back() -> bool:
                time.sleep(0.3)
                news, _ = ask(page.url, run=first["run"], after=first["number"])
                return bool(news["ended"])

            heard = pool.submit(come_back)
        assert heard.result(5)


def test_answers_before_and_after_harm_nothing() -> None:
    """A loop may show its last answer while the page is being closed."""
    page = PageSink(port=0)
    assert page.show(make_answer(0))
    assert not page.serving
    with page:
        assert page.serving
        assert ask(page.url)[0]["answer"]["frame"] == 0
    assert page.show(make_answer(1))
    assert not page.serving


def test_an_error_in_the_loop_closes_the_page() -> None:
    """The port must be free for the next start."""
    with pytest.raises(KeyError), PageSink(port=0) as page:
        raise KeyError
    with pytest.raises(ConnectionRefusedError):
        get(page.url)


def test_the_program_leaves_signals_alone() -> None:
    """The server likes to take Ctrl-C for itself; the loop needs it, to finish the recording."""
    script = (
        "import signal\nfrom vit_edge.page import PageSink\nbefore = signal.getsignal(signal.SIGTERM)\n"
        "with PageSink(port=0):\n    assert signal.getsignal(signal.SIGTERM) is before\n"
        "    try:\n        signal.raise_signal(signal.SIGINT)\n    except KeyboardInterrupt:\n        print('heard')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("heard\n", "", 0)


def wait_until(true: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 15
    while not true():
        assert time.monotonic() < end_s
        time.sleep(0.02)

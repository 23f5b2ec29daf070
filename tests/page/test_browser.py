"""The page as people see it, in a real Chromium."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.page.answers import count_pictures, make_answer
from tests.page.browser import Browser, needs_chromium
from vit_edge.page import PageSink
from vit_edge.runtime.answer import Answer

pytestmark = needs_chromium

LIVE = "document.getElementById('state').dataset.state === 'live'"
HOSTILE = (
    "<img src=x onerror='window.hurt = 1'>",
    "</script><script>window.hurt = 1</script>",
    "猫 & кот \u202e",
)
ABOUT = {
    "File": "model.onnx, 6.26 MB",
    "Labels": 1000,
    "Recipe": {"Precision": "int8", "Steps": ["trace", "<b>simplify</b>"]},
    "Notes": [],
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as opened:
        yield opened


@contextmanager
def feeding(page: PageSink, make: Callable[[int], Answer] = make_answer) -> Iterator[None]:
    """Show answers at the pace of a camera."""
    stop = threading.Event()

    def feed() -> None:
        frame = 0
        while not stop.wait(0.03):
            page.show(make(frame))
            frame += 1

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_the_page_shows_the_answer(browser: Browser) -> None:
    """Picture, labels with their bars, the numbers, the chart, and what the file says of itself."""
    browser.messages.clear()
    make = lambda frame: make_answer(frame, dropped=frame // 2)  # noqa: E731
    with PageSink(port=0, about=ABOUT) as page, feeding(page, make):
        browser.show(page.url)
        browser.wait_for(LIVE)
        assert browser.text("#source") == "camera 0"
        assert browser.text("#caption").split("\n") == ["golden retriever", "75.0%"]
        assert browser.text("#bars li").split("\n") == ["golden retriever", "75.0%"]
        widths = browser.run("[...document.querySelectorAll('.fill')].map((bar) => bar.style.width)")
        assert widths == ["75%", "20%", "5%"]
        red = "[...document.getElementById('picture').getContext('2d').getImageData(80, 45, 1, 1).data]"
        assert np.abs(np.array(browser.run(red)) - (230, 20, 20, 255)).max() < 8
        assert browser.text("#age") == "40"
        assert browser.text("#latency") == "25"
        # Without a moment to draw there are no lines yet.
        browser.wait_for("document.querySelectorAll('#chart polyline.age').length > 0")
        browser.wait_for("document.getElementById('dropped').innerText !== '0'")
        browser.wait_for("Number(document.getElementById('rate').innerText) > 10")
        about = browser.wait_for("document.querySelector('#about dl')?.innerText")
        assert "Labels\n1000" in about
        assert "<b>simplify</b>" in about
        assert "Notes" not in about, "an empty list has no row"
        assert browser.run("document.title") == "golden retriever · vit-edge"
        assert browser.messages == []


def test_the_page_takes_labels_as_text(browser: Browser) -> None:
    """A label comes from a file that anyone may have made; as markup it would run in the viewer's browser."""
    make = lambda frame: make_answer(frame, labels=HOSTILE, source=HOSTILE[0])  # noqa: E731
    with PageSink(port=0, about={HOSTILE[0]: HOSTILE[1]}) as page, feeding(page, make):
        browser.show(page.url)
        browser.wait_for(LIVE)
        browser.wait_for("document.querySelector('#about dl')")
        names = browser.run("[...document.querySelectorAll('#bars .name')].map((name) => name.textContent)")
        assert names == list(HOSTILE)
        assert browser.text("#source") == HOSTILE[0]
        assert browser.run("window.hurt") is None
        assert browser.run("document.querySelectorAll('main img, main script').length") == 0


def test_a_long_text_is_folded(browser: Browser) -> None:
    """The steps of a recipe would push everything else off the page; they are there for who wants them."""
    steps = "; ".join(f"Step{number}(<b>)" for number in range(400))
    with PageSink(port=0, about={"Steps": [steps], "Precision": "int8"}) as page:
        browser.show(page.url)
        browser.wait_for("document.querySelector('#about dl')")
        assert browser.text("#about summary") == f"{steps[:120].rstrip()} …"
        assert "Step399" not in browser.text("#about")
        browser.run("document.querySelector('#about summary').focus()")
        browser.press("Enter")
        browser.wait_for("document.getElementById('about').innerText.includes('Step399(<b>)')")
        browser.wait_for("document.querySelector('#about summary').innerText === 'Less'")


def test_an_answer_that_is_not_sure_is_shown_as_such(browser: Browser) -> None:
    """The caption must not name a class that the loop did not."""
    with (
        PageSink(port=0) as page,
        feeding(page, lambda frame: make_answer(frame, known=False, repeated=True)),
    ):
        browser.show(page.url)
        browser.wait_for(LIVE)
        assert browser.text("#caption-label") == "unknown"
        assert browser.text("#bars .name") == "golden retriever"
        assert browser.text("#unsure") == "None is likely enough to be the answer."
        assert "nothing moves" in browser.text("#frame")


def test_a_picture_keeps_its_shape(browser: Browser) -> None:
    """An upright picture, as of a phone, must be neither squeezed nor taller than the window."""
    upright = make_answer(image=np.zeros((640, 360, 3), np.uint8))
    with PageSink(port=0) as page:
        page.show(upright)
        browser.show(page.url, width=1280, height=700)
        browser.wait_for("document.getElementById('picture').width === 360")
        assert browser.run("getComputedStyle(document.getElementById('picture')).objectFit") == "contain"
        assert browser.run("document.getElementById('picture').clientHeight < innerHeight")


def test_a_lost_connection_is_told_and_mended(browser: Browser) -> None:
    """A device restarts, a phone leaves the house: the page says so, and comes back by itself."""
    with PageSink(port=0) as page:
        with feeding(page):
            browser.show(page.url)
            browser.wait_for(LIVE)
        # Until the browser has shown the last answer, and waits for the next.
        browser.wait_for("document.getElementById('state').dataset.state === 'quiet'")
    browser.wait_for("document.getElementById('state').dataset.state === 'ended'")
    assert "The run has ended" in browser.text("#cover")
    with (
        PageSink(port=page.port) as again,
        feeding(again, lambda frame: make_answer(frame, source="camera 1")),
    ):
        browser.wait_for(LIVE)
        assert browser.text("#source") == "camera 1"
        assert browser.text("#cover") == ""
        # Only the wire is cut: nobody could say that the run has ended.
        browser.call(
            "Network.emulateNetworkConditions",
            offline=True,
            latency=0,
            downloadThroughput=0,
            uploadThroughput=0,
        )
        try:
            browser.wait_for("document.getElementById('state').dataset.state === 'lost'")
            assert "The connection is lost" in browser.text("#cover")
        finally:
            browser.call(
                "Network.emulateNetworkConditions",
                offline=False,
                latency=0,
                downloadThroughput=-1,
                uploadThroughput=-1,
            )
        browser.wait_for(LIVE)


def test_a_silent_camera_is_told(browser: Browser) -> None:
    """A picture that stands still looks like a scene that does."""
    with PageSink(port=0) as page:
        browser.show(page.url)
        browser.wait_for("document.getElementById('state-text').innerText === 'Waiting'")
        assert browser.text("#cover") == "Waiting for the first answer …"
        assert browser.run("document.querySelector('.about').getClientRects().length") == 0, "it says nothing"
        page.show(make_answer())
        browser.wait_for(LIVE)
        browser.wait_for("document.getElementById('state-text').innerText.startsWith('No answer for')")
        page.show(make_answer(1))
        browser.wait_for(LIVE)


def test_a_pause_holds_the_picture_and_spares_the_device(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the keyboard as by the button; pictures are made only for who looks."""
    made = count_pictures(monkeypatch)
    with PageSink(port=0) as page, feeding(page):
        browser.show(page.url)
        browser.wait_for(LIVE)
        browser.press("p")
        browser.wait_for("document.getElementById('state').dataset.state === 'paused'")
        assert browser.run("document.getElementById('pause').getAttribute('aria-pressed')") == "true"
        count, frame = len(made), browser.text("#frame")
        time.sleep(0.7)
        assert (len(made), browser.text("#frame")) == (count, frame)
        browser.run("document.getElementById('pause').click()")
        browser.wait_for(LIVE)
        browser.wait_for(f"document.getElementById('frame').innerText !== {frame!r}")


def test_the_chart_is_read_by_keyboard(browser: Browser) -> None:
    """Who sees no chart, or has no mouse, gets the same numbers."""
    with PageSink(port=0) as page, feeding(page):
        browser.show(page.url)
        browser.wait_for("document.querySelectorAll('#chart polyline.age').length > 0")
        spoken = browser.wait_for(
            "document.getElementById('chart').getAttribute('aria-label').match(/frame age.*/)[0]"
        )
        assert spoken.startswith("frame age 40 ms on average, 40 ms at worst; latency 25 ms on average")
        browser.run("document.getElementById('chart').focus()")
        browser.press("ArrowLeft")
        assert "frame age 40.0 ms (worst 40.0), latency 25.0 ms" in browser.text("#readout")
        assert browser.run("document.getElementById('readout').getAttribute('aria-live')") == "polite"
        browser.press("Escape")
        assert "frame age 40.0 ms" not in browser.text("#readout")


def test_a_new_answer_is_spoken_now_and_then(browser: Browser) -> None:
    """Thirty announcements a second would make a screen reader useless."""
    make = lambda frame: make_answer(frame, labels=(f"label {frame}", "b", "c"))  # noqa: E731
    with PageSink(port=0) as page, feeding(page, make):
        browser.show(page.url)
        browser.wait_for("document.getElementById('spoken').innerText")
        assert browser.run("document.getElementById('spoken').getAttribute('role')") == "status"
        first = browser.text("#spoken")
        time.sleep(1)
        assert browser.text("#spoken") == first
        assert browser.text("#caption-label") not in first


def test_the_token_is_asked_for_and_leaves_the_address(browser: Browser) -> None:
    """People come with an address that lacks it, type it, and share what they see afterwards."""
    with PageSink("0.0.0.0", 0, token="öffne dich & 42") as page, feeding(page):
        bare = f"http://127.0.0.1:{page.port}/"
        browser.show(bare, width=390, height=844)
        browser.wait_for("document.querySelector('input[name=token]')")
        assert browser.run(CUT_OFF) == []
        assert browser.run(POOR_CONTRAST) == []
        browser.wait_for("document.activeElement.name === 'token'")
        for typed, after in (
            ("wrong one", "document.querySelector('[role=alert]')"),
            ("öffne dich & 42", LIVE),
        ):
            browser.run("document.querySelector('input').focus()")
            browser.call("Input.insertText", text=typed)
            browser.run("document.querySelector('form').requestSubmit()")
            browser.wait_for(after)
        assert browser.run("location.href") == bare
        assert browser.run("document.cookie") == "", (
            "the page's script needs no key, so that none can be stolen"
        )
    # Started anew with another token: the page asks again instead of saying that the connection is lost.
    with PageSink("0.0.0.0", page.port, token="another token"):
        browser.wait_for("document.querySelector('input[name=token]')")


@pytest.mark.parametrize("width", [320, 390, 768, 1280, 1920])
def test_it_fits_and_can_be_read(browser: Browser, width: int, tmp_path: Path) -> None:
    """No sideways scrolling, nothing cut off, and a contrast of WCAG's AA, whatever the labels, light and dark."""
    long = (
        "great white shark, white shark, man-eater, man-eating shark, Carcharodon carcharias",
        "Ж" * 80,
        "c",
    )
    make = lambda frame: make_answer(frame, labels=long, source="rtsp://camera/" + "x" * 80)  # noqa: E731
    with PageSink(port=0, about=ABOUT | {"Hash": "f" * 200}) as page, feeding(page, make):
        browser.show(page.url, width=width, height=844)
        browser.wait_for(LIVE)
        browser.wait_for("document.querySelector('#about dl') && document.querySelector('#chart .grid')")
        for dark in (False, True):
            browser.look(width=width, height=844, dark=dark)
            assert browser.run("document.documentElement.scrollWidth") <= width
            assert browser.run(CUT_OFF) == []
            assert browser.run(POOR_CONTRAST) == []
            browser.screenshot(tmp_path / "page.png", whole=False)
            image = cv2.imread(str(tmp_path / "page.png"))
            assert image is not None
            assert (image[2, width - 2].mean() < 60) == dark, "the ground follows the system"


# What reaches out of the window, or out of the card around it.
CUT_OFF = """
[...document.querySelectorAll("body *")].filter((node) => {
  const box = node.getBoundingClientRect();
  const around = (node.closest(".card") ?? document.documentElement).getBoundingClientRect();
  return box.width && !node.closest(".unseen, svg") && (box.right > around.right + 1 || box.left < around.left - 1);
}).map((node) => `${node.tagName}#${node.id}`)
"""

# The ratio of WCAG 2.2, 1.4.3, for every element that holds text, against the nearest ground behind it.
POOR_CONTRAST = """
(() => {
  const parse = (text) => text.match(/[0-9.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const [r, g, b, a = 1] = parse(getComputedStyle(at).backgroundColor);
      // What lies over the picture is judged over the worst of pictures, a white one.
      if (a > 0) return [r, g, b].map((v) => v * a + 255 * (1 - a));
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
    if (!own || !node.getClientRects().length || node.closest(".unseen, noscript")) continue;
    const style = getComputedStyle(node);
    const color = parse(node instanceof SVGElement ? style.fill : style.color).slice(0, 3);
    const [a, b] = [light(color), light(ground(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) poor.push(`${node.tagName}#${node.id} ${node.textContent.slice(0, 20)}: ${ratio.toFixed(2)}`);
  }
  return poor;
})()
"""


def test_the_contrast_check_sees_poor_contrast(browser: Browser) -> None:
    """A check that finds nothing anywhere proves nothing."""
    with PageSink(port=0) as page, feeding(page):
        browser.show(page.url)
        browser.wait_for(LIVE)
        browser.run("document.getElementById('source').style.color = '#ccc'")
        assert "camera 0" in browser.run(POOR_CONTRAST)[0]

"""The console in a real browser: Debian's chromium, driven by Playwright."""

import re
import shutil
import threading
import time
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from tests.live import LiveServer, infer_body, serve
from tests.service.console.ears import Ears
from tests.service.console.letters import Letters
from tests.service.engine.fake_generator import FakeGenerator

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("NO BROWSER: the console is not tested here; apt-get install chromium", allow_module_level=True)

MICROPHONE = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")
"""One that beeps, and that may be used without asking."""
WAIT = 15_000  # milliseconds; what is awaited takes about one thousand
expect.set_options(timeout=WAIT)


@pytest.fixture(scope="module")
def live(model, tmp_path_factory) -> Iterator[LiveServer]:
    with serve(
        [model, Letters(), Ears(), FakeGenerator(name="talker")],
        tmp_path_factory.mktemp("home"),
        slo_latency_ms=10_000,
        slo_speech_ms=10_000,
    ) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as engine:
        chromium = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *MICROPHONE])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, live) -> Iterator[Page]:
    with opened(browser, live) as page:
        yield page


@contextmanager
def opened(browser, live: LiveServer, width: int = 1280, **context) -> Iterator[Page]:
    """A page whose console stays silent, or the test fails."""
    said: list[str] = []
    with browser.new_context(viewport={"width": width, "height": 900}, **context) as tab:
        page = tab.new_page()
        page.set_default_timeout(WAIT)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(f"http://{live.address}/")
        expect(page.locator("#verdict-title")).not_to_be_empty()
        yield page
        assert said == []


@contextmanager
def load(live: LiveServer, images) -> Iterator[None]:
    """Requests one after another, until the block ends."""
    ended = threading.Event()

    def run() -> None:
        with httpx.Client(base_url=f"http://{live.address}") as client:
            while not ended.wait(0.01):
                client.post("/v2/models/fashion/infer", json=infer_body(images[:1]))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_the_slider_changes_the_slo_and_the_level_follows(page, live, images):
    with load(live, images):
        expect(page.locator("#verdict")).to_have_attribute("data-state", "met")
        expect(page.locator("#skipped-note")).to_contain_text("level 0.00")
        page.focus("#latency-slider")
        page.keyboard.press("Home")
        expect(page.locator("#controls-note")).to_have_text("In force.")
        assert live.http.get("/v2/models/fashion/slo").json()["latency_ms"] == 1
        expect(page.locator("#skipped-note")).not_to_contain_text("level 0.00")
    live.http.patch("/v2/models/fashion/slo", json={"latency_ms": 10_000})


def test_a_change_shows_within_a_second(page, live):
    page.fill("#latency", "77")
    pressed = time.monotonic()
    page.press("#latency", "Enter")
    expect(page.locator("#tail-note")).to_contain_text("of 77 ms allowed")
    assert time.monotonic() - pressed < 1
    assert live.http.get("/v2/models/fashion/slo").json()["latency_ms"] == 77
    live.http.patch("/v2/models/fashion/slo", json={"latency_ms": 10_000})


def test_a_change_made_elsewhere_shows_too(page, live):
    live.http.patch("/v2/models/fashion/slo", json={"quality_floor": 0.9})
    expect(page.locator("#floor")).to_have_value("90")
    live.http.patch("/v2/models/fashion/slo", json={"quality_floor": 0.95})


def test_the_last_minute_shows_second_by_second(page, live, images):
    with load(live, images):
        page.wait_for_selector("#strip i.good")
    assert page.locator("#strip i").count() == 60


def test_a_page_that_nobody_looks_at_asks_nothing(page):
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.evaluate(
        """() => {
            Object.defineProperty(document, "hidden", { configurable: true, get: () => true });
            document.dispatchEvent(new Event("visibilitychange"));
        }"""
    )
    page.wait_for_timeout(300)
    asked.clear()
    page.wait_for_timeout(2500)
    assert asked == []
    with page.expect_request(re.compile("/console/state/")):
        page.evaluate(
            """() => {
                Object.defineProperty(document, "hidden", { configurable: true, get: () => false });
                document.dispatchEvent(new Event("visibilitychange"));
            }"""
        )


def test_a_page_that_is_looked_at_asks_once_a_second(page):
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(4000)
    assert 2 <= len(asked) <= 5
    assert all("/console/state/" in url for url in asked)


def test_a_refused_change_says_why_and_leaves_the_slo(browser, live):
    with opened_quietly(browser, live) as page:
        page.fill("#latency", "-3")
        page.press("#latency", "Tab")
        expect(page.locator("#controls-note.bad")).to_contain_text("latency_ms")
    assert live.http.get("/v2/models/fashion/slo").json()["latency_ms"] == 10_000


def test_an_image_is_answered_beside_the_dense_model(page):
    page.click("#samples button >> nth=3")
    page.uncheck("#follow")
    page.focus("#try-level")
    page.keyboard.press("End")
    expect(page.locator("#answers h3").first).to_contain_text("1.00")
    served, dense = page.locator("#answers .facts").all_text_contents()
    skipped = [int(re.search(r"(\d+) %", text).group(1)) for text in (served, dense)]
    assert skipped[0] > skipped[1]
    assert page.locator("#answers .label").count() == 2
    expect(page.locator("#try-verdict")).to_contain_text("× as fast")
    page.wait_for_selector("#network rect.on")
    assert page.locator("#network rect.on").count() < page.locator("#network rect").count()


def test_a_drawing_is_answered(page):
    page.locator("#drawing").scroll_into_view_if_needed()
    box = page.locator("#drawing").bounding_box()
    page.mouse.move(box["x"] + 60, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 100, box["y"] + 150, steps=8)
    page.mouse.up()
    page.wait_for_selector("#answers .label")


def test_texts_are_answered_beside_the_dense_model(page):
    page.select_option("#model", "letters")
    page.wait_for_selector("#text-one")
    assert not page.is_visible("#drawing")
    page.fill("#text-one", "abba")
    page.fill("#text-two", "baab")
    expect(page.locator("#answers .label")).to_have_text(["1.000 alike", "1.000 alike"])
    expect(page.locator("#try-verdict")).to_contain_text("Cosine to the dense model 1.000")
    page.uncheck("#follow")
    page.focus("#try-level")
    page.keyboard.press("End")
    page.fill("#text-two", "abbazzzz")
    # It counts its channels and does not tell which.
    expect(page.locator("#network .share figcaption")).to_contain_text("% computed")
    # Gated, this model does not see a z: both are the same to it.
    expect(page.locator("#answers .label")).to_have_text(["1.000 alike", "0.577 alike"])
    page.click("#examples button >> nth=1")
    expect(page.locator("#text-two")).to_have_value("The central bank raised interest rates.")
    page.select_option("#model", "fashion")
    page.wait_for_selector("#drawing")
    assert not page.is_visible("#text-one")


def test_a_message_is_answered_as_it_is_made(page, live):
    page.select_option("#model", "talker")
    page.wait_for_selector("#message")
    page.fill("#message", "Hi")
    page.press("#message", "Enter")
    expect(page.locator("#answers .said")).to_have_text(["Hello, world", "Hello, world"])
    expect(page.locator("#try-verdict")).to_contain_text("The same text as the dense model")
    expect(page.locator("#answers .facts").first).to_contain_text("to the first token")
    page.uncheck("#follow")
    page.focus("#try-level")
    page.keyboard.press("End")
    expect(page.locator("#answers h3").first).to_contain_text("1.00")
    expect(page.locator("#answers .facts").first).to_contain_text("% of the work skipped")


def test_a_recording_is_answered_beside_the_dense_model(page, tmp_path):
    page.select_option("#model", "ears")
    page.wait_for_selector("#clip")
    page.set_input_files("#clip", tone(tmp_path / "tone.wav", seconds=1.5, hertz=440))
    expect(page.locator("#answers .said")).to_have_text(["1.5 s at 440 Hz", "1.5 s at 440 Hz"])
    expect(page.locator("#try-verdict")).to_contain_text("The same text as the dense model")
    expect(page.locator("#clip-note")).to_have_text("1.5 s")
    page.uncheck("#follow")
    page.focus("#try-level")
    page.keyboard.press("End")
    expect(page.locator("#answers .said").first).to_have_text("a sound")
    expect(page.locator("#try-verdict")).to_contain_text("Another text than the dense model")
    # Many layers are a table: a row for each kind.
    expect(page.locator("#network th")).to_have_text(["encoder neurons", "words"])
    expect(page.locator("#network .mean").last).to_have_text("50 % computed")
    assert page.locator("#network tr").first.locator("i").count() == 14
    expect(page.locator("#offline")).to_be_hidden()


def test_a_file_that_is_no_sound_is_said_to_be_none(page, tmp_path):
    (tmp_path / "words.wav").write_text("not a sound")
    page.select_option("#model", "ears")
    page.wait_for_selector("#clip")
    page.set_input_files("#clip", tmp_path / "words.wav")
    expect(page.locator("#clip-note.bad")).to_contain_text("cannot read")


def test_a_clip_is_recorded_and_answered(browser, live):
    with opened(browser, live, permissions=["microphone"]) as page:
        page.select_option("#model", "ears")
        page.click("#record")
        expect(page.locator("#record")).to_have_text("Stop recording")
        page.wait_for_timeout(700)
        page.click("#record")
        expect(page.locator("#answers .said").first).to_contain_text(" s at ")


def test_a_language_model_has_two_times(page, live):
    assert not page.is_visible("#pace")
    page.select_option("#model", "talker")
    expect(page.locator("#latency-label")).to_have_text("First token")
    expect(page.locator("#tail-name")).to_have_text("p99 first token")
    page.fill("#pace", "55")
    page.press("#pace", "Enter")
    expect(page.locator("#controls-note")).to_have_text("In force.")
    slo = live.http.get("/v2/models/talker/slo").json()
    assert (slo["first_token_ms"], slo["token_ms"]) == (2000, 55)
    page.fill("#latency", "1500")
    page.press("#latency", "Enter")
    expect(page.locator("#tail-note")).to_contain_text("of 1500 ms allowed")
    assert live.http.get("/v2/models/talker/slo").json()["first_token_ms"] == 1500
    page.select_option("#model", "fashion")
    expect(page.locator("#latency-label")).to_have_text("Latency")
    assert not page.is_visible("#pace")


def test_an_answer_that_fails_says_why_beside_the_other(browser, live):
    with opened_quietly(browser, live) as page:
        page.route("**/infer", answer_only_the_dense)
        page.click("#samples button >> nth=0")
        expect(page.locator("#answers .bad")).to_have_text("too busy")
        expect(page.locator("#answers .label")).to_have_count(1)


def test_charts_are_drawn(page):
    for name in ("latency", "level", "outcomes", "queue", "profile"):
        page.wait_for_selector(f"#chart-{name} canvas")


def test_language_and_theme_are_kept(page):
    page.click("#language")
    expect(page.locator("#controls-title")).to_have_text("目标")
    assert page.get_attribute("html", "lang") == "zh"
    page.click("#theme")
    chosen = page.get_attribute("html", "data-theme")
    page.reload()
    expect(page.locator("#controls-title")).to_have_text("目标")
    assert page.get_attribute("html", "data-theme") == chosen


@pytest.mark.parametrize("locale", ["en-US", "zh-CN"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_follows_the_system_and_fits_a_phone(browser, live, scheme, locale):
    with opened(browser, live, width=360, color_scheme=scheme, locale=locale) as page:
        assert page.get_attribute("html", "data-theme") == scheme
        assert page.get_attribute("html", "lang") == locale[:2]
        for model, shown in (
            ("letters", "#text-one"),
            ("talker", "#message"),
            ("ears", "#clip"),
            ("fashion", "#drawing"),
        ):
            page.select_option("#model", model)
            page.wait_for_selector(shown)
            assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_every_control_has_a_name_and_takes_the_keyboard(page):
    unnamed = page.evaluate(
        """[...document.querySelectorAll("button, input, select, a")]
            .filter((node) => !node.textContent.trim() && !node.labels?.length && !node.ariaLabel &&
                !node.title && !document.getElementById(node.getAttribute("aria-labelledby"))?.textContent)
            .map((node) => node.id)"""
    )
    assert unnamed == []
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))
    assert {"language", "theme", "latency", "latency-slider", "floor", "percentile", "shed", "follow"} <= reached


def test_a_server_with_a_token_asks_for_it(browser, model, tmp_path):
    with serve([model], tmp_path, admin_token="open sesame") as live, opened_quietly(browser, live) as page:
        page.click("#shed")
        page.wait_for_selector("#token")
        page.fill("#token", "open sesame")
        page.click("#shed")
        expect(page.locator("#controls-note")).to_have_text("In force.")


def tone(path: Path, seconds: float, hertz: float, rate: int = 8000) -> Path:
    """A sine as a WAV file of 16 bits."""
    angles = 2 * np.pi * hertz / rate * np.arange(round(seconds * rate))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((20_000 * np.sin(angles)).astype("<i2").tobytes())
    return path


def answer_only_the_dense(route: Route) -> None:
    if '"level":0' in (route.request.post_data or ""):
        route.continue_()
    else:
        route.fulfill(status=503, json={"error": "too busy"})


@contextmanager
def opened_quietly(browser, live: LiveServer) -> Iterator[Page]:
    """Without the check of the console: a browser writes a refused call there by itself."""
    with browser.new_context() as tab:
        page = tab.new_page()
        page.set_default_timeout(WAIT)
        page.goto(f"http://{live.address}/")
        expect(page.locator("#verdict-title")).not_to_be_empty()
        yield page

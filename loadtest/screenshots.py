"""`python -m loadtest.screenshots`: pictures of the console for the README, of a real server in a real burst, and of
what is tried on a language model and on a model of speech where their weights are installed.

It needs Playwright (in the extra `dev`) and a Chromium. The load adapts to the machine: it is given in shares of what
the dense network serves here.
"""

import asyncio
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from playwright.sync_api import Browser, Page, sync_playwright

from loadtest.benchmarks.contender import READY, SERVE, calibrate
from loadtest.curve import bursts
from loadtest.driver import Address, replay
from loadtest.processes import server
from loadtest.slo_client import SloClient
from loadtest.trace import generate
from loadtest.workload import Images
from models.zoo import catalog, fashion_data, speech_data
from service.commands.output import fail

FOLDER = Path(__file__).parents[1] / "service" / "console" / "screenshots"
DENSE_TIMES = 12
"""The SLO, in dense service times: with a browser on the same cores it is no benchmark."""
USUAL, BURST = 0.35, 1.3
"""Arrivals, as shares of what the dense network serves."""
QUIET_SECONDS, BURST_SECONDS = 16.0, 9.0
SAMPLE = 15
CLIP = "vm-instructions.wav"
ANSWER_MS = 60_000
ANY = re.compile(r"\S")
DESKTOP, PHONE = (1280, 900), (390, 844)


def main(
    folder: Annotated[Path, typer.Argument(help="Where the pictures go")] = FOLDER,
) -> None:
    """Takes the pictures: the overview in a burst, the same on a phone in the next one, an image tried; then a message
    and a recording."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        fail("this needs a Chromium: apt-get install chromium")
    images = fashion_data.sample()
    dense = calibrate(lambda: server(SERVE, READY), Images(images, {"level": 0.0}), 3.0)
    folder.mkdir(parents=True, exist_ok=True)
    with server(SERVE, READY) as address, sync_playwright() as engine:
        slo = {"latency_ms": float(round(DENSE_TIMES * dense.service_ms)), "quality_floor": 0.97}
        SloClient(f"http://{address}", "fashion").change(slo)
        browser = engine.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        with loaded(address, dense.capacity, Images(images)):
            light = opened(browser, address, DESKTOP, "light")
            light.wait_for_timeout(1000 * (1.5 * QUIET_SECONDS + 1.6 * BURST_SECONDS))
            light.screenshot(path=folder / "overview-light.png")
            dark = opened(browser, address, DESKTOP, "dark")
            phone = opened(browser, address, PHONE, "dark")
            light.close()
            phone.wait_for_timeout(1000 * (QUIET_SECONDS + BURST_SECONDS))
            phone.screenshot(path=folder / "phone-dark.png")
            dark.click(f"#samples button >> nth={SAMPLE}")
            dark.wait_for_selector("#answers .label")
            dark.locator("#try").scroll_into_view_if_needed()
            dark.screenshot(path=folder / "try-dark.png")
        browser.close()
    for name, take in {"smollm2": chat, "whisper-tiny.en": listen}.items():
        entry = next(entry for entry in catalog.available() if entry.name == name)
        if not entry.installed:
            typer.echo(f"no picture of {name}, which comes with: {entry.missing}", err=True)
            continue
        with server((*SERVE, "--model", name), READY, start_seconds=120) as address, sync_playwright() as engine:
            browser = engine.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = opened(browser, address, DESKTOP, "light")
            take(page)
            page.locator("#try").screenshot(path=folder / f"try-{take.__name__}-light.png")
            browser.close()


def chat(page: Page) -> None:
    """A message, and both answers to their ends."""
    page.wait_for_selector("#message")
    page.fill("#message", "Why is the sky blue? One sentence.")
    page.press("#message", "Enter")
    answered_at(page, "0.5")


def listen(page: Page) -> None:
    """A recording of Debian's, and what was heard."""
    page.wait_for_selector("#clip")
    page.set_input_files("#clip", speech_data.SOUNDS / CLIP)
    answered_at(page, "0.75")


def answered_at(page: Page, level: str) -> None:
    """The slider at a level, and both answers there."""
    page.locator("#try-verdict").filter(has_text=ANY).wait_for(timeout=ANSWER_MS)
    page.uncheck("#follow")
    page.locator("#try-level").fill(level)
    page.locator("#answers h3").first.filter(has_text=level).wait_for(timeout=ANSWER_MS)
    page.locator("#try-verdict").filter(has_text=ANY).wait_for(timeout=ANSWER_MS)


@contextmanager
def loaded(address: Address, capacity: float, workload: Images) -> Iterator[None]:
    """Bursts in the background: the second is from 33 to 42 s, the third from 58 to 67 s."""
    curve = bursts(
        USUAL * capacity, BURST * capacity, BURST_SECONDS, BURST_SECONDS / (BURST_SECONDS + QUIET_SECONDS), 4
    )
    trace = generate("bursts", curve, seed=0)
    thread = threading.Thread(target=lambda: asyncio.run(replay(address, trace, workload)), daemon=True)
    thread.start()
    yield


def opened(browser: Browser, address: Address, size: tuple[int, int], scheme: str) -> Page:
    """The console in a window of this size."""
    page = browser.new_page(
        viewport={"width": size[0], "height": size[1]},
        color_scheme="dark" if scheme == "dark" else "light",
        locale="en-US",
    )
    page.goto(f"http://{address}/")
    return page


if __name__ == "__main__":
    typer.run(main)

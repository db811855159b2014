import re
from pathlib import Path

from service.control.guard import QualityGuard
from service.control.level import ceiling_of
from tests.service.engine.fakes import linear_profile

STATIC = Path(__file__).parents[3] / "service" / "console" / "static"


def keys(language: str) -> dict[str, set[str]]:
    """Each text's name, and what is to be filled in."""
    text = (STATIC / "strings.js").read_text()
    block = re.search(rf"const {language} = {{(.*?)^}};", text, re.S | re.M).group(1)
    found = re.findall(r"\"?([\w-]+)\"?: \"((?:[^\"\\]|\\.)*)\"", block)
    return {name: set(re.findall(r"\{(\w+)\}", value)) for name, value in found}


def test_both_languages_have_every_text():
    assert len(keys("english")) > 50
    assert keys("english") == keys("chinese")


def test_every_text_that_the_page_names_is_there():
    named = set(re.findall(r'data-t="([\w-]+)"', (STATIC / "index.html").read_text()))
    for script in STATIC.glob("*.js"):
        named |= set(re.findall(r"\bt\(\"([\w-]+)\"", script.read_text()))
    assert named
    assert named <= set(keys("english"))


def test_no_text_is_left_over():
    scripts = {script.name: script.read_text() for script in STATIC.glob("*.js") if script.name != "strings.js"}
    used = "".join(scripts.values()) + (STATIC / "index.html").read_text()
    examples = {f"example-{number}-{part}" for number in (1, 2, 3) for part in (1, 2)}
    for name in set(keys("english")) - examples:
        assert re.search(rf"[\"']{name}[\"']", used), name


def test_no_language_is_written_into_the_page():
    page = (STATIC / "index.html").read_text()
    body = re.sub(r"<noscript>.*?</noscript>|<[^>]*>", " ", page.split("<body>")[1], flags=re.S)
    assert set(body.split()) == {"Sluice", "ms", "%"}


def test_the_page_knows_what_can_bound_the_level():
    guard = QualityGuard()
    for _ in range(500):
        guard.record(1.0, 0.0, 0.95)
    profile = linear_profile()
    reasons = [ceiling_of(profile, 0.95).reason, ceiling_of(profile, 0.0).reason, guard.reason]
    starts = re.findall(r'"([\w ]+)": "bound-', (STATIC / "verdict.js").read_text())
    assert [[start for start in starts if reason.startswith(start)] for reason in reasons] == [[one] for one in starts]

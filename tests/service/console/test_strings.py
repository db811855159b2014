import re
from pathlib import Path

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

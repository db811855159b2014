import re
import struct
from pathlib import Path

from loadtest.screenshots import DESKTOP, FOLDER, PHONE

ROOT = Path(__file__).parents[2]
SIZES = {"overview-light.png": DESKTOP, "phone-dark.png": PHONE, "try-dark.png": DESKTOP}
PARTS = {"try-chat-light.png", "try-listen-light.png"}
"""Of a page, as high as what was answered."""


def test_the_pictures_are_there_small_and_as_they_are_taken():
    assert {picture.name for picture in FOLDER.glob("*.png")} == set(SIZES) | PARTS
    for name in set(SIZES) | PARTS:
        content = (FOLDER / name).read_bytes()
        assert len(content) <= 150_000
        size = struct.unpack(">II", content[16:24])
        assert size == SIZES.get(name, size)
        assert size[0] <= DESKTOP[0]


def test_the_readme_shows_pictures_that_are_there():
    shown = re.findall(r"[\w/-]+\.png", (ROOT / "README.md").read_text())
    assert {Path(path).name for path in shown} >= set(SIZES) | PARTS
    assert all((ROOT / path).is_file() for path in shown)

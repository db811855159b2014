"""Options that several commands share, and the checks that go with them."""

from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer

from models.gating.profile import Profile
from models.zoo import language_family, speech_family, text_family
from models.zoo.catalog import available
from service.commands.output import fail

Kind = Literal["images", "texts", "language", "speech"]

Name = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name, see `sluice models`")]
Data = Annotated[
    Path | None,
    typer.Option(
        help="fashion: folder of the IDX files, by default SLUICE_FASHION_MNIST, then Debian's package; "
        "models of texts: file of texts, one a line"
    ),
]
Levels = Annotated[
    str | None,
    typer.Option(help="Levels to measure beside 0, with commas between; by default the profile's operating points"),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON")]


def read_levels(text: str) -> list[float]:
    """Ends the command where one is none."""
    with suppress(ValueError):
        levels = [float(part) for part in text.split(",")]
        if all(0 <= level <= 1 for level in levels):
            return levels
    fail(f"--levels must be numbers from 0 to 1 with commas between, not {text!r}")


def levels_to_measure(text: str | None, profile: Profile) -> list[float]:
    """0 first, to which the others are compared; without a text the profile's own."""
    if text is None:
        return [point.level for point in profile.points]
    return [0.0, *sorted(set(read_levels(text)) - {0.0})]


def kind_of(model: str) -> Kind:
    """What a model is given; "images" where it is no other's. Ends the command for a folder that cannot be read."""
    families: dict[Kind, Callable[[str], bool]] = {
        "texts": text_family.recognises,
        "language": language_family.recognises,
        "speech": speech_family.recognises,
    }
    try:
        return next((kind for kind, recognises in families.items() if recognises(model)), "images")
    except (OSError, ValueError) as error:
        fail(str(error))


def require_fashion(model: str) -> None:
    """Ends the command for a model that cannot be trained or measured on labelled images."""
    names = [entry.name for entry in available()]
    if model not in names:
        fail(f"there is no model {model!r}; there are: {', '.join(names)}")


def require_torch(purpose: str) -> None:
    """Ends the command where torch is not installed: serving does without it."""
    if find_spec("torch") is None:
        fail(f"{purpose} needs torch: pip install 'sluice-serve[train]'")

"""Options that several commands share, and the checks that go with them."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from models.zoo.catalog import available
from service.commands.output import fail

Name = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name, see `sluice models`")]
Data = Annotated[
    Path | None,
    typer.Option(
        help="fashion: folder of the IDX files, by default SLUICE_FASHION_MNIST, then Debian's package; "
        "models of texts: file of texts, one a line"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON")]


def require_fashion(model: str) -> None:
    """Ends the command for a model that cannot be trained or measured on labelled images."""
    names = [entry.name for entry in available()]
    if model not in names:
        fail(f"there is no model {model!r}; there are: {', '.join(names)}")


def require_torch(purpose: str) -> None:
    """Ends the command where torch is not installed: serving does without it."""
    if find_spec("torch") is None:
        fail(f"{purpose} needs torch: pip install 'sluice-serve[train]'")

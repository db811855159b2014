"""What a family of models brings to the catalog: a module with the functions of `Family`.

>>> from models.zoo import text_family                      # doctest: +SKIP
>>> FAMILIES: tuple[Family, ...] = (text_family,)           # doctest: +SKIP
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from models.model import Model
from models.zoo.folder import read_json

DATATYPES = ("fp32", "bf16", "int8")
"""Of a model's products; which of them a family takes is its own matter."""


class UnknownModel(KeyError):
    """No model of this name can be hosted."""

    def __str__(self) -> str:
        return str(self.args[0])


class MissingWeights(FileNotFoundError):
    """The model's files are not on this computer; the message says how to get them."""


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """`missing` is the command that installs what is missing, empty where everything is there."""

    name: str
    summary: str
    missing: str = ""

    @property
    def installed(self) -> bool:
        return not self.missing


@dataclass(frozen=True, slots=True)
class MeasuredFiles:
    """A profile, and the files of the weights that it is of. `digest` reads those; where `Profile.weights_digest` is
    another, it was measured on other weights."""

    profile: Path
    weights: tuple[Path, ...]
    digest: Callable[[], str]


class Family(Protocol):
    """`calibrations` is a folder of the user's own files, which win over the packaged ones. A name is that of one of
    the entries, or the path of a Hugging Face folder; behind a colon may stand the datatype of its products."""

    MODEL_TYPES: tuple[str, ...]
    """The `model_type` of every `config.json` that the family hosts; none where it hosts no folders."""

    def entries(self, calibrations: Path | None) -> tuple[CatalogEntry, ...]:
        """The models that can be hosted by name."""

    def recognises(self, name: str) -> bool:
        """Whether the name is one of the family's, be its files there or not."""

    def load(self, name: str, calibrations: Path | None) -> Model:
        """Raises `MissingWeights`, or `ValueError` where files do not fit each other."""

    def profile_path(self, name: str, calibrations: Path | None) -> Path | None:
        """Where the profile lies that `load` would take; None where there is none yet, and the model is dense."""

    def measured_files(self, name: str, calibrations: Path | None) -> MeasuredFiles | None:
        """That profile with the weights that `load` would take; None where there is no profile. Raises as `load`
        does where the weights are not there."""


def default_home() -> Path:
    """Where the server keeps things if it is not told."""
    return Path(os.environ.get("SLUICE_HOME", "~/.cache/sluice")).expanduser()


def split_datatype(name: str) -> tuple[str, str]:
    """A name without its datatype, and the datatype; "" where none was given. Raises `ValueError` for one that is
    none."""
    place, colon, datatype = name.rpartition(":")
    if not colon or "/" in datatype:
        return name, ""
    if datatype not in DATATYPES:
        raise ValueError(f"{name}: the datatype is one of {', '.join(DATATYPES)}, got {datatype!r}")
    return place, datatype


def folder_type(name: str) -> str | None:
    """The `model_type` of the Hugging Face folder at a path, with or without a datatype; None where there is none."""
    config = Path(name.rpartition(":")[0] or name) / "config.json"
    if not config.exists():
        config = Path(name) / "config.json"
    if not config.exists():
        return None
    return str(read_json(config).get("model_type"))


def served_name(name: str) -> str:
    """What a model is called over the wire: its name, or the last part of its folder's or file's path, with its
    datatype."""
    place, datatype = split_datatype(name)
    path = Path(place).resolve()
    if not path.is_file() and folder_type(name) is None:
        return name
    short = path.stem if path.is_file() else path.name
    return f"{short}:{datatype}" if datatype else short

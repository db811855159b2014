"""The models that can be hosted. Each family brings its own: what they are called, where their files are found, and
what to install for those that are missing."""

from pathlib import Path

from models.model import Model
from models.zoo import fashion_family, language_family, speech_family, text_family
from models.zoo.family import (
    CatalogEntry,
    Family,
    MeasuredFiles,
    MissingWeights,
    UnknownModel,
    folder_type,
    served_name,
)

__all__ = [
    "FAMILIES",
    "CatalogEntry",
    "MeasuredFiles",
    "MissingWeights",
    "UnknownModel",
    "available",
    "load",
    "measured_files",
    "profile_path",
    "profile_stamp",
    "served_name",
]

FAMILIES: tuple[Family, ...] = (fashion_family, text_family, language_family, speech_family)


def available(calibrations: Path | None = None) -> tuple[CatalogEntry, ...]:
    """Every model that can be hosted by name."""
    return tuple(entry for family in FAMILIES for entry in family.entries(calibrations))


def load(name: str, calibrations: Path | None = None) -> Model:
    """Loads a model by its name, or from a Hugging Face folder by its path. `calibrations` is a folder of the user's
    own files, which win over the packaged ones.

    Raises `UnknownModel`, `MissingWeights`, or `ValueError` when the files do not fit each other.
    """
    return family_of(name).load(name, calibrations)


def profile_path(name: str, calibrations: Path | None = None) -> Path | None:
    """Where the profile lies that `load` would take; None where there is none. Raises `UnknownModel`."""
    return family_of(name).profile_path(name, calibrations)


def measured_files(name: str, calibrations: Path | None = None) -> MeasuredFiles | None:
    """The profile that `load` would take and the weights that it is of; None where there is none. Raises as `load`."""
    return family_of(name).measured_files(name, calibrations)


def profile_stamp(name: str, calibrations: Path | None = None) -> tuple[Path, int, int] | None:
    """What tells a model's profile from the next: where it lies, its time and its size; None where there is none."""
    path = profile_path(name, calibrations)
    if path is None:
        return None
    status = path.stat()
    return path, status.st_mtime_ns, status.st_size


def family_of(name: str) -> Family:
    """Raises `UnknownModel`."""
    for family in FAMILIES:
        if family.recognises(name):
            return family
    raise UnknownModel(_why_unknown(name))


def _why_unknown(name: str) -> str:
    known = ", ".join(entry.name for entry in available())
    found = folder_type(name)
    if found is not None:
        hosted = ", ".join(kind for family in FAMILIES for kind in family.MODEL_TYPES)
        return f"{name}/config.json: model_type {found!r} cannot be hosted; can be: {hosted}"
    if Path(name).is_dir():
        return f"{name} is no Hugging Face folder: it has no config.json"
    return f"there is no model {name!r}; can be hosted: {known}, and Hugging Face folders by their path"

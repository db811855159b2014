"""The models that can be hosted, where their files are found, and what to install for those that are missing."""

from dataclasses import dataclass
from pathlib import Path

from models.model import Model
from models.zoo import fashion
from models.zoo.fashion_weights import PACKAGED, Files


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


def available(calibrations: Path | None = None) -> tuple[CatalogEntry, ...]:
    """Every model that can be hosted."""
    files = fashion_files(calibrations)
    lacking = next((path for path in (files.weights, files.calibration, files.profile) if not path.exists()), None)
    return (
        CatalogEntry(
            "fashion",
            "Fashion-MNIST image classifier, six gated convolutions, 157 M multiply-accumulates dense",
            "" if lacking is None else "pip install --force-reinstall sluice-serve",
        ),
    )


def load(name: str, calibrations: Path | None = None) -> Model:
    """Loads a model. `calibrations` is a folder of the user's own files, which win over the packaged ones.

    Raises `UnknownModel`, `MissingWeights`, or `ValueError` when the files do not fit each other.
    """
    if name != "fashion":
        known = ", ".join(entry.name for entry in available())
        raise UnknownModel(f"there is no model {name!r}; can be hosted: {known}")
    files = fashion_files(calibrations)
    for path in (files.weights, files.calibration, files.profile):
        if not path.exists():
            packaged = path.parent == PACKAGED
            cure = "pip install --force-reinstall sluice-serve" if packaged else "sluice calibrate fashion"
            raise MissingWeights(f"{path} is missing; it comes with: {cure}")
    return fashion.load(files)


def fashion_files(calibrations: Path | None = None) -> Files:
    """The user's own weights where they are there and calibrated; else the packaged ones, with the user's own
    calibration where there is one."""
    packaged = Files.named(PACKAGED, "fashion")
    if calibrations is None:
        return packaged
    own = Files.named(calibrations, "fashion")
    if not own.profile.exists():
        return packaged
    return own if own.weights.exists() else Files(packaged.weights, own.calibration, own.profile)

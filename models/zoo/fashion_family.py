"""The image classifier in the catalog: its files are packaged, and the user's own win."""

from functools import partial
from pathlib import Path

from models.model import Model
from models.zoo import fashion
from models.zoo.family import CatalogEntry, MeasuredFiles, MissingWeights
from models.zoo.fashion_weights import PACKAGED, Files, weights_digest

MODEL_TYPES: tuple[str, ...] = ()
REINSTALL = "pip install --force-reinstall sluice-serve"


def entries(calibrations: Path | None) -> tuple[CatalogEntry, ...]:
    """The one model, named fashion."""
    missing = "" if _lacking(fashion_files(calibrations)) is None else REINSTALL
    summary = "Fashion-MNIST image classifier, six gated convolutions, 157 M multiply-accumulates dense"
    return (CatalogEntry("fashion", summary, missing),)


def recognises(name: str) -> bool:
    """Whether this is its name."""
    return name == "fashion"


def load(name: str, calibrations: Path | None) -> Model:
    """Raises `MissingWeights`, or `ValueError` when the files do not fit each other."""
    files = fashion_files(calibrations)
    lacking = _lacking(files)
    if lacking is not None:
        cure = REINSTALL if lacking.parent == PACKAGED else "sluice calibrate fashion"
        raise MissingWeights(f"{lacking} is missing; it comes with: {cure}")
    return fashion.load(files)


def profile_path(name: str, calibrations: Path | None) -> Path | None:
    """The profile that `load` takes."""
    return fashion_files(calibrations).profile


def measured_files(name: str, calibrations: Path | None) -> MeasuredFiles | None:
    """The files that `load` takes."""
    files = fashion_files(calibrations)
    return MeasuredFiles(files.profile, (files.weights,), partial(weights_digest, files.weights))


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


def _lacking(files: Files) -> Path | None:
    return next((path for path in (files.weights, files.calibration, files.profile) if not path.exists()), None)

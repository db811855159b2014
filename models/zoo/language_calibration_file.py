"""The file of a language model's calibration: safetensors, as small as what depends on it allows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from models.zoo.llama_gates import BASIS, FITTED_ON, GATES, norms_name
from models.zoo.llama_packing import Array
from models.zoo.text_profile import OtherWeights

NORM_STEPS = 6
"""From a norm to its double, as they are kept in a file: which channels are skipped does not depend on more."""

STEP = ".step"
"""Behind a gate's name, in a file: the step that its whole numbers are of."""


def save_calibration(calibration: Mapping[str, Array], path: Path) -> None:
    """Writes it as safetensors, all of it or nothing: norms as logarithms, what stands for the inputs of a layer's last
    product in steps of its own, and the basis as it is in int8, all else in float16."""
    partial = path.with_suffix(".partial")
    kept: dict[str, NDArray[Any]] = {}
    for name, values in calibration.items():
        if name.endswith(norms_name("")):
            kept[name] = _logarithms(values)
        elif name == FITTED_ON:
            kept[name] = values.astype(np.uint32 if values.max() > np.iinfo(np.uint16).max else np.uint16)
        elif name.endswith(f".{GATES[-1]}"):
            step = max(float(np.abs(values).max()) / 127, float(np.finfo(np.float32).tiny))
            kept[name], kept[f"{name}{STEP}"] = np.round(values / step).astype(np.int8), np.array([step], np.float32)
        else:
            kept[name] = values.astype(np.int8 if name == BASIS else np.float16)
    save_file(kept, partial)
    partial.replace(path)


def load_calibration(path: Path) -> dict[str, Array]:
    """Reads what `save_calibration` wrote. Raises `FileNotFoundError`, or `OtherWeights` for something else."""
    try:
        kept = load_file(path)
    except SafetensorError as error:
        raise OtherWeights(f"{path} has no calibration: {error}") from None
    steps = {name: kept.pop(name) for name in [name for name in kept if name.endswith(STEP)]}
    return {
        name: _powers(values)
        if name.endswith(norms_name(""))
        else values.astype(np.float32) * steps.get(f"{name}{STEP}", np.float32(1))
        for name, values in kept.items()
    }


def rounded_norms(norms: Array) -> Array:
    """As they come back from a file."""
    return _powers(_logarithms(norms))


def _logarithms(norms: Array) -> NDArray[np.int8]:
    logarithms = np.log2(np.maximum(norms, np.finfo(np.float32).tiny)) * NORM_STEPS
    return np.clip(np.round(logarithms), -128, 127).astype(np.int8)


def _powers(logarithms: NDArray[np.int8]) -> Array:
    powers: Array = np.exp2(logarithms.astype(np.float32) / NORM_STEPS)
    return powers

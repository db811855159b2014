"""The calibrated means of neurons, layer by layer: what a skipped neuron is taken to be."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

NeuronMeans = Sequence[NDArray[np.float32]]


def save_means(means: NeuronMeans, path: Path) -> None:
    """Writes them as safetensors, all of them or nothing."""
    partial = path.with_suffix(".partial")
    save_file({f"layer{i + 1}": layer for i, layer in enumerate(means)}, partial)
    partial.replace(path)


def load_means(path: Path) -> NeuronMeans:
    """Reads what `save_means` wrote. Raises `FileNotFoundError`, or `ValueError` for something else."""
    arrays = load_file(path)
    try:
        return [arrays[f"layer{i + 1}"].astype(np.float32, copy=False) for i in range(len(arrays))]
    except KeyError as missing:
        raise ValueError(f"{path} has no tensor {missing}") from None

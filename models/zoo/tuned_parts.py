"""What tuning leaves of an encoder: for each layer an order of its neurons in blocks, a predictor that says before the
first product which blocks matter, what a skipped block is taken to add, and small corrections of the dense weights.

The file has a few per cent of the encoder's size: a correction of a matrix is the product of two narrow ones (Hu et al.
2022), everything is float16.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

Array = NDArray[np.float32]
BLOCK = 64
"""Neurons of a block: what the kernels pack together."""

MATRICES = ("qkv", "output", "up", "down")


@dataclass(frozen=True, slots=True)
class TunedLayer:
    """`order` [neurons] is the dense layer's number of each neuron, block by block. The saliency of a block is
    exp(predictor [blocks, 2 · hidden] · features + offset [blocks]); `skipped` [blocks, hidden] is what each adds where
    it is not computed. `corrections` are pairs [outputs, rank], [rank, inputs] in the order of `MATRICES`, of the
    matrices in this order of neurons, and `biases` what they have in place of the dense biases. The norms are weight
    and bias, [2, hidden]."""

    order: NDArray[np.int64]
    predictor: Array
    offset: Array
    skipped: Array
    corrections: tuple[tuple[Array, Array], ...]
    biases: tuple[Array, ...]
    attention_norm: Array
    norm: Array

    @property
    def blocks(self) -> int:
        return len(self.offset)


TunedParts = Sequence[TunedLayer]


def features(x: Array) -> Array:
    """What a predictor sees of a layer's input [positions, hidden]: means and root mean squares over the positions,
    [2 · hidden]."""
    seen: Array = np.concatenate([x.mean(0), np.sqrt(np.square(x).mean(0))])
    return seen


def save_tuned(parts: TunedParts, path: Path) -> None:
    """Writes them as safetensors, all of them or nothing."""
    arrays: dict[str, NDArray[np.float16] | NDArray[np.uint16]] = {}
    for number, layer in enumerate(parts):
        name = f"layer{number + 1}"
        arrays[f"{name}.order"] = layer.order.astype(np.uint16)
        for field in ("predictor", "offset", "skipped", "attention_norm", "norm"):
            arrays[f"{name}.{field}"] = getattr(layer, field).astype(np.float16)
        for matrix, (left, right), bias in zip(MATRICES, layer.corrections, layer.biases, strict=True):
            arrays[f"{name}.{matrix}.left"] = left.astype(np.float16)
            arrays[f"{name}.{matrix}.right"] = right.astype(np.float16)
            arrays[f"{name}.{matrix}.bias"] = bias.astype(np.float16)
    partial = path.with_suffix(".partial")
    save_file(arrays, partial)
    partial.replace(path)


def load_tuned(path: Path) -> TunedParts:
    """Reads what `save_tuned` wrote. Raises `FileNotFoundError`, or `ValueError` for something else."""
    arrays = load_file(path)
    layers = len({name.partition(".")[0] for name in arrays})
    try:
        return [_layer(arrays, f"layer{number + 1}") for number in range(layers)]
    except KeyError as missing:
        raise ValueError(f"{path} has no tensor {missing}") from None


def _layer(arrays: dict[str, NDArray[np.float16]], name: str) -> TunedLayer:
    def array(field: str) -> Array:
        return arrays[f"{name}.{field}"].astype(np.float32)

    return TunedLayer(
        arrays[f"{name}.order"].astype(np.int64),
        array("predictor"),
        array("offset"),
        array("skipped"),
        tuple((array(f"{matrix}.left"), array(f"{matrix}.right")) for matrix in MATRICES),
        tuple(array(f"{matrix}.bias") for matrix in MATRICES),
        array("attention_norm"),
        array("norm"),
    )

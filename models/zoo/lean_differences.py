"""What tuning learned of lean layers: low-rank differences to those that were fitted (LoRA, Hu et al. 2021), which are
added to them once, when a model is loaded. So they cost nothing in a request, and their file is small: a hundredth of
the layers themselves."""

import gzip
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from models.zoo.lean_layers import NORMS, PRODUCTS, Array, LeanLayer, LeanLayers, Neurons
from models.zoo.text_profile import OtherWeights

RANK_STEP = 0.4
"""In standard deviations of a rank: rounding to it adds a seventieth to its variance."""


@dataclass(frozen=True, slots=True)
class ProductDifference:
    """left @ right is added to a weight [outputs, inputs]: [outputs, rank] and [rank, inputs]."""

    left: Array
    right: Array
    bias: Array


@dataclass(frozen=True, slots=True)
class NormDifference:
    """Both [hidden]."""

    weight: Array
    bias: Array


@dataclass(frozen=True, slots=True)
class LayerDifference:
    """By the names of products, of which some may not differ, and of norms. They belong to layers with just the neurons
    `kept`."""

    products: Mapping[str, ProductDifference]
    norms: Mapping[str, NormDifference]
    kept: Neurons


LayerDifferences = Sequence[LayerDifference]


def add_differences(layers: LeanLayers, differences: LayerDifferences) -> LeanLayers:
    """Raises `OtherWeights` where they belong to other layers."""
    if len(layers) != len(differences):
        raise OtherWeights(f"there are differences to {len(differences)} layers, and {len(layers)} layers")
    return [_added(layer, difference) for layer, difference in zip(layers, differences, strict=True)]


def _added(layer: LeanLayer, difference: LayerDifference) -> LeanLayer:
    if not np.array_equal(layer.kept, difference.kept):
        raise OtherWeights("the differences are to layers with other neurons")
    weights = dict(layer.weights)
    try:
        for name, one in difference.products.items():
            weight, bias = weights[name]
            weights[name] = weight + one.left @ one.right, bias + one.bias
        for name, norm in difference.norms.items():
            weight, bias = weights[name]
            weights[name] = weight + norm.weight, bias + norm.bias
    except ValueError as error:
        raise OtherWeights(f"the differences are to layers of another size: {error}") from None
    return replace(layer, weights=weights)


def save_differences(differences: LayerDifferences, path: Path) -> None:
    """Writes them as safetensors, compressed: whole numbers in int8, with a scale for each rank, bias or norm. Those of
    ranks are few, `RANK_STEP` apart: compressed they take half a byte."""
    arrays: dict[str, NDArray[Any]] = {}
    for number, layer in enumerate(differences):
        rows: dict[str, tuple[Array, Array]] = {}
        for name, one in layer.products.items():
            for part, values in (("left", one.left.T), ("right", one.right)):
                rows[f"{name}.{part}"] = values, np.sqrt(np.square(values).mean(1)) * np.float32(RANK_STEP)
            rows[f"{name}.bias"] = one.bias[None], np.zeros(1, np.float32)
        for name, norm in layer.norms.items():
            rows[name] = np.stack([norm.weight, norm.bias]), np.zeros(2, np.float32)
        for part, (values, apart) in rows.items():
            scales = np.maximum(apart, np.abs(values).max(1) / np.float32(127)) + np.float32(1e-12)
            arrays[f"layer{number + 1}.{part}"] = np.ascontiguousarray(np.rint(values / scales[:, None]), np.int8)
            arrays[f"layer{number + 1}.{part}.scales"] = scales.astype(np.float32)
        arrays[f"layer{number + 1}.kept"] = layer.kept.astype(np.uint16)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(_compressed(save(arrays)))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _compressed(content: bytes) -> bytes:
    """As gzip does it, but without looking for repetitions, of which there are none: that takes an eighth less."""
    compress = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16, strategy=zlib.Z_HUFFMAN_ONLY)
    return compress.compress(content) + compress.flush()


def load_differences(path: Path) -> LayerDifferences:
    """Reads what `save_differences` wrote. Raises `FileNotFoundError`, or `OtherWeights` for something else."""
    try:
        arrays = load(gzip.decompress(path.read_bytes()))
        layers = len({name.partition(".")[0] for name in arrays})
        return [_layer(arrays, f"layer{number + 1}") for number in range(layers)]
    except (gzip.BadGzipFile, zlib.error, SafetensorError, EOFError, KeyError) as error:
        raise OtherWeights(f"{path} has no differences of lean layers: {error}") from None


def _layer(arrays: Mapping[str, NDArray[Any]], name: str) -> LayerDifference:
    def rows(part: str) -> Array:
        values: Array = arrays[f"{name}.{part}"] * arrays[f"{name}.{part}.scales"][:, None]
        return values

    products = {
        of: ProductDifference(rows(f"{of}.left").T, rows(f"{of}.right"), rows(f"{of}.bias")[0])
        for of in PRODUCTS
        if any(array.startswith(f"{name}.{of}.") for array in arrays)
    }
    norms = {of: NormDifference(*rows(of)) for of in NORMS}
    return LayerDifference(products, norms, arrays[f"{name}.kept"].astype(np.int64))

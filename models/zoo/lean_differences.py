"""What tuning learned of lean layers: low-rank differences to those that were fitted (LoRA, Hu et al. 2021), which are
added to them once, when a model is loaded. So they cost nothing in a request, and their file is small: a hundredth of
the layers themselves."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from models.zoo.lean_layers import NORMS, PRODUCTS, Array, LeanLayer, LeanLayers, Neurons
from models.zoo.text_profile import OtherWeights


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
    """By the names of products and norms. They belong to layers with just the neurons `kept`."""

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
    """Writes them as safetensors: what is multiplied in int8, with a scale for each rank, all else in float16."""
    arrays: dict[str, NDArray[np.generic]] = {}
    for number, layer in enumerate(differences):
        for name, one in layer.products.items():
            part = f"layer{number + 1}.{name}"
            arrays[f"{part}.left"], left_scale = _whole_numbers(one.left.T)
            arrays[f"{part}.right"], right_scale = _whole_numbers(one.right)
            arrays[f"{part}.scale"] = left_scale * right_scale
            arrays[f"{part}.bias"] = one.bias.astype(np.float16)
        for name, norm in layer.norms.items():
            arrays[f"layer{number + 1}.{name}.weight"] = norm.weight.astype(np.float16)
            arrays[f"layer{number + 1}.{name}.bias"] = norm.bias.astype(np.float16)
        arrays[f"layer{number + 1}.kept"] = layer.kept.astype(np.uint16)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        save_file(arrays, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load_differences(path: Path) -> LayerDifferences:
    """Reads what `save_differences` wrote. Raises `FileNotFoundError`, or `OtherWeights` for something else."""
    try:
        arrays = load_file(path)
        layers = len({name.partition(".")[0] for name in arrays})
        return [_layer(arrays, f"layer{number + 1}") for number in range(layers)]
    except (SafetensorError, KeyError) as error:
        raise OtherWeights(f"{path} has no differences of lean layers: {error}") from None


def _layer(arrays: Mapping[str, NDArray[np.generic]], name: str) -> LayerDifference:
    def floats(part: str) -> Array:
        return arrays[f"{name}.{part}"].astype(np.float32)

    products = {
        of: ProductDifference(
            floats(f"{of}.left").T * floats(f"{of}.scale"), floats(f"{of}.right"), floats(f"{of}.bias")
        )
        for of in PRODUCTS
    }
    norms = {of: NormDifference(floats(f"{of}.weight"), floats(f"{of}.bias")) for of in NORMS}
    return LayerDifference(products, norms, arrays[f"{name}.kept"].astype(np.int64))


def _whole_numbers(rows: Array) -> tuple[NDArray[np.int8], Array]:
    """Rows as whole numbers times a scale for each."""
    scales = np.abs(rows).max(1, keepdims=True) / np.float32(127) + np.float32(1e-12)
    return np.ascontiguousarray(np.rint(rows / scales), np.int8), scales[:, 0].astype(np.float32)

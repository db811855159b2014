"""What an encoder's lean layers are made of: the same layers with fewer channels, from the dense weights and small
parts that calibration fits, or that tuning learns.

    the first half:   each head scores with its first few channels, in bases in which those carry most of the scores
    the second half:  the neurons that matter most, whose second product stands in for the others' as well

Corrections of matrices are products of two narrow ones (Hu et al. 2022). The file keeps them in bytes, with a scale to
each row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from models.zoo.text_profile import OtherWeights

Array = NDArray[np.float32]
Correction = tuple[Array, Array]
DenseWeights = Mapping[str, tuple[Array, Array]]
"""Weight and bias of a layer's products and norms, by name."""

CORRECTED = ("value", "output", "up", "down")
BIASED = ("query", "key", "value", "output", "up", "down")


@dataclass(frozen=True, slots=True)
class LeanLayer:
    """`queries` and `keys` [heads, d, head size] are bases of the dense ones, `neurons` [n] those that are kept,
    ascending. `corrections` are pairs [outputs, rank], [rank, inputs] in the order of `CORRECTED`, of the matrices with
    these neurons alone, and `biases` all that the products have, in the order of `BIASED`. The norms are weight and
    bias, [2, hidden]. The saliencies are the shares of the scores, and of what the neurons add, that are lost."""

    queries: Array
    keys: Array
    neurons: NDArray[np.int64]
    corrections: tuple[Correction, ...]
    biases: tuple[Array, ...]
    attention_norm: Array
    norm: Array
    score_saliency: float
    neuron_saliency: float

    def weights(self, dense: DenseWeights) -> dict[str, tuple[Array, Array]]:
        """Weight and bias of each product, and of the norms, as `dense` has them. Raises `OtherWeights` where these are
        parts of another layer."""
        heads, _, size = self.queries.shape
        hidden, neurons = dense["up"][0].shape[1], len(dense["up"][0])
        if heads * size != hidden or self.neurons[-1] >= neurons or self.norm.shape[1] != hidden:
            raise OtherWeights(
                f"there are lean parts of a layer of {heads * size} channels and more than {self.neurons[-1]} neurons, "
                f"and it has {hidden} and {neurons}"
            )
        found = {
            "query": _projected(self.queries, dense["query"][0]),
            "key": _projected(self.keys, dense["key"][0]),
            "value": dense["value"][0],
            "output": dense["output"][0],
            "up": dense["up"][0][self.neurons],
            "down": dense["down"][0][:, self.neurons],
        }
        for name, (left, right) in zip(CORRECTED, self.corrections, strict=True):
            if left.shape[1]:
                found[name] = found[name] + left @ right
        products = {name: (found[name], bias) for name, bias in zip(BIASED, self.biases, strict=True)}
        norms = {"attention_norm": self.attention_norm, "norm": self.norm}
        return products | {name: (norm[0], norm[1]) for name, norm in norms.items()}


LeanParts = Sequence[LeanLayer]


def save_lean(parts: LeanParts, path: Path) -> None:
    """Writes them as safetensors, all of them or nothing."""
    partial = path.with_suffix(".partial")
    save_file(_arrays(parts), partial)
    partial.replace(path)


def load_lean(path: Path) -> LeanParts:
    """Reads what `save_lean` wrote. Raises `FileNotFoundError`, or `OtherWeights` for something else."""
    try:
        return _parts(load_file(path))
    except KeyError as missing:
        raise OtherWeights(f"{path} has no tensor {missing}") from None


def rounded(parts: LeanParts) -> LeanParts:
    """As their file would have them."""
    return _parts(_arrays(parts))


def _arrays(parts: LeanParts) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}

    def keep_rows(name: str, values: Array) -> None:
        scales = (np.abs(values).max(-1, keepdims=True, initial=1e-12) / 127).astype(np.float16)
        scales = np.maximum(scales, np.float16(1e-7))
        steps = np.clip(np.round(values / scales.astype(np.float32)), -127, 127)
        arrays[name] = np.ascontiguousarray(steps, np.int8)
        arrays[f"{name}.scales"] = np.ascontiguousarray(scales)

    for number, layer in enumerate(parts):
        name = f"layer{number + 1}"
        keep_rows(f"{name}.queries", layer.queries)
        keep_rows(f"{name}.keys", layer.keys)
        arrays[f"{name}.neurons"] = layer.neurons.astype(np.uint16)
        for matrix, (left, right) in zip(CORRECTED, layer.corrections, strict=True):
            keep_rows(f"{name}.{matrix}.left", np.ascontiguousarray(left.T))
            keep_rows(f"{name}.{matrix}.right", right)
        for product, bias in zip(BIASED, layer.biases, strict=True):
            arrays[f"{name}.{product}.bias"] = bias.astype(np.float16)
        for field in ("attention_norm", "norm"):
            arrays[f"{name}.{field}"] = getattr(layer, field).astype(np.float16)
        arrays[f"{name}.saliencies"] = np.array([layer.score_saliency, layer.neuron_saliency], np.float32)
    return arrays


def _parts(arrays: Mapping[str, NDArray[Any]]) -> LeanParts:
    layers = len({name.partition(".")[0] for name in arrays})
    return [_layer(arrays, f"layer{number + 1}") for number in range(layers)]


def _layer(arrays: Mapping[str, NDArray[Any]], name: str) -> LeanLayer:
    def array(field: str) -> Array:
        return arrays[f"{name}.{field}"].astype(np.float32)

    def rows(field: str) -> Array:
        values: Array = array(field) * array(f"{field}.scales")
        return values

    scores, neurons = array("saliencies")
    return LeanLayer(
        rows("queries"),
        rows("keys"),
        arrays[f"{name}.neurons"].astype(np.int64),
        tuple((rows(f"{matrix}.left").T, rows(f"{matrix}.right")) for matrix in CORRECTED),
        tuple(array(f"{product}.bias") for product in BIASED),
        array("attention_norm"),
        array("norm"),
        float(scores),
        float(neurons),
    )


def _projected(bases: Array, weight: Array) -> Array:
    heads, channels, size = bases.shape
    projected: Array = (bases @ weight.reshape(heads, size, -1)).reshape(heads * channels, -1)
    return projected

"""What an encoder's lean layers are: the same layers with fewer channels. Calibration fits their weights, or tuning
learns them; what is made once is kept in a file.

    the first half:   each head scores with its first few channels, in bases in which those carry most of the scores
    the second half:  the neurons that matter most, whose second product stands in for the others' as well
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from models.zoo.encoder_heads import FittedHeads
from models.zoo.text_profile import OtherWeights

Array = NDArray[np.float32]
Product = tuple[Array, Array]
"""Weight [outputs, inputs] and bias [outputs]; of a norm both are [hidden]."""

LayerWeights = Mapping[str, Product]
"""Those of a layer's products and norms, by name."""

Neurons = NDArray[np.int64]
"""Which of a layer's stay, ascending."""

PRODUCTS = ("query", "key", "value", "output", "up", "down")
NORMS = ("attention_norm", "norm")
HEADS = ("means", "weights", "bias")


@dataclass(frozen=True, slots=True)
class LeanLayer:
    """The saliencies are the shares of the scores, and of what the neurons add, that are lost; `kept` are the neurons
    that it has. `heads` are those of the layer, dense or lean; what was kept before there were gates on them has
    none."""

    weights: LayerWeights
    score_saliency: float
    neuron_saliency: float
    kept: Neurons
    heads: FittedHeads | None = None

    def check(self, dense: LayerWeights, heads: int) -> None:
        """Raises `OtherWeights` where this is none of that layer, which has so many heads."""
        for name in (*PRODUCTS, *NORMS):
            lean, whole = self.weights[name][0].shape, dense[name][0].shape
            if len(lean) != len(whole) or any(one > other for one, other in zip(lean, whole, strict=True)):
                raise OtherWeights(f"the lean layer's {name} is {list(lean)}, and the layer's {list(whole)}")
        hidden = len(dense["output"][0])
        wanted = {"means": (hidden,), "weights": (heads, hidden), "bias": (heads,)}
        for name, shape in wanted.items() if self.heads is not None else ():
            found = getattr(self.heads, name).shape
            if found != shape:
                raise OtherWeights(f"the {name} of the heads are {list(found)}, and the layer's {list(shape)}")


LeanLayers = Sequence[LeanLayer]


def save_lean(parts: LeanLayers, path: Path, made_of: str = "") -> None:
    """Writes them as safetensors, all of them or nothing, with what they were `made_of`."""
    arrays: dict[str, NDArray[Any]] = {}
    for number, layer in enumerate(parts):
        for name, (weight, bias) in layer.weights.items():
            arrays[f"layer{number + 1}.{name}.weight"] = np.ascontiguousarray(weight, np.float32)
            arrays[f"layer{number + 1}.{name}.bias"] = np.ascontiguousarray(bias, np.float32)
        arrays[f"layer{number + 1}.kept"] = layer.kept
        saliencies = [layer.score_saliency, layer.neuron_saliency]
        arrays[f"layer{number + 1}.saliencies"] = np.array(saliencies, np.float64)
        if layer.heads is not None:
            for part in HEADS:
                arrays[f"layer{number + 1}.heads.{part}"] = getattr(layer.heads, part)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        save_file(arrays, partial, {"made_of": made_of})
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load_lean(path: Path, made_of: str = "") -> LeanLayers:
    """Reads what `save_lean` wrote. Raises `FileNotFoundError`, or `OtherWeights` for something else, or what was made
    of something else."""
    try:
        with safe_open(path, "numpy") as file:
            if (file.metadata() or {}).get("made_of", "") != made_of:
                raise OtherWeights(f"{path} was made of something else")
            names = set(file.keys())
            layers = len({name.partition(".")[0] for name in names})
            return [_layer(file.get_tensor, names, f"layer{number + 1}") for number in range(layers)]
    except SafetensorError as error:
        raise OtherWeights(f"{path} has no lean layers: {error}") from None


def _layer(tensor: Callable[[str], NDArray[Any]], names: set[str], name: str) -> LeanLayer:
    weights = {part: (tensor(f"{name}.{part}.weight"), tensor(f"{name}.{part}.bias")) for part in (*PRODUCTS, *NORMS)}
    scores, neurons = tensor(f"{name}.saliencies")
    of_heads = [f"{name}.heads.{part}" for part in HEADS]
    heads = FittedHeads(*map(tensor, of_heads)) if names.issuperset(of_heads) else None
    return LeanLayer(weights, float(scores), float(neurons), tensor(f"{name}.kept"), heads)

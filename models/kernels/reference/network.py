"""A network of gated convolutions, layer by layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.kernels.reference.arrays import Channels, Floats, float_tensor, per_channel, shaped_tensor
from models.kernels.reference.gate import channel_means, gate_channels, max_pool2x2, squeeze_channels
from models.kernels.reference.products import PackedConvolution, gated_conv2d
from models.kernels.reference.threads import Threads


@dataclass(frozen=True, slots=True)
class GatedLayer:
    """Made by `gated_layer`."""

    packed: PackedConvolution
    predictor: Floats
    offset: Floats
    pool: bool

    @property
    def evidence(self) -> int:
        """Features that its gate sees beside those of the layer's inputs."""
        return self.predictor.shape[0] - self.packed.inputs


@dataclass(frozen=True, slots=True)
class GatedNetwork:
    """Made by `gated_network`."""

    layers: tuple[GatedLayer, ...]


def gated_layer(packed: PackedConvolution, predictor: Floats, offset: Floats, *, pool: bool = False) -> GatedLayer:
    """One layer of `gated_network`: its weights [O, I], the predictor [I + E, O] and the offset [O] of its gate, and
    whether a 2x2 maximum pool follows."""
    rows, columns = float_tensor(predictor, "predictor", 2).shape
    per_channel(offset, "offset", packed.outputs, "channels", packed.weight.dtype)
    if columns != packed.outputs or rows < packed.inputs:
        raise ValueError(
            f"predictor must be [inputs + evidence, outputs], with {packed.inputs} inputs or more and "
            f"{packed.outputs} outputs"
        )
    return GatedLayer(packed, predictor, offset, pool)


def gated_network(layers: Sequence[GatedLayer]) -> GatedNetwork:
    """Layers of which each reads what the one before it made. Their gates see the same E features beside it."""
    if not layers:
        raise ValueError("layers must hold at least one")
    for before, layer in pairwise(layers):
        if layer.packed.inputs != before.packed.outputs:
            raise ValueError("layers must have as many inputs as the one before has outputs")
        if layer.evidence != before.evidence:
            raise ValueError("layers must have gates with as much evidence as the first")
    return GatedNetwork(tuple(layers))


def run_gated_network(
    network: GatedNetwork,
    x: Floats,
    evidence: Floats,
    *,
    thresholds: Floats,
    scales: Floats,
    shifts: Floats,
    threads: Threads | None = None,
) -> tuple[NDArray[Any], list[Channels]]:
    """All layers on one image: squeeze_channels, gate_channels, gated_conv2d with "relu", and max_pool2x2 of each.

    scales and shifts are those of the outputs of all layers, one layer after another. Returns the channel_means of the
    last layer's active outputs and the active outputs of each layer.
    """
    layers = network.layers
    image = float_tensor(x, "x", 3, layers[0].packed.weight.dtype)
    if image.shape[2] != layers[0].packed.inputs:
        raise ValueError(f"x must have {layers[0].packed.inputs} channels, not {image.shape[2]}")
    ends = np.cumsum([layer.packed.outputs for layer in layers])
    sizes = {"evidence": layers[0].evidence, "thresholds": len(layers), "scales": ends[-1], "shifts": ends[-1]}
    for (name, size), value in zip(sizes.items(), (evidence, thresholds, scales, shifts), strict=True):
        shaped_tensor(value, name, (size,), image.dtype)
    if np.isnan(thresholds).any():
        raise ValueError("thresholds must be numbers")
    chosen: list[Channels] = []
    inputs: Channels | None = None
    for layer, threshold, end in zip(layers, thresholds, ends, strict=True):
        features = squeeze_channels(x, layer.packed.inputs, evidence, inputs=inputs)
        outputs, multipliers = gate_channels(features, layer.predictor, layer.offset, float(threshold))
        own = slice(end - layer.packed.outputs, end)
        x = gated_conv2d(
            x,
            layer.packed,
            inputs=inputs,
            outputs=outputs,
            scale=scales[own],
            shift=shifts[own],
            activation="relu",
            saliency=multipliers,
        )
        x = max_pool2x2(x) if layer.pool else x
        chosen.append(outputs)
        inputs = outputs
    return channel_means(x), chosen

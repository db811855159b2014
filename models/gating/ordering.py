"""The order of a trained network's channels: the ones that are active most often first.

A network computes the same in any order of its channels. In this one the active channels of most requests lie side by
side, so that their weights fill whole cache lines and mostly whole blocks of the kernels, which then need no packing,
and half of the weights of a layer of which half is skipped are never read from memory.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.gating.network import GatedNetwork


def order_channels(
    network: GatedNetwork, images: NDArray[np.uint8], kept_shares: Sequence[float], exponents: Sequence[float]
) -> None:
    """Reorders every layer's channels in place, by how often they are active on `images` [n, 28, 28] over all
    `kept_shares`."""
    network.eval()
    activity = [torch.zeros(layer.shape.outputs) for layer in network.layers]
    with torch.no_grad():
        for kept in kept_shares:
            _, traces = network(torch.tensor(images), kept, shares=[kept**power for power in exponents])
            for total, trace in zip(activity, traces, strict=True):
                total += trace.active.sum(0)
        _reorder(network, [total.argsort(descending=True, stable=True) for total in activity])


def _reorder(network: GatedNetwork, orders: Sequence[Tensor]) -> None:
    for layer, order in zip(network.layers, orders, strict=True):
        for parameter in layer.parameters():  # the first axis of every one is the outputs
            parameter.copy_(parameter[order])
    for reader, order in zip(network.layers[1:], orders[:-1], strict=True):
        inputs = len(order)
        reader.convolution.weight.copy_(reader.convolution.weight[:, order])
        reader.predictor[:, :inputs] = reader.predictor[:, order]
    network.head.weight.copy_(network.head.weight[:, orders[-1]])

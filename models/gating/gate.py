"""A gated convolution, step by step: squeeze, saliency, select, compute.

    features  = squeeze(x, channels, evidence)           # of this request alone
    a         = saliency(features, predictor, offset)    # one number per output channel
    active    = a > threshold                            # select
    y         = the convolution, from x's active channels to the selected ones only

Predicted saliency follows FBS (Gao et al., ICLR 2019): it is known before the convolution runs, and it also
multiplies the channel. An activation is compact: it holds the active channels and nothing else, so what was skipped
takes neither arithmetic nor memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models import kernels
from models.gating.shape import LayerShape

Array = NDArray[np.float32]
Channels = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Activation:
    """`values` [h, w, n] of the `active` channels [n], ascending; None where all of them are there."""

    values: Array
    active: Channels | None

    @property
    def count(self) -> int:
        return int(self.values.shape[2])


@dataclass(frozen=True, slots=True)
class GatedConvolution:
    """One layer's weights: `predictor` P [inputs + evidence, outputs] and `offset` c [outputs] are the gate's."""

    shape: LayerShape
    packed: kernels.PackedConvolution
    predictor: Array
    offset: Array

    def __call__(self, x: Activation, evidence: Array, threshold: float, scale: Array, shift: Array) -> Activation:
        """The layer on one image. `scale` and `shift` [outputs] are its folded norm. At least one channel is always
        kept."""
        features = squeeze(x, self.shape.inputs, evidence)
        # Saliency and select in one call: a few microseconds, where the plain functions below take tens.
        active, multipliers = kernels.gate_channels(features, self.predictor, self.offset, threshold)
        return compute(x, self, active, multipliers, scale, shift)


def fuse(layers: Sequence[GatedConvolution]) -> kernels.GatedNetwork:
    """The layers, each reading what the one before it made, for `kernels.run_gated_network`: it does the same as
    calling one after the other, in one call. Between two requests that are served at once, every call is a place where
    the interpreter may go to the other."""
    return kernels.gated_network(
        [kernels.gated_layer(layer.packed, layer.predictor, layer.offset, pool=layer.shape.pool) for layer in layers]
    )


def squeeze(x: Activation, channels: int, evidence: Array) -> Array:
    """Features of the request [channels + evidence]: the means of the layer's input channels over the positions,
    divided by their own mean, zero for those that were skipped; then the evidence. A single channel, the image, gives
    the mean of its magnitude."""
    return kernels.squeeze_channels(x.values, channels, evidence, inputs=x.active)


def saliency(features: Array, predictor: Array, offset: Array) -> Array:
    """a = features · P + c, one number per output channel; its positive part is the channel's importance."""
    return features @ predictor + offset


def select(saliencies: Array, threshold: float) -> tuple[Channels, Array]:
    """The active channels, ascending, and what each is multiplied by.

    A channel is active when its saliency is above the threshold and above zero; where none is, the greatest alone.
    The multiplier is the saliency's positive part relative to the mean of all channels', so that it is 1 where all
    are equally important.
    """
    positive = np.maximum(saliencies, 0)
    active = np.flatnonzero((saliencies > threshold) & (saliencies > 0)).astype(np.int32)
    if not len(active):
        active = np.array([saliencies.argmax()], np.int32)
    mean = positive.mean()
    return active, positive[active] / mean if mean > 0 else np.ones(len(active), np.float32)


def compute(
    x: Activation, layer: GatedConvolution, active: Channels, multipliers: Array, scale: Array, shift: Array
) -> Activation:
    """multiplier · relu(scale · conv(x) + shift) on the active channels, then the layer's pool."""
    values = kernels.gated_conv2d(
        x.values,
        layer.packed,
        inputs=x.active,
        outputs=active,
        scale=scale,
        shift=shift,
        activation="relu",
        saliency=multipliers,
    )
    return Activation(kernels.max_pool2x2(values) if layer.shape.pool else values, active)

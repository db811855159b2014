"""The gate on attention heads: which of them a window is heard with.

Many heads of a Whisper say nearly the same whatever is said, of the decoder above all, and calibrated means stand in
for them. How much is lost without a head was measured once, one at a time (Michel et al. 2019); the level says how many
of those that are missed least are left out. An inactive head is projected neither in queries, keys and values nor in
the output, and nobody attends with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models import kernels

Array = NDArray[np.float32]
Channels = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class CalibratedHeads:
    """Of one attention: the `means` [hidden] of its heads side by side, and the `saliency` [heads] of each, its rank
    among all heads of the model as a share: 0.25 for one that a quarter of them matter less than."""

    means: Array
    saliency: Array


@dataclass(frozen=True, slots=True)
class ActiveHeads:
    """The `count` heads that are there; `channels` are theirs, None for all; `bias` [hidden] is that of the output with
    the means of those that are not."""

    count: int
    channels: Channels | None
    bias: Array

    def parts(self, number: int) -> Channels | None:
        """Their channels in so many parts of as many channels as all heads have, side by side."""
        if self.channels is None:
            return None
        hidden = len(self.bias)
        return np.concatenate([self.channels + part * hidden for part in range(number)]).astype(np.int32)


@dataclass(frozen=True, slots=True)
class HeadGate:
    """What tells the active heads of one attention, whose output is the product `packed` and then `bias` [hidden]."""

    heads: int
    packed: kernels.PackedMatrix
    bias: Array
    calibrated: CalibratedHeads | None = None

    def __call__(self, threshold: float) -> ActiveHeads:
        """Those whose saliency is above the threshold."""
        if self.calibrated is None or threshold <= 0:
            return ActiveHeads(self.heads, None, self.bias)
        kept = self.calibrated.saliency > threshold
        active, absent = self._channels(kept), self._channels(~kept)
        if not len(absent):
            return ActiveHeads(self.heads, None, self.bias)
        means = np.ascontiguousarray(self.calibrated.means[absent][None])
        bias = self.bias + kernels.gated_matmul(means, self.packed, inputs=absent)[0]
        return ActiveHeads(int(kept.sum()), active, bias)

    def _channels(self, heads: NDArray[np.bool_]) -> Channels:
        size = self.packed.inputs // self.heads
        return np.flatnonzero(np.repeat(heads, size)).astype(np.int32)


def ranked(losses: Sequence[float]) -> Array:
    """The saliencies [n] of heads without which so much is lost: the share of heads that are missed less."""
    ranks = np.empty(len(losses), np.float32)
    ranks[np.argsort(losses, kind="stable")] = (np.arange(len(losses)) + 0.5) / len(losses)
    return ranks

"""A gate on the blocks of neurons of a feed-forward layer, which chooses them before the first product: predicted
saliency, as in FBS (Gao et al. 2019) and Deja Vu (Liu et al. 2023). A block that is skipped is in neither product; what
it adds on average is in the second one's shift."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models import kernels
from models.zoo.tuned_parts import BLOCK, features

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class BlockGate:
    """Arrays as in `tuned_parts.TunedLayer`; `bias` [hidden] is the second product's, `neurons` how many there are."""

    predictor: Array
    offset: Array
    skipped: Array
    bias: Array
    neurons: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the gate itself, of a request."""
        return self.predictor.size

    def saliency(self, x: Array) -> Array:
        """Of each block for a layer's input [positions, hidden]."""
        predicted: Array = np.exp(self.predictor @ features(x) + self.offset)
        return predicted

    def select(self, x: Array, threshold: float) -> tuple[NDArray[np.int32], Array]:
        """The active neurons, ascending, and the second product's shift. A block whose saliency is no number is active,
        and the most salient one always is."""
        saliency = self.saliency(x)
        active = ~(saliency <= threshold)
        active[np.argmax(saliency)] = True
        neurons = np.flatnonzero(np.repeat(active, BLOCK)[: self.neurons]).astype(np.int32)
        return neurons, self.bias + self.skipped[~active].sum(0)

    def feed_forward(
        self, x: Array, up: kernels.PackedMatrix, up_bias: Array, down: kernels.PackedMatrix, threshold: float
    ) -> tuple[Array, int]:
        """What the layer adds to x [positions, hidden], and how many neurons were active."""
        active, shift = self.select(x, threshold)
        neurons = kernels.gated_matmul(x, up, outputs=active, shift=up_bias, activation="gelu")
        return kernels.gated_matmul(neurons, down, inputs=active, shift=shift), len(active)

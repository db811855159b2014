"""The two primitives of dynamic pruning, in their plainest form: what every gate and every compression here refines.

Activation pruning decides per request which neurons count; weight pruning decides once, for all requests, which
weights do. Both keep what is *greater* than a threshold and write zero elsewhere. They are the reference semantics:
written for reading and for tests, while a skipped channel in `models.gating.gate` is not a zero that is multiplied
but work that is not done.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def keep_neurons(values: NDArray[Any], threshold: float) -> NDArray[Any]:
    """The neurons whose value is above the threshold, zero for the others; same shape.

    >>> keep_neurons(np.array([0.1, 0.5, 0.9]), 0.5)
    array([0. , 0. , 0.9])
    """
    return np.where(values > threshold, values, 0)


def keep_weights(weights: NDArray[Any], threshold: float) -> NDArray[Any]:
    """The weights whose magnitude is above the threshold, zero for the others; same shape.

    >>> keep_weights(np.array([-0.8, 0.2, 0.6]), 0.5)
    array([-0.8,  0. ,  0.6])
    """
    return np.where(np.abs(weights) > threshold, weights, 0)

"""How much a position matters in a layer of a language model, told by what the layer is given there.

Some tokens are felt more than others by what follows: those that decide, and those that later ones look back at. The
size of the derivatives there, beside their mean, is foretold by e to the power of a sum of the layer's normed inputs,
fitted as a generalised linear model of the gamma family, with a logarithmic link (Nelder and Wedderburn 1972), which
suits sizes whose spread grows with them.
"""

import numpy as np
from numpy.typing import NDArray

RIDGE = 0.3
"""Of weights of inputs of variance 1."""

ROUNDS = 12
MOST_RATIO = 20.0
"""Of a size to what is foretold, in a round: a single one shall not lead."""


def fitted_care(inputs: NDArray[np.float32], sizes: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """The weights [channels] and the constant of the logarithm of what is foretold, of inputs [n, channels] and the
    sizes [n] that were there."""
    means, spreads = inputs.mean(0, dtype=np.float64), inputs.std(0, dtype=np.float64) + 1e-6
    even = ((inputs - means) / spreads).astype(np.float32)
    # With this link the information does not depend on the weights.
    information = (even.T @ even).astype(np.float64) / len(even) + RIDGE * np.eye(even.shape[1])
    weights, constant = np.zeros(even.shape[1]), float(np.log(sizes.mean()))
    for _ in range(ROUNDS):
        missed = np.minimum(sizes * np.exp(-(even @ weights + constant)), MOST_RATIO) - 1
        weights += 0.5 * np.linalg.solve(information, missed @ even / len(even) - RIDGE * weights)
        constant += 0.5 * float(missed.mean())
    constant = float(np.log((sizes * np.exp(-(even @ weights))).mean()))
    return weights / spreads, constant - float(means @ (weights / spreads))

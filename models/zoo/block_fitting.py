"""Which neurons of a feed-forward layer are a block, what each block adds on average, and a predictor of how much it
adds to a request: ridge regression on what the neurons of the dense encoder really do. Needs no torch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.model import GateContext
from models.zoo.bert import DENSE, Bert
from models.zoo.text_reader import Tokens
from models.zoo.tuned_parts import BLOCK, features

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Fitted:
    """What is known of a layer's blocks before any training; arrays as in `TunedLayer`."""

    order: NDArray[np.int64]
    predictor: Array
    offset: Array
    skipped: Array


def fit_blocks(encoder: Bert, sequences: Sequence[Tokens]) -> list[Fitted]:
    """Orders each layer's neurons by what they add, and fits the predictors of their blocks."""
    inputs: list[list[Array]] = [[] for _ in encoder.layers]
    means: list[list[Array]] = [[] for _ in encoder.layers]
    squares: list[list[Array]] = [[] for _ in encoder.layers]

    def watch(layer: int, x: Array, neurons: Array) -> None:
        inputs[layer].append(features(x))
        means[layer].append(neurons.mean(0))
        squares[layer].append(np.square(neurons).mean(0))

    for tokens in sequences:
        encoder(tokens.ids, GateContext(0.0), DENSE, watch=watch, types=tokens.types)
    fitted = []
    for i, (seen, mean, square) in enumerate(zip(inputs, means, squares, strict=True)):
        down = encoder.dense_weights(i)["down"][0]
        fitted.append(_fit(np.stack(seen), np.stack(mean), np.stack(square), down))
    return fitted


def _fit(seen: Array, means: Array, squares: Array, down: Array) -> Fitted:
    """`seen` [texts, features]; `means` and `squares` [texts, neurons] over the positions of each text."""
    mean = means.mean(0)
    norms = np.square(down).sum(0)
    added = np.maximum(squares - 2 * means * mean + np.square(mean), 0) * norms
    order = np.argsort(-added.mean(0), kind="stable")
    blocks = -(-len(order) // BLOCK)
    starts = np.arange(blocks) * BLOCK
    wanted = 0.5 * np.log(np.add.reduceat(added[:, order], starts, axis=1) + 1e-12)
    centre, spread = seen.mean(0), seen.std(0) + 1e-6
    scaled, offset = (seen - centre) / spread, wanted.mean(0)
    # As many unknowns as texts: the ridge keeps what a few texts cannot tell near zero.
    ridge = scaled.T @ scaled + len(seen) * np.eye(scaled.shape[1], dtype=np.float32)
    weights = np.linalg.solve(ridge, scaled.T @ (wanted - offset)) / spread[:, None]
    skipped = np.add.reduceat((down * mean)[:, order], starts, axis=1).T
    return Fitted(
        order.astype(np.int64),
        np.ascontiguousarray(weights.T, np.float32),
        (offset - centre @ weights).astype(np.float32),
        np.ascontiguousarray(skipped, np.float32),
    )

"""The parts of an encoder's lean layers in closed form, from what its dense layers do on texts. Needs no torch.

Scores are q · k, and the same in any bases q A, k A⁻ᵀ of a head: in those of the singular vectors of the scores, under
the second moments of the inputs, the first channels carry most of them. What a key adds to all scores of a query alike
changes nothing, so keys count by how they differ from their text's mean.

Neurons are left out a few at a time, those that are missed least once the others stand in for them (Optimal Brain
Surgeon, Hassibi and Stork 1993; of whole channels, Kurtic et al. 2023). The second product of those that stay is the
least-squares fit to the whole one's, and of that fit as much is kept as a correction of small rank can say.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.model import GateContext
from models.zoo.bert import DENSE, Bert
from models.zoo.lean_parts import BIASED, CORRECTED, Array, Correction, LeanLayer
from models.zoo.text_reader import Tokens

Double = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LeanRecipe:
    """The shares of a head's channels that score, and of the neurons that are kept, rounded to whole cache lines of
    `LINE` columns; the `rank` of the second product's correction."""

    scores: float = 0.5
    neurons: float = 5 / 6
    rank: int = 48


LINE = 16
AT_A_TIME = 16
"""Neurons that are left out together: those that are missed least hardly stand in for each other."""


AT_ONCE = 2048
"""Positions whose second moments are added up together: to add those of each text takes longer than to find them."""


@dataclass(slots=True)
class Moments:
    """Of a layer: second moments of its inputs, and of those within each text, [hidden + 1, hidden + 1] with a one
    behind them; sums and second moments of its neurons."""

    inputs: Double
    within: Double
    neurons: Double
    sums: Double
    positions: int = 0

    @property
    def covariance(self) -> Double:
        means = self.sums / self.positions
        covariance: Double = self.neurons / self.positions - np.outer(means, means)
        return covariance


def fit_lean(
    encoder: Bert,
    sequences: Sequence[Tokens],
    report: Callable[[float], None] = lambda done: None,
    recipe: LeanRecipe | None = None,
) -> list[LeanLayer]:
    """Fits the parts of each layer, one after the other: the moments of all would not fit the memory. `report` is
    called with the share done."""
    parts = []
    for number in range(encoder.shape.layers):
        moments = _moments(encoder, number, sequences)
        parts.append(_fit(encoder, number, moments, recipe or LeanRecipe()))
        report((number + 1) / encoder.shape.layers)
    return parts


def _moments(encoder: Bert, number: int, sequences: Sequence[Tokens]) -> Moments:
    hidden, neurons = encoder.shape.hidden, encoder.shape.feed_forward
    waiting: list[Array] = []
    squares = [np.zeros((size, size)) for size in (hidden + 1, hidden + 1, neurons)]
    found = Moments(squares[0], squares[1], squares[2], np.zeros(neurons))

    def watch(layer: int, x: Array, active: Array) -> None:
        if layer != number:
            return
        ones = np.ones((len(x), 1), np.float32)
        x, centred = np.hstack([x, ones]), np.hstack([x - x.mean(0), 0 * ones])
        found.inputs += x.T @ x
        found.within += centred.T @ centred
        found.positions += len(x)
        waiting.append(active)
        if sum(map(len, waiting)) >= AT_ONCE:
            add_neurons()

    def add_neurons() -> None:
        active = np.concatenate(waiting)
        found.neurons += active.T @ active
        found.sums += active.sum(0)
        waiting.clear()

    for tokens in sequences:
        encoder(tokens.ids, GateContext(0.0), DENSE, watch=watch, types=tokens.types)
    waiting.append(np.zeros((0, neurons), np.float32))
    add_neurons()
    return found


def _fit(encoder: Bert, number: int, moments: Moments, recipe: LeanRecipe) -> LeanLayer:
    dense, shape = encoder.dense_weights(number), encoder.shape
    channels = _whole_lines(recipe.scores * shape.head_size, shape.head_size)
    queries, keys, lost_scores = score_bases(dense["query"], dense["key"], shape.heads, channels, moments)
    covariance = moments.covariance
    weight, bias = (part.astype(np.float64) for part in dense["down"])
    kept = keep_neurons(covariance, weight, _whole_lines(recipe.neurons * shape.feed_forward, shape.feed_forward))
    down, correction, lost = _stand_in(covariance, weight, kept, recipe.rank, moments.positions)
    means = moments.sums / moments.positions
    corrections = {name: _no_correction(dense[name][0]) for name in ("value", "output")}
    corrections |= {"up": _no_correction(dense["up"][0][kept]), "down": correction}
    biases: dict[str, NDArray[Any]] = {name: dense[name][1] for name in BIASED} | {
        "query": _projected_bias(queries, dense["query"][1]),
        "key": _projected_bias(keys, dense["key"][1]),
        "up": dense["up"][1][kept],
        "down": bias + weight @ means - down @ means[kept],
    }
    return LeanLayer(
        queries,
        keys,
        kept,
        tuple(_single(*corrections[name]) for name in CORRECTED),
        tuple(biases[name].astype(np.float32) for name in BIASED),
        np.stack(dense["attention_norm"]),
        np.stack(dense["norm"]),
        lost_scores,
        lost,
    )


def score_bases(
    query: tuple[Array, Array], key: tuple[Array, Array], heads: int, channels: int, moments: Moments
) -> tuple[Array, Array, float]:
    """Bases [heads, channels, head size] of the queries and keys, and the share of the scores' energy that is not in
    them."""
    queries, keys = (np.hstack([weight, bias[:, None]]).astype(np.float64) for weight, bias in (query, key))
    size = len(queries) // heads
    of_queries, of_keys, energy = [], [], np.zeros(size)
    for head in range(heads):
        q, k = (rows[head * size : (head + 1) * size] for rows in (queries, keys))
        root_q, inverse_q = _roots(q @ (moments.inputs / moments.positions) @ q.T)
        root_k, inverse_k = _roots(k @ (moments.within / moments.positions) @ k.T)
        left, values, right = np.linalg.svd(root_q.T @ root_k)
        of_queries.append((inverse_q @ left * np.sqrt(values)).T[:channels])
        of_keys.append((inverse_k @ right.T * np.sqrt(values)).T[:channels])
        energy += np.square(values)
    lost = float(energy[channels:].sum() / max(energy.sum(), 1e-30))
    return np.stack(of_queries).astype(np.float32), np.stack(of_keys).astype(np.float32), lost


def keep_neurons(covariance: Double, weight: Double, count: int) -> NDArray[np.int64]:
    """Which `count` neurons stay, ascending, of those with a covariance [neurons, neurons] and a second product's
    weight [hidden, neurons]."""
    inverse = np.linalg.inv(covariance + 0.01 * covariance.diagonal().mean() * np.eye(len(covariance)))
    inverse, weight = inverse.astype(np.float32), weight.astype(np.float32)
    there = np.ones(len(inverse), bool)
    while (left := int(there.sum()) - count) > 0:
        missed = np.square(weight).sum(0) / np.maximum(inverse.diagonal(), 1e-12)
        missed[~there] = np.inf
        gone = np.argsort(missed)[: min(AT_A_TIME, left)]
        shares = np.linalg.solve(inverse[np.ix_(gone, gone)], inverse[gone])
        weight -= weight[:, gone] @ shares
        inverse -= inverse[:, gone] @ shares
        there[gone] = False
        inverse[gone], inverse[:, gone], weight[:, gone] = 0, 0, 0
    return np.flatnonzero(there)


def _stand_in(
    covariance: Double, weight: Double, kept: NDArray[np.int64], rank: int, positions: int
) -> tuple[Double, tuple[Double, Double], float]:
    """The second product [hidden, n] of the neurons that stay; its correction, which is in it; and the share of the
    whole one's variance that it lacks."""
    among, gone = covariance[np.ix_(kept, kept)], np.delete(np.arange(len(covariance)), kept)
    # Of few positions a fit would remember them and not learn from them.
    shrunk = among + (1e-3 + 0.1 * len(kept) / positions) * np.diag(among.diagonal() + 1e-12)
    root = np.linalg.cholesky(shrunk)
    change = np.linalg.solve(shrunk, covariance[np.ix_(kept, gone)] @ weight[:, gone].T).T
    left, values, right = np.linalg.svd(change @ root, full_matrices=False)
    scale = np.sqrt(values[:rank])
    correction = left[:, :rank] * scale, np.linalg.solve(root.T, right[:rank].T * scale).T
    made = weight[:, kept] + correction[0] @ correction[1]
    apart = weight.copy()
    apart[:, kept] -= made
    lacks, whole = (np.sum(matrix @ covariance * matrix) for matrix in (apart, weight))
    return made, correction, float(lacks / max(whole, 1e-30))


def _roots(moment: Double) -> tuple[Double, Double]:
    """L and L⁻ᵀ of a moment L Lᵀ."""
    values, vectors = np.linalg.eigh(moment)
    root = np.sqrt(np.maximum(values, 1e-9 * values.max() + 1e-30))
    return vectors * root, vectors / root


def _whole_lines(wanted: float, most: int) -> int:
    return min(most, max(LINE, round(wanted / LINE) * LINE))


def _projected_bias(bases: Array, bias: Array) -> Array:
    projected: Array = (bases @ bias.reshape(len(bases), -1, 1)).reshape(-1)
    return projected


def _no_correction(weight: Array) -> tuple[Double, Double]:
    return np.zeros((len(weight), 0)), np.zeros((0, weight.shape[1]))


def _single(left: Double, right: Double) -> Correction:
    return left.astype(np.float32), right.astype(np.float32)

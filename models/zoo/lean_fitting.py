"""The lean layers of an encoder in closed form, from what its dense layers do on texts. Needs no torch.

Scores are q · k, and the same in any bases q A, k A⁻ᵀ of a head: in those of the singular vectors of the scores, under
the second moments of the inputs, the first channels carry most of them. What a key adds to all scores of a query alike
changes nothing, so keys count by how they differ from their text's mean. The output product is then fitted again, to
make of the heads what the dense one makes of its own.

Neurons are left out a few at a time, those that are missed least once the others stand in for them (Optimal Brain
Surgeon, Hassibi and Stork 1993; of whole channels, Kurtic et al. 2023). The second product of those that stay is the
least-squares fit to the whole one's.

A position counts by what the norm behind makes of its error. To let each layer make up for those before it was tried:
such a fit takes the noise of its inputs for a reason to give less of everything, and embeddings got worse.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models import kernels
from models.zoo.bert import Bert, Linear, pack, product
from models.zoo.encoder_heads import HeadMoments
from models.zoo.lean_layers import Array, LayerWeights, LeanLayer, Neurons, Product
from models.zoo.text_reader import Tokens

Double = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LeanRecipe:
    """The share of a head's channels that score, of the first layer and of the last, those between them evenly apart;
    and the share of the neurons that are kept. Both are rounded, to groups of `SCORED` channels and to cache lines of
    `LINE` columns. `ridge` is what the fits add to the variance of each channel, as a share of it.

    The first layers' scores can spare least for the work, the last ones' most; neurons cost about the same in all."""

    scores: tuple[float, float] = (0.875, 0.25)
    neurons: float = 0.79
    ridge: float = 0.03


FITTING = 5
"""Counts the ways of fitting that there were: what was kept of another is made anew."""

SCORED, LINE = 4, 16
AT_A_TIME = 16
"""Neurons that are left out together: those that are missed least hardly stand in for each other."""

AT_ONCE = 2048
"""Positions of texts that are run together: products of few rows, and sums of their moments, take longer."""


@dataclass(slots=True)
class Moments:
    """The second moments of rows with a one behind each: [size + 1, size + 1]."""

    size: int
    rows: int = 0
    total: Double = field(init=False)

    def __post_init__(self) -> None:
        self.total = np.zeros((self.size + 1, self.size + 1))

    def add(self, rows: Array, weights: Array | float = 1.0, one: float = 1.0) -> None:
        """Rows [n, size], each times its weight, as is the `one` behind it."""
        weighted = np.hstack([rows, np.full((len(rows), 1), one, np.float32)]) * np.float32(weights)
        self.total += weighted.T @ weighted  # of one array with itself: half of the work of a product, on all cores
        self.rows += len(rows)

    @property
    def means(self) -> Double:
        """[size]"""
        means: Double = self.total[-1, :-1] / self.total[-1, -1]
        return means

    @property
    def covariance(self) -> Double:
        """[size, size]"""
        covariance: Double = self.total[:-1, :-1] / self.total[-1, -1] - np.outer(self.means, self.means)
        return covariance


def fit_lean(
    encoder: Bert,
    sequences: Sequence[Tokens],
    report: Callable[[float], None] = lambda done: None,
    recipe: LeanRecipe | None = None,
    kept: Sequence[Neurons] | None = None,
) -> list[LeanLayer]:
    """Fits one layer after the other: what all give would not fit the memory. `kept` names the neurons of each that
    stay; otherwise they are chosen. `report` is called with the share done."""
    recipe = recipe or LeanRecipe()
    given: list[list[Array]] = [[]]
    for tokens in sequences:
        if sum(map(len, given[-1])) >= AT_ONCE:
            given.append([])
        given[-1].append(encoder.embed(tokens.ids, tokens.types))
    threads = kernels.Threads(_cores())
    layers = []
    for number in range(encoder.shape.layers):
        layer, given = _fit(encoder, number, given, recipe, kept[number] if kept else None, threads)
        layers.append(layer)
        report((number + 1) / encoder.shape.layers)
    return layers


def _fit(
    encoder: Bert,
    number: int,
    given: list[list[Array]],
    recipe: LeanRecipe,
    kept: Neurons | None,
    threads: kernels.Threads,
) -> tuple[LeanLayer, list[list[Array]]]:
    """A lean layer, and what the dense one gives for what it is `given`, text by text."""
    dense, shape = encoder.dense_weights(number), encoder.shape
    lean = dict(dense)
    first, last = recipe.scores
    scored = np.linspace(first, last, shape.layers)[number] * shape.head_size
    channels = _rounded(scored, SCORED, shape.head_size)
    lean["query"], lean["key"], lost_scores = score_bases(dense, shape.heads, channels, given)
    fewer = pack(lean, "fp32", "query", "key", "value"), channels
    seen = _Seen(Moments(2 * shape.hidden), Moments(shape.feed_forward), HeadMoments(dense["output"][0], shape.heads))
    returned = [_watch(encoder, number, fewer, texts, seen, threads) for texts in given]
    neurons = seen.neurons
    if number + 1 < shape.layers:  # with that of the last fitted too, embeddings were further from the dense ones
        lean["output"] = _as_output(dense["output"], seen.fewer, recipe.ridge)
    if kept is None:
        count = _rounded(recipe.neurons * shape.feed_forward, LINE, shape.feed_forward)
        kept = keep_neurons(neurons.covariance, dense["down"][0].astype(np.float64), count)
    lean["up"] = dense["up"][0][kept], dense["up"][1][kept]
    lean["down"], lost_neurons = _as_down(dense["down"], neurons, kept, recipe.ridge)
    return LeanLayer(lean, lost_scores, lost_neurons, kept, seen.heads.fitted()), returned


@dataclass(frozen=True, slots=True)
class _Seen:
    """Of a dense layer: what its heads give that score with `fewer` channels, beside what they give; its neurons; and
    what each head adds."""

    fewer: Moments
    neurons: Moments
    heads: HeadMoments


def score_bases(
    weights: LayerWeights, heads: int, channels: int, given: Sequence[Sequence[Array]]
) -> tuple[Product, Product, float]:
    """The products that make so many channels a head of queries and keys, and the share of the scores' energy that is
    not in them."""
    hidden = weights["query"][0].shape[1]
    inputs, within = Moments(hidden), Moments(hidden)
    for texts in given:
        inputs.add(np.concatenate(texts))
        within.add(np.concatenate([x - x.mean(0) for x in texts]), one=0.0)
    queries, keys = (
        np.hstack([weight, bias[:, None]]).astype(np.float64) for weight, bias in (weights["query"], weights["key"])
    )
    size = len(queries) // heads
    of_queries, of_keys, energy = [], [], np.zeros(size)
    for head in range(heads):
        q, k = (rows[head * size : (head + 1) * size] for rows in (queries, keys))
        root_q, inverse_q = _roots(q @ (inputs.total / inputs.rows) @ q.T)
        root_k, inverse_k = _roots(k @ (within.total / within.rows) @ k.T)
        left, values, right = np.linalg.svd(root_q.T @ root_k)
        made = (inverse_q @ left * np.sqrt(values)).T[:channels] @ q
        signs = np.sign(np.take_along_axis(made, np.abs(made).argmax(1)[:, None], 1))  # the same on each machine
        of_queries.append(signs * made)
        of_keys.append(signs * ((inverse_k @ right.T * np.sqrt(values)).T[:channels] @ k))
        energy += np.square(values)
    lost = float(energy[channels:].sum() / max(energy.sum(), 1e-30))
    return _product(np.concatenate(of_queries)), _product(np.concatenate(of_keys)), lost


def keep_neurons(covariance: Double, weight: Double, count: int) -> Neurons:
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


def _watch(
    encoder: Bert,
    number: int,
    scored: tuple[Linear, int],
    texts: list[Array],
    seen: _Seen,
    threads: kernels.Threads,
) -> list[Array]:
    """Runs a dense layer on texts, and adds to what was seen of it; `scored` makes fewer channels."""
    attention, feed_forward = encoder.layers[number].attention, encoder.layers[number].feed_forward
    x, ends = np.concatenate(texts), np.cumsum([len(text) for text in texts])[:-1]
    given, fewer = (
        np.concatenate([encoder.heads(one, size) for one in np.split(product(x, qkv, threads), ends)])
        for qkv, size in ((attention.qkv, attention.head_size), scored)
    )
    added = product(given, attention.output, threads)
    multipliers = _multipliers(x + added)
    seen.fewer.add(np.hstack([fewer, given]), multipliers)
    seen.heads.add(x, given, multipliers, np.append(0, ends))
    x = encoder.normalised(added, attention.norm, residual=x)
    active = product(x, feed_forward.up, threads, activation="gelu")
    added = product(active, feed_forward.down, threads)
    seen.neurons.add(active, _multipliers(x + added))
    x = encoder.normalised(added, feed_forward.norm, residual=x)
    return np.split(x, ends)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def _multipliers(summed: Array) -> Array:
    """What a norm multiplies each position by, [positions, 1]."""
    multipliers: Array = 1 / (summed.std(1, keepdims=True) + np.float32(1e-6))
    return multipliers


def _as_output(dense: Product, heads: Moments, ridge: float) -> Product:
    """The output product of heads that score with fewer channels, fitted to that of the dense ones."""
    size = len(heads.total) // 2
    fewer = np.append(np.arange(size), 2 * size)  # with the one
    among = heads.total[np.ix_(fewer, fewer)]
    apart = heads.total[fewer, size : 2 * size] - among[:, :size]
    ridge += 0.1 * size / heads.rows
    penalty = ridge * (among.diagonal() + 1e-12)
    penalty[-1] = 0
    change = np.linalg.solve(among + np.diag(penalty), apart)
    weight, bias = (part.astype(np.float64) for part in dense)
    return _product(np.column_stack([weight + weight @ change[:-1].T, bias + weight @ change[-1]]))


def _as_down(dense: Product, neurons: Moments, kept: Neurons, ridge: float) -> tuple[Product, float]:
    """The second product [hidden, n] of the neurons that stay, and the share of the whole one's variance that it
    lacks."""
    covariance, means = neurons.covariance, neurons.means
    weight, bias = (part.astype(np.float64) for part in dense)
    among, gone = covariance[np.ix_(kept, kept)], np.delete(np.arange(len(covariance)), kept)
    # Of few positions a fit would remember them and not learn from them.
    ridge += 0.1 * len(kept) / neurons.rows
    shrunk = among + ridge * np.diag(among.diagonal() + 1e-12)
    made = weight[:, kept] + np.linalg.solve(shrunk, covariance[np.ix_(kept, gone)] @ weight[:, gone].T).T
    apart = weight.copy()
    apart[:, kept] -= made
    lacks, whole = (np.sum(matrix @ covariance * matrix) for matrix in (apart, weight))
    product = _product(np.column_stack([made, bias + weight @ means - made @ means[kept]]))
    return product, float(lacks / max(whole, 1e-30))


def _roots(moment: Double) -> tuple[Double, Double]:
    """L and L⁻ᵀ of a moment L Lᵀ."""
    values, vectors = np.linalg.eigh(moment)
    root = np.sqrt(np.maximum(values, 1e-9 * values.max() + 1e-30))
    return vectors * root, vectors / root


def _rounded(wanted: float, group: int, most: int) -> int:
    """To whole groups, one at least."""
    return min(most, max(group, round(wanted / group) * group))


def _product(columns: Double) -> Product:
    """Weight and bias, which is the last column."""
    return np.ascontiguousarray(columns[:, :-1], np.float32), columns[:, -1].astype(np.float32)

"""The gate on an encoder's attention heads: which of them a text is read with.

What a head adds differs from text to text, and a good part of that is known before: its logarithm is nearly linear in
the mean of what the layer is given, which costs nothing beside the products. A head that adds little is left out with
all that it takes, and what it adds on average stands for it.
"""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Double = NDArray[np.float64]

RIDGE, RIDGE_OF_FEW = 1.0, 100.0
"""What a fit adds to the variance of each channel, as a share of it, and as much more as that divided by the texts."""

LEAST_SALIENCY = 1e-12


@dataclass(frozen=True, slots=True)
class FittedHeads:
    """Of a layer: what its heads give on average, side by side, `means` [hidden]; and what of the mean position tells
    the logarithm of each one's saliency, `weights` [heads, hidden] and `bias` [heads]. The saliency is the share of the
    variance behind the norm that a text loses with the means in place of the head."""

    means: Array
    weights: Array
    bias: Array

    def saliency(self, x: Array) -> Array:
        """Of each head for a text whose positions are given as x [n, hidden]: [heads]."""
        saliency: Array = np.exp(self.weights @ x.mean(0) + self.bias)
        return saliency


@dataclass(frozen=True, slots=True)
class ActiveHeads:
    """The heads that a text is read with, `ids` [count], and the bias [hidden] of the output with what stands for the
    others; None for all, as they are."""

    count: int
    ids: NDArray[np.int32] | None = None
    bias: Array | None = None


@dataclass(frozen=True, slots=True)
class HeadGate:
    """What tells the active heads of a first half, whose output has the `bias` [hidden]; `stand_ins` [heads, hidden]
    are what each adds on average."""

    fitted: FittedHeads
    bias: Array
    stand_ins: Array

    @classmethod
    def of(cls, fitted: FittedHeads, weight: Array, bias: Array) -> Self:
        """Of the output product [hidden, hidden]."""
        heads = len(fitted.bias)
        added = (weight * fitted.means).reshape(len(weight), heads, -1).sum(2)
        return cls(fitted, bias, np.ascontiguousarray(added.T, np.float32))

    def __call__(self, x: Array, threshold: float) -> ActiveHeads:
        """Those that are more salient than the threshold, for a text whose positions are given as x [n, hidden]."""
        if not threshold > 0:
            return ActiveHeads(len(self.stand_ins))
        active = self.fitted.saliency(x) > threshold
        if active.all():
            return ActiveHeads(len(active))
        ids = np.flatnonzero(active).astype(np.int32)
        return ActiveHeads(len(ids), ids, self.bias + self.stand_ins[~active].sum(0))


@dataclass(slots=True)
class HeadMoments:
    """Sums, text by text, of what heads give that go through the `weight` [hidden, hidden] of an output product: of
    their squares behind it [heads], of themselves [hidden], and of their positions, each of these weighted by what the
    norm multiplies it by; and the `inputs`, the mean position that the layer was given."""

    weight: Array
    heads: int
    inputs: list[Array] = field(default_factory=list)
    squares: list[Array] = field(default_factory=list)
    sums: list[Array] = field(default_factory=list)
    weights: list[Array] = field(default_factory=list)
    lengths: list[NDArray[np.int64]] = field(default_factory=list)

    def add(self, x: Array, given: Array, multipliers: Array, starts: NDArray[np.int64]) -> None:
        """Of texts that begin at these positions: what the layer is given, x, what its heads give, both [n, hidden],
        and what the norm multiplies each position by [n, 1]."""
        lengths, squared = np.diff(np.append(starts, len(x))), np.square(multipliers)
        parts = given.reshape(len(given), self.heads, -1)
        energies = np.einsum("nhc,hcd,nhd->nh", parts, self._grams(), parts, optimize=True)
        self.inputs.append((np.add.reduceat(x, starts) / lengths[:, None]).astype(np.float32))
        self.squares.append(np.add.reduceat(energies * squared, starts))
        self.sums.append(np.add.reduceat(given * squared, starts))
        self.weights.append(np.add.reduceat(squared[:, 0], starts))
        self.lengths.append(lengths)

    def _grams(self) -> Array:
        """[heads, head size, head size]"""
        columns = self.weight.T.reshape(self.heads, -1, len(self.weight))
        grams: Array = columns @ columns.transpose(0, 2, 1)
        return grams

    def fitted(self) -> FittedHeads:
        """From all texts."""
        sums, weights = np.concatenate(self.sums).astype(np.float64), np.concatenate(self.weights).astype(np.float64)
        means, inputs = sums.sum(0) / weights.sum(), np.concatenate(self.inputs).astype(np.float64)
        of_heads = means.reshape(self.heads, -1)
        through = np.einsum("hcd,hd->hc", self._grams(), of_heads)
        crossed = (sums.reshape(len(sums), self.heads, -1) * through).sum(2)
        lost = np.concatenate(self.squares) - 2 * crossed + np.outer(weights, (of_heads * through).sum(1))
        positions = np.concatenate(self.lengths)[:, None] * len(means)
        logarithms = np.log(np.maximum(lost / positions, LEAST_SALIENCY))
        apart = inputs - inputs.mean(0)
        moment = apart.T @ apart
        ridge = (RIDGE + RIDGE_OF_FEW / len(inputs)) * moment.diagonal() + LEAST_SALIENCY
        slopes = np.linalg.solve(moment + np.diag(ridge), apart.T @ (logarithms - logarithms.mean(0)))
        bias = logarithms.mean(0) - inputs.mean(0) @ slopes
        return FittedHeads(*(part.astype(np.float32) for part in (means, np.ascontiguousarray(slopes.T), bias)))

"""A product of the embeddings of tokens, looked up: before the first layer a token is one of a vocabulary, and its
position one of a few.

    embedding = norm(words[i] + positions[j]) = factor · (word + position) · weight + bias

with word and position each less its own mean. So what each word and each position adds to a product of it can be
multiplied once, when a model is loaded; a request adds rows of two tables, and multiplies them by its factor. The
result is the same but for rounding.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models import kernels

Array = NDArray[np.float32]
Rows = NDArray[np.int32]

AT_ONCE = 4096
"""Words that are multiplied together."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """A sequence's embeddings, `states` [n, hidden], and what they are made of: the rows `ids` and `places` [n] of
    words and of positions, and the factor of each [n]."""

    states: Array
    ids: Rows
    places: Rows
    factors: Array


class TokenProducts:
    """Those of a weight [outputs, hidden] and a bias [outputs] with embeddings. The table of the words has half of the
    memory, rounded to bf16, where the `datatype` is another than "fp32"."""

    def __init__(
        self,
        words: Array,
        positions: Array,
        norm: tuple[Array, Array],
        weight: Array,
        bias: Array,
        datatype: str = "fp32",
    ) -> None:
        scale, shift = norm
        packed = kernels.pack_matrix(weight * scale)
        self._words = kernels.LookupTable(len(words), len(weight), "fp32" if datatype == "fp32" else "bf16")
        for first in range(0, len(words), AT_ONCE):
            self._words.fill(first, kernels.gated_matmul(_centred(words[first : first + AT_ONCE]), packed))
        self._positions = kernels.gated_matmul(_centred(positions), packed)
        self._bias = bias + weight @ shift

    def __call__(self, embedded: Embedded) -> Array:
        """[n, outputs]"""
        ids, places, factors = embedded.ids, embedded.places, embedded.factors
        return kernels.look_up(self._words, self._positions, ids, places, factors, self._bias)


def _centred(rows: Array) -> Array:
    centred: Array = rows - rows.mean(1, keepdims=True)
    return centred

"""The bias that MPNet adds to its scores for how far a key is from a query: T5's buckets of distances (Raffel et al.
2020, section 2.1), exact near by and logarithmic further off, one number for each head."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
FARTHEST = 128
"""All distances from here on share the last bucket."""


def buckets(distances: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The bucket of each distance, key minus query: the first half of `count` is for keys before the query, and the
    query itself, the second for those behind it."""
    half = count // 2
    exact = half // 2
    away = np.abs(distances)
    # In float32, as those did it who trained with it: a distance on the edge falls on the same side.
    grown = np.log(np.maximum(away, 1).astype(np.float32) / np.float32(exact)) / np.float32(np.log(FARTHEST / exact))
    far = np.minimum(exact + (grown * np.float32(half - exact)).astype(np.int64), half - 1)
    found: NDArray[np.int64] = np.where(away < exact, away, far) + half * (distances > 0)
    return found


class DistanceBias:
    """`table` is [buckets, heads], `positions` the longest sequence."""

    def __init__(self, table: Array, positions: int) -> None:
        away = np.arange(1 - positions, positions)
        self._by_distance = np.ascontiguousarray(table[buckets(away, len(table))].T)
        self._middle = positions - 1

    def __call__(self, length: int) -> Array:
        """The bias of a sequence, [heads, queries, keys]."""
        reach = self._by_distance[:, self._middle - length + 1 : self._middle + length]
        rows = np.lib.stride_tricks.sliding_window_view(reach, length, axis=1)
        bias: Array = np.ascontiguousarray(rows[:, ::-1])
        return bias

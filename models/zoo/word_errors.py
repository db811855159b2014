"""Word error rates."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.zoo.english_text import words_of

RESAMPLED = 2000


def word_errors(said: str, wanted: str) -> tuple[int, int]:
    """How many words have to be replaced, left out or put in to make the one text the other, both made alike, and how
    many words are wanted."""
    words = words_of(wanted)
    return edits(words_of(said), words), len(words)


def edits(a: Sequence[str], b: Sequence[str]) -> int:
    """The edit distance of two sequences (Levenshtein 1966)."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(diagonal + (x != y), row[j] + 1, row[j - 1] + 1)
    return row[-1]


def rate(errors: NDArray[np.int64], words: NDArray[np.int64]) -> float:
    """Errors a word, over all texts [n]."""
    return float(errors.sum() / words.sum())


def rate_bounds(
    errors: NDArray[np.int64], words: NDArray[np.int64], baseline: NDArray[np.int64] | None = None, seed: int = 0
) -> tuple[float, float]:
    """The 95 % confidence interval of the rate, or of the difference of two on the same texts, by drawing the texts
    again (percentile bootstrap, Efron 1979; Bisani and Ney 2004)."""
    random = np.random.default_rng(seed)
    drawn = random.integers(0, len(words), (RESAMPLED, len(words)))
    counted = errors if baseline is None else errors - baseline
    low, high = np.quantile(counted[drawn].sum(1) / words[drawn].sum(1), (0.025, 0.975))
    return float(low), float(high)

"""The gate on a window's positions: which of them the encoder works on.

Most of a window of 30 s is the silence behind a short clip. The further a position is from the speech, the less it
matters: past a margin one stands for many, and is attended to as often as it stands for a position (as in token
merging, Bolya et al. 2023). Without any of that silence the decoder takes a pause for the end, or goes on and on.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from models.zoo.whisper_shape import TAPS

Array = NDArray[np.float32]

STANDS_FOR = 25
"""How many positions past the margin one stands for: half a second."""


class Product(Protocol):
    """A product of rows [n, inputs], as `kernels.gated_matmul` has it."""

    def __call__(self, x: Array, *, residual: Array | None = None) -> Array: ...


@dataclass(frozen=True, slots=True)
class Positions:
    """The first `near` positions of a window are all there, of those behind them the `ids` [n]; `sizes` [near + n] is
    how many positions each stands for."""

    near: int
    ids: NDArray[np.intp]
    sizes: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def all_ids(self) -> NDArray[np.intp]:
        return np.concatenate([np.arange(self.near), self.ids])

    def bias(self) -> Array | None:
        """What is added to the scores of attention to them, [near + n]; None for nothing."""
        return np.log(self.sizes).astype(np.float32) if len(self.ids) else None


def active_positions(speech: int, window: int, threshold: float) -> Positions:
    """Those of a window of so many positions, of which the first `speech` hold speech. One of these has the saliency 1;
    one that is d past them has 1 − d / window, so that a threshold of 0 keeps the whole window and one of 0.9 a tenth
    of it behind the speech."""
    near = min(window, speech + round((1 - threshold) * window)) if threshold > 0 else window
    starts = np.arange(near, window, STANDS_FOR)
    ends = np.minimum(starts + STANDS_FOR, window)
    return Positions(near, (starts + ends - 1) // 2, np.concatenate([np.ones(near, np.intp), ends - starts]))


def convolved(spectrum: Array, first: Product, second: Product, positions: Positions, places: Array) -> Array:
    """Both convolutions of three taps, the second with stride 2, at the positions that are there: the spectrum [frames,
    mels] to [near + n, hidden], and their rows of `places` [positions, hidden], which are added. They are products of
    windows [rows, taps · inputs]."""
    near, frames = positions.near, len(spectrum)
    # One frame more, for the last taps to see what is there and not the zeros past a window's end. The first and the
    # last row are made for their place: the second convolution sees zeros there.
    beginning = first(_windows(_padded(spectrum[: 2 * near + 1], 2), 1))
    beginning[0] = beginning[-1] = 0
    parts = [second(_windows(beginning, 2)[:near], residual=places[:near])]
    if len(positions.ids):
        rows = (2 * positions.ids[:, None] + np.arange(-1, TAPS - 1)).reshape(-1)
        padded = _padded(spectrum, 1)
        seen = first(padded[rows[:, None] + np.arange(TAPS)].reshape(len(rows), -1))
        seen[rows >= frames] = 0
        parts.append(second(seen.reshape(len(positions.ids), -1), residual=places[positions.ids]))
    return np.concatenate(parts) if len(parts) > 1 else parts[0]


def _padded(rows: Array, zeros: int) -> Array:
    """So many rows of zeros before and behind. As `np.pad`, which takes five times as long."""
    padded = np.empty((len(rows) + 2 * zeros, rows.shape[1]), np.float32)
    padded[:zeros] = padded[-zeros:] = 0
    padded[zeros:-zeros] = rows
    return padded


def _windows(padded: Array, stride: int) -> Array:
    """The rows that each output of a convolution sees, side by side: [n + 2, inputs] to [⌈n / stride⌉, taps · inputs],
    which lie over each other."""
    channels = padded.shape[1]
    return sliding_window_view(padded.reshape(-1), TAPS * channels)[:: stride * channels]

"""The trace files that come with Sluice, and how they were made."""

from pathlib import Path

from loadtest.curve import Curve, bursts, diurnal, steady
from loadtest.trace import Trace, generate

FOLDER = Path(__file__).parent
SEED = 20
_RATE = 50.0
_CAPACITY = 80.0

MADE: dict[str, tuple[Curve, float]] = {
    "poisson": (steady(_RATE, 120), 1.0),
    "gamma-cv2": (steady(_RATE, 120), 2.0),
    "gamma-cv4": (steady(_RATE, 120), 4.0),
    "diurnal": (diurnal(_RATE, 180), 1.0),
    "bursts-2x": (bursts(0.6 * _CAPACITY, 2 * _CAPACITY, 10, 0.2, 2), 1.0),
    "bursts-2.5x": (bursts(0.6 * _CAPACITY, 2.5 * _CAPACITY, 10, 0.2, 2), 1.0),
}
"""Curve and coefficient of variation of each; the bursts are for a server that can do 80 requests/s dense, so replay
them at your own capacity / 80."""


def make(name: str) -> Trace:
    """The trace of this name, made anew. Raises `KeyError`."""
    curve, variation = MADE[name]
    return generate(name, curve, SEED, variation)

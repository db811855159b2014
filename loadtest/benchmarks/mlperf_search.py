"""The search for the highest rate that passes a test which says yes or no. Pure: the test is an argument."""

import math
from collections.abc import Callable
from dataclasses import dataclass

_GROWTH = 1.5
_MOST_STEPS = 20
_WORST = 10.0


@dataclass(frozen=True, slots=True)
class Search:
    """`start` is the first rate tried; the search ends where the lowest rate that failed is within `precision` times
    the highest that passed."""

    start: float
    precision: float = 1.03

    def highest(self, passes: Callable[[float], bool]) -> float:
        """Grows or shrinks to a bracket, then halves it. Raises `RuntimeError` where nothing passes, or everything."""
        low, high = 0.0, 0.0
        for _ in range(_MOST_STEPS):
            rate = self._next(low, high)
            if passes(rate):
                low = rate
            else:
                high = rate
            if low and high and high / low <= self.precision:
                return low
            if not low and rate < self.start / _WORST:
                break
        raise RuntimeError(f"no highest rate was found: {low:g}/s passed, {high or float('inf'):g}/s did not")

    def confirmed(self, rate: float, passes: Callable[[float], bool]) -> float:
        """The first rate at or below `rate`, in steps of the precision, that passes a stricter test. Raises
        `RuntimeError`."""
        for _ in range(_MOST_STEPS):
            if passes(rate):
                return rate
            rate /= self.precision
        raise RuntimeError(f"nothing was confirmed down to {rate:g}/s")

    def _next(self, low: float, high: float) -> float:
        if low and high:
            return math.sqrt(low * high)
        if low:
            return low * _GROWTH
        return high / _GROWTH if high else self.start

"""An upper quantile of a stream of positive numbers, in one number of memory."""

from dataclasses import dataclass


@dataclass(slots=True)
class UpperQuantile:
    """Stochastic approximation of a quantile (Robbins and Monro 1951), in ratios.

    A step is bounded whatever the number, so one stall of any size is one step up. `gain` is the step of a value above
    a quantile of 1. `value` stays between `lowest` and `highest`.
    """

    value: float
    lowest: float
    highest: float
    quantile: float = 0.95
    gain: float = 0.03

    def follow(self, number: float) -> None:
        """Takes in one number."""
        step = self.gain * (self.quantile if number > self.value else self.quantile - 1)
        self.value = min(max(self.value * (1 + step), self.lowest), self.highest)

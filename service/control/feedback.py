"""Slow feedback: the safety margin that stretches predicted times when more requests miss the SLO than its percentile
allows.
"""

from dataclasses import dataclass
from math import exp, sqrt


@dataclass(slots=True)
class SafetyMargin:
    """A factor from 1 to `highest`, moved at most once in `period` seconds.

    It rises when the misses in the window are surely more than allowed, and the window starts anew, so that no miss is
    answered twice (no wind-up). It falls towards 1 when there are surely no more than half of what is allowed, and with
    time when there is nothing to judge. Between the two it rests. Only outcomes that a margin could have changed belong
    in `record`: no pinned level, no refusal at the ceiling, no SLO that cannot be met.
    """

    highest: float = 2.0
    rise: float = 1.1
    period: float = 0.5
    window: float = 10.0
    quiet: float = 30.0
    """Seconds in which, without misses, the margin falls to 1/e of its excess over 1."""
    value: float = 1.0
    _met: float = 0.0
    _missed: float = 0.0
    _since: float | None = None

    def record(self, now: float, met: bool, allowed: float) -> None:
        """Counts one request; `allowed` is the share that may miss, 0 to 1."""
        if met:
            self._met += 1
        else:
            self._missed += 1
        if self._since is None:
            self._since = now
        if now - self._since >= self.period:
            self._move(now - self._since, allowed)
            self._since = now

    def at(self, now: float) -> float:
        """The margin, relaxed by the quiet since the last request."""
        if self.value == 1.0 or self._since is None or now - self._since <= self.window:
            return self.value
        return 1 + (self.value - 1) * exp((self._since + self.window - now) / self.quiet)

    def _move(self, elapsed: float, allowed: float) -> None:
        total = self._met + self._missed
        expected = allowed * total
        if self._missed > expected + 2 * sqrt(expected) + 1:
            self.value = min(self.value * self.rise, self.highest)
            self._met = self._missed = 0.0
            return
        if self._missed <= expected / 2:
            self.value = 1 + (self.value - 1) * exp(-elapsed / self.quiet)
            if self.value < 1.001:
                self.value = 1.0
        fade = exp(-elapsed / self.window)
        self._met *= fade
        self._missed *= fade

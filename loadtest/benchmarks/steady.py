"""Runs that are compared, on a machine whose speed may change between them.

Its speed is measured before and after each run, relative to when the load was calibrated. A run that met another
machine is repeated, and of several the one with the steadiest machine counts, whatever it showed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from loadtest.benchmarks.contender import Say


@dataclass(slots=True)
class SteadyRuns:
    """`measure` gives the speed now, 1 being that of the calibration; it may be `tolerance` off, else a run is
    repeated up to `repeats` times."""

    measure: Callable[[], float]
    tolerance: float
    repeats: int
    _last: float | None = None

    def of(self, run: Callable[[], dict[str, Any]], say: Say) -> dict[str, Any]:
        """What a run gives, with the `speed` before and after it, and how many `attempts` there were; what it raises is
        not caught."""
        attempts: list[dict[str, Any]] = []
        while True:
            attempts.append(self._around(run))
            before, after = attempts[-1]["speed"]
            steady = unsteadiness(attempts[-1]["speed"]) <= self.tolerance
            if not steady:
                say(f"    the machine's speed was {before:.2f} before and {after:.2f} after it, of what was calibrated")
            if steady or len(attempts) > self.repeats:
                break
        best = min(attempts, key=lambda attempt: unsteadiness(attempt["speed"]))
        return {**best, "attempts": len(attempts)}

    def _around(self, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        before = self.measure() if self._last is None else self._last
        # After a run that fails, it is measured anew.
        self._last = None
        result = run()
        self._last = self.measure()
        return {**result, "speed": [before, self._last]}


def unsteadiness(speeds: Sequence[float]) -> float:
    """By how much the speeds are off 1 at most."""
    return max(abs(speed - 1) for speed in speeds)

"""Load shapes: how many requests a second are to arrive, over time. Pure arithmetic, seconds and arrivals per second.

A curve is a row of phases in each of which the rate is linear. That covers steps and ramps exactly and a day well
enough, and its integral has a closed inverse: the time by which a given number of arrivals is expected.

>>> spike(base=10, peak=100, before=5, seconds=2, after=5).expected
300.0
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

DAY_HOURS = 24


@dataclass(frozen=True, slots=True)
class Phase:
    """`seconds` in which the rate goes from `first` to `last` along a line. Raises `ValueError`."""

    name: str
    seconds: float
    first: float
    last: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.seconds) and self.seconds > 0):
            raise ValueError(f"phase {self.name}: its length must be above 0 s, got {self.seconds}")
        if not all(math.isfinite(rate) and rate >= 0 for rate in (self.first, self.last)):
            raise ValueError(f"phase {self.name}: a rate must be 0 or more, got {self.first} and {self.last}")

    @property
    def expected(self) -> float:
        """Arrivals that the phase is expected to have."""
        return self.seconds * (self.first + self.last) / 2


@dataclass(frozen=True, slots=True)
class Span:
    """Where a phase lies in time: `start` belongs to it, `end` does not. Spans of one name are reported as one."""

    name: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Curve:
    """Phases, one after the other. Raises `ValueError` where nothing would ever arrive."""

    phases: tuple[Phase, ...]

    def __post_init__(self) -> None:
        if not self.expected > 0:
            raise ValueError("a load curve needs a rate above 0 somewhere")

    @property
    def seconds(self) -> float:
        return sum(phase.seconds for phase in self.phases)

    @property
    def expected(self) -> float:
        """Arrivals that all of it is expected to have."""
        return sum(phase.expected for phase in self.phases)

    @property
    def spans(self) -> tuple[Span, ...]:
        ends = np.cumsum([phase.seconds for phase in self.phases]).tolist()
        starts = [0.0, *ends[:-1]]
        return tuple(Span(phase.name, start, end) for phase, start, end in zip(self.phases, starts, ends, strict=True))

    def time_of(self, counts: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """The times by which so many arrivals, 0 to `expected`, are expected: the inverse of the rate's integral."""
        active = [(span.start, phase) for span, phase in zip(self.spans, self.phases, strict=True) if phase.expected]
        starts = np.array([start for start, _ in active])
        lengths = np.array([phase.seconds for _, phase in active])
        first = np.array([phase.first for _, phase in active])
        slopes = np.array([(phase.last - phase.first) / phase.seconds for _, phase in active])
        reached = np.cumsum([phase.expected for _, phase in active])
        at = np.minimum(np.searchsorted(reached, counts, side="left"), len(active) - 1)
        within = np.maximum(counts - np.concatenate(([0.0], reached[:-1]))[at], 0)
        # first·t + slope·t²/2 = within, solved in the form that stays exact where the slope is 0.
        root = first[at] + np.sqrt(np.maximum(first[at] ** 2 + 2 * slopes[at] * within, 0))
        times = np.divide(2 * within, root, out=np.zeros_like(root), where=root > 0)
        return np.asarray(starts[at] + np.minimum(times, lengths[at]))


def steady(rate: float, seconds: float) -> Curve:
    """One rate all along."""
    return Curve((Phase("steady", seconds, rate, rate),))


def ramp(first: float, last: float, seconds: float, parts: int = 4) -> Curve:
    """From one rate to another along a line, reported in `parts` phases."""
    edges = np.linspace(first, last, parts + 1).tolist()
    return Curve(
        tuple(Phase(f"ramp {part + 1}/{parts}", seconds / parts, edges[part], edges[part + 1]) for part in range(parts))
    )


def step(rates: Sequence[float], seconds: float) -> Curve:
    """Each rate for `seconds`."""
    return Curve(tuple(Phase(f"step {n}: {rate:g}/s", seconds, rate, rate) for n, rate in enumerate(rates, 1)))


def spike(base: float, peak: float, before: float, seconds: float, after: float) -> Curve:
    """A calm load, `seconds` of a high one, and the time after it."""
    return Curve(
        (Phase("before", before, base, base), Phase("spike", seconds, peak, peak), Phase("after", after, base, base))
    )


def bursts(calm: float, peak: float, burst_seconds: float, share: float, count: int, settle: float = 1.0) -> Curve:
    """`count` bursts that make up `share` of the time, calm before, between and after.

    The first `settle` seconds after each burst are a phase of their own: what is queued then is still the burst's.
    """
    if not 0 < share < 1:
        raise ValueError(f"bursts must be a share of the time between 0 and 1, got {share}")
    gap = burst_seconds * (1 / share - 1)
    if not 0 < settle < gap / 2:
        raise ValueError(f"{gap:g} s between bursts leave no room for {settle:g} s to settle")
    one = (
        Phase("calm", gap / 2, calm, calm),
        Phase("burst", burst_seconds, peak, peak),
        Phase("settling", settle, calm, calm),
        Phase("calm", gap / 2 - settle, calm, calm),
    )
    return Curve(one * count)


def diurnal(mean: float, seconds: float, swing: float = 0.8) -> Curve:
    """A day in `seconds`, hour by hour: quietest at 4, busiest at 16, between mean × (1 − swing) and (1 + swing).

    One harmonic is the least that a day's traffic has; published web traces add others that differ from site to site.
    """
    if not 0 <= swing <= 1:
        raise ValueError(f"swing must be between 0 and 1, got {swing}")
    rates = [mean * (1 - swing * math.cos(2 * math.pi * (hour - 4) / DAY_HOURS)) for hour in range(DAY_HOURS + 1)]
    return Curve(
        tuple(Phase(_part_of_day(hour), seconds / DAY_HOURS, rates[hour], rates[hour + 1]) for hour in range(DAY_HOURS))
    )


def _part_of_day(hour: int) -> str:
    return ("night", "morning", "afternoon", "evening")[hour // 6]

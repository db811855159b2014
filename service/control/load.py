"""How much work arrives, and how unevenly: a decaying average of the offered load.

>>> load = LoadEstimate()
>>> for i in range(1000):
...     load.arrive(i * 0.01, Work(fixed=0.001, scalable=0.004))
>>> round(load.expected(now=10.0, horizon=1.0).scalable, 1)
0.4
"""

from dataclasses import dataclass, field
from math import exp, log

HIGHEST_UTILISATION = 0.95
"""Even when arrivals are even, runs are not."""
LEAST_UTILISATION = 0.75
"""Less would spend quality on loads that the dense model does well."""
_TAIL = log(40) / 2
_MOST_VARIATION = 2.0
_LONGEST_GAP = 6.0
_SETTLED = 4.0


@dataclass(frozen=True, slots=True)
class Work:
    """Seconds of one executor: `fixed` whatever the level, `scalable` by the share of the dense MACs that is done."""

    fixed: float = 0.0
    scalable: float = 0.0

    def at(self, macs_ratio: float) -> float:
        return self.fixed + self.scalable * macs_ratio

    def __add__(self, other: "Work") -> "Work":
        return Work(self.fixed + other.fixed, self.scalable + other.scalable)


@dataclass(slots=True)
class LoadEstimate:
    """Work that arrives a second, refused or not; `memory` is the time constant in seconds.

    One request is no stream: its own arrival says nothing about the next, so an n-th part is taken off an average of n.
    """

    memory: float = 0.4
    variation: float = 0.0
    """Squared coefficient of variation of the gaps: 0 for even arrivals, 1 for a Poisson process."""
    memory_of_variation: int = 400
    """Arrivals."""
    _gaps: int = 0
    _since: float = field(default=float("-inf"))
    _count: float = 0.0
    _fixed: float = 0.0
    _scalable: float = 0.0
    _last: float = field(default=float("-inf"))

    def arrive(self, now: float, work: Work) -> None:
        gap = max(now - self._last, 0.0)
        decay = exp(-gap / self.memory)
        if self._count * decay < 1:
            self._since = now
        elif now - self._since > _SETTLED * self.memory:
            self._vary(gap)
        self._count = self._count * decay + 1
        self._fixed = self._fixed * decay + work.fixed
        self._scalable = self._scalable * decay + work.scalable
        self._last = max(now, self._last)

    def rate(self, now: float) -> float:
        """Arrivals a second."""
        return max(self._count * exp(min(self._last - now, 0.0) / self.memory) - 1, 0.0) / self.memory

    def expected(self, now: float, horizon: float) -> Work:
        """The work that arrives within the next `horizon` seconds if all stays as it is."""
        decay = exp(min(self._last - now, 0.0) / self.memory)
        if self._count * decay <= 1:
            return Work()
        scale = (1 - 1 / (self._count * decay)) * decay / self.memory * horizon
        return Work(self._fixed * scale, self._scalable * scale)

    def _vary(self, gap: float) -> None:
        # Gaps are taken relative to the rate of their own time, so that a change of load is not taken for variation.
        relative = min(gap * (self._count - 0.5) / self.memory, _LONGEST_GAP)
        self._gaps = min(self._gaps + 1, self.memory_of_variation)
        self.variation += ((relative - 1) ** 2 - self.variation) / self._gaps


def utilisation(variation: float, arrivals: float) -> float:
    """The share of capacity to plan for a load that goes on, when `arrivals` requests are expected in the time that one
    may take.

    The waits of a queue in heavy traffic have an exponential tail (Kingman 1962): so much is left free that one in
    forty would wait longer than it may. What random arrivals need beyond that is a higher level for a moment; with
    less left free, the level would swing all the time with every clump of arrivals.
    """
    free = _TAIL * min(variation, _MOST_VARIATION) / max(arrivals, 1e-9)
    return max(min(1 / (1 + free), HIGHEST_UTILISATION), LEAST_UTILISATION)

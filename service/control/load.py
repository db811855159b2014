"""How much work arrives: a decaying average of the offered load.

>>> load = LoadEstimate()
>>> for i in range(1000):
...     load.arrive(i * 0.01, Work(fixed=0.001, scalable=0.004))
>>> round(load.expected(now=10.0, horizon=1.0).scalable, 1)
0.4
"""

from dataclasses import dataclass, field
from math import exp


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

    memory: float = 0.5
    _count: float = 0.0
    _fixed: float = 0.0
    _scalable: float = 0.0
    _last: float = field(default=float("-inf"))

    def arrive(self, now: float, work: Work) -> None:
        decay = exp(min(self._last - now, 0.0) / self.memory)
        self._count = self._count * decay + 1
        self._fixed = self._fixed * decay + work.fixed
        self._scalable = self._scalable * decay + work.scalable
        self._last = max(now, self._last)

    def expected(self, now: float, horizon: float) -> Work:
        """The work that arrives within the next `horizon` seconds if all stays as it is."""
        decay = exp(min(self._last - now, 0.0) / self.memory)
        if self._count * decay <= 1:
            return Work()
        scale = (1 - 1 / (self._count * decay)) * decay / self.memory * horizon
        return Work(self._fixed * scale, self._scalable * scale)

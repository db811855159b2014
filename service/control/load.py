"""How much work arrives, and how unevenly.

>>> load = LoadEstimate()
>>> for i in range(1000):
...     load.arrive(i * 0.01, Work(fixed=0.001, scalable=0.004))
>>> round(load.offered(now=10.0).scalable, 1)
0.4
"""

from dataclasses import dataclass, field
from itertools import pairwise
from math import exp, inf, log, sqrt

HIGHEST_UTILISATION = 0.95
"""Even when arrivals are even, runs are not."""
LEAST_UTILISATION = 0.64
"""Less would spend quality on loads that the dense model does well. With more, clumps queue so often that the level of
what waits behind them is most of what the level ever moves.
"""
LEFT_TO_WAIT = 0.8
"""The share of the variation that comes to waiting. Clumps that queue are worked off at a higher level, by the rule
that looks at those behind. Found by simulation: with less the tail passes the room that a plan keeps, with more a lower
level would do as well.
"""
_MOST_VARIATION = 3.0
_LONGEST_GAP = 10.0
_NEGLIGIBLE = 1e-6
_SHORTEST = 0.2
_LONGER = 4
_AVERAGES = 4
_SURE = 4.0
"""Standard deviations."""
_WORTH = 0.25
_SOONEST = 0.005
"""Seconds: arrivals that follow one another faster are not each compared with the averages."""
_FEWEST = 20


@dataclass(slots=True)
class Work:
    """Seconds of one executor: `fixed` whatever the level, `scalable` by the share of the dense MACs that is done.

    Never changed. Not frozen, as nothing here is that each request makes anew: freezing doubles what making one costs.
    """

    fixed: float = 0.0
    scalable: float = 0.0

    def at(self, macs_ratio: float) -> float:
        return self.fixed + self.scalable * macs_ratio

    def __add__(self, other: "Work") -> "Work":
        return Work(self.fixed + other.fixed, self.scalable + other.scalable)


@dataclass(slots=True)
class Average:
    """Sums of what arrived, each arrival fading with the time constant `memory`, seconds."""

    memory: float
    count: float = 0.0
    fixed: float = 0.0
    scalable: float = 0.0
    square: float = 0.0
    """Of each request's work."""
    covered: float = 0.0
    """Seconds of time in the sums, faded like them."""

    def arrive(self, decay: float, work: Work, square: float) -> None:
        """Fades what is there to the share `decay` of it, and adds a request; `square` is of its work when dense."""
        self.count = self.count * decay + 1
        self.fixed = self.fixed * decay + work.fixed
        self.scalable = self.scalable * decay + work.scalable
        self.square = self.square * decay + square
        self.covered += (1 - decay) * (self.memory - self.covered)

    def restart(self, recent: "Average") -> None:
        """Goes on from a shorter average, whose sums are worth little: some of them are from before the change."""
        self.count, self.fixed, self.scalable = _WORTH * recent.count, _WORTH * recent.fixed, _WORTH * recent.scalable
        self.square, self.covered = _WORTH * recent.square, _WORTH * recent.covered


@dataclass(slots=True)
class LoadEstimate:
    """Work that arrives a second, refused or not, as an average over the time since the load last changed.

    There are averages over times that go by powers of four. Where one is contradicted by the next shorter one, that is
    differs by more than chance and the unevenness of the arrivals explain, the load has changed, and it starts anew.
    So the longest, which is what is told, stands still while the load does and follows a burst within a fraction of a
    second.
    """

    variation: float = 0.0
    """Squared coefficient of variation of the gaps: 0 for even arrivals, 1 for a Poisson process."""
    memory_of_variation: int = 1000
    """Arrivals."""
    averages: tuple[Average, ...] = field(
        default_factory=lambda: tuple(Average(_SHORTEST * _LONGER**n) for n in range(_AVERAGES))
    )
    _last: float | None = None
    _compared: float = -inf
    _seen: int = 0

    def arrive(self, now: float, work: Work) -> None:
        decay = 1.0
        if self._last is None:
            self._last = now
        else:
            gap = max(now - self._last, 0.0)
            self._vary(gap)
            self._last += gap
            decay = exp(-gap / self.averages[-1].memory)
        self._seen = min(self._seen + 1, self.memory_of_variation)
        square = (work.fixed + work.scalable) ** 2
        for average in reversed(self.averages):
            average.arrive(decay, work, square)
            decay = decay**_LONGER
        if self._last >= self._compared + _SOONEST:
            self._compared = self._last
            for shorter, longer in pairwise(self.averages):
                if self._contradict(shorter, longer):
                    longer.restart(shorter)

    def offered(self, now: float, within: float = 0.0) -> Work:
        """Work that arrives a second, where there are `within` seconds to do it: a burst that is shorter than that is
        spread over it.
        """
        known, longest = self._known(now, within), self.averages[-1]
        return Work(longest.fixed * known, longest.scalable * known)

    def rate(self, now: float) -> float:
        """Arrivals a second."""
        return self.averages[-1].count * self._known(now)

    @property
    def uncertainty(self) -> float:
        """The standard deviation of the rate, relative to it: it is told from so many arrivals, that uneven."""
        return sqrt(max(self.variation, 1.0) / max(self.averages[-1].count, 1.0))

    def _known(self, now: float, within: float = 0.0) -> float:
        """What the longest sums are to be multiplied by for a rate over `within` seconds at least.

        One request is no stream: its own arrival says nothing about the next, so an n-th part is taken off n. And a
        few clumped ones are no lasting load.
        """
        longest = self.averages[-1]
        if self._last is None or longest.count == 0:
            return 0.0
        # The sums are those of the last arrival, and have faded since.
        decay = exp(min(self._last - now, 0.0) / longest.memory)
        count = longest.count * decay
        if count <= 1:
            return 0.0
        covered = longest.memory - decay * (longest.memory - longest.covered)
        return decay * (1 - 1 / count) / max(covered, min(within, longest.memory), _SHORTEST / 4)

    def _contradict(self, shorter: Average, longer: Average) -> bool:
        if shorter.covered <= 0 or longer.covered <= 0:
            return False
        rate = (longer.fixed + longer.scalable) / longer.covered
        seen = (shorter.fixed + shorter.scalable) / shorter.covered
        # Of work that arrives unevenly, each request of its own size: the variance of a compound process.
        each = max(self.variation, 1.0) * longer.square / longer.covered
        return (seen - rate) ** 2 > _SURE**2 * each * (0.5 / shorter.memory + 0.5 / longer.covered)

    def _vary(self, gap: float) -> None:
        # Gaps are taken relative to the rate of their own time, so that a change of load is not taken for variation.
        own = next((average for average in self.averages if average.count > _FEWEST), None)
        if own is not None:
            relative = min(gap * own.count / own.covered, _LONGEST_GAP)
            self.variation += ((relative - 1) ** 2 - self.variation) / max(self._seen, _FEWEST)


def utilisation(
    variation: float,
    arrivals: float,
    allowed: float,
    executors: int = 1,
    margin: float = 1.0,
    uncertainty: float = 0.0,
) -> float:
    """The share of capacity that a load which goes on may use, when `arrivals` requests are expected within the time
    that one may take and the share `allowed` of them may take longer.

    `variation` is the squared coefficient of variation of gaps and runs together. The waits of a queue have an
    exponential tail (Kingman 1962): P(wait > t) = exp(-2 (1 - u) t / (u s variation)), in which a run takes
    s = u / rate on all executors together. A safety margin divides it.
    By as much as the load's `uncertainty` may it seem more than the dense model does well before that is believed.
    """
    waiting = max(arrivals - executors, 0.5)
    need = log(1 / allowed) * min(variation, _MOST_VARIATION) / (2 * waiting)
    share = 1.0 if need < _NEGLIGIBLE else (sqrt(1 + 4 * need) - 1) / (2 * need)
    return max(min(share, HIGHEST_UTILISATION) / margin, LEAST_UTILISATION * (1 + uncertainty))

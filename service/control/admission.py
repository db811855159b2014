"""Degrade, then refuse: a request is turned away only when even the quality floor's level would miss its deadline."""

from dataclasses import dataclass

LONGEST_RETRY = 60.0
_IMPOSSIBLE_ALLOWANCE = 4.0


@dataclass(frozen=True, slots=True)
class Target:
    """The latency, in seconds, that a request is planned for, and whether that is the one asked for.

    A latency below what the ceiling's level takes alone on the server cannot be met. It is said and not chased:
    refusing every request would turn a wrong number into an outage, and a `Retry-After` would be untrue. So the plan is
    for the least that can be kept.
    """

    latency: float
    attainable: bool


def plan(asked: float, alone: float, reserve: float = 0.0) -> Target:
    """`asked` is the SLO's latency, `alone` the upper time of the request at its ceiling on an idle server, and
    `reserve` what has to be left after its run; seconds.
    """
    if alone + reserve <= asked:
        return Target(asked - reserve, True)
    return Target(alone * _IMPOSSIBLE_ALLOWANCE, False)


@dataclass(slots=True)
class Returns:
    """When the refused may come back: a true `Retry-After`.

    Nobody knows when an overload ends. It is taken to go on for `patience` times as long as it has gone on, and for
    `shortest` seconds at least; one that refused nobody for `forgotten` seconds is over. And the refused must not all
    come at once: every refusal takes a place behind the earlier ones, in the capacity that arrivals leave free, and is
    told the time until that place.
    """

    shortest: float = 1.0
    patience: float = 3.0
    forgotten: float = 5.0
    least_free: float = 0.1
    """The share of capacity that those who come back are taken to have, however much else arrives."""
    _since: float = 0.0
    _last: float = float("-inf")
    _taken_until: float = 0.0

    def place(self, now: float, *, late_by: float, capacity_seconds: float, utilisation: float) -> float:
        """Seconds, at most `LONGEST_RETRY`, after which a request like the one refused would be in time.

        `late_by` is what it would have missed its deadline by and `capacity_seconds` its mean run over the number of
        executors; `utilisation` is the offered load, 1 being all of the capacity; all with every request at its
        ceiling.
        """
        if now - self._last > self.forgotten:
            self._since = now
        self._last = now
        free = max(1 - utilisation, self.least_free)
        wait = max(late_by / free, self.shortest, self.patience * (now - self._since))
        place = min(max(now + wait, self._taken_until), now + LONGEST_RETRY)
        self._taken_until = place + capacity_seconds / free
        return place - now

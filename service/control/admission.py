"""Degrade, then refuse: a request is turned away only when even the quality floor's level would miss its deadline."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import ceil

ROOM = 0.12
"""The share of the time that may be spent waiting which the plan leaves unused: what runs take longer than predicted,
and stalls, go into it before they go past the deadline.
"""
_IMPOSSIBLE_ALLOWANCE = 4.0
_MEMORY = 33.0
"""Promises whose end is remembered: whether clients come back changes with who they are."""
_PRIOR = 2.0
"""What the share that is presumed at first counts for, in promises."""
_ROUNDING = 1 + 1e-9


@dataclass(slots=True)
class Target:
    """By when a request has to be done at the latest, and by when it is planned to be: seconds after its arrival.

    A latency below what the ceiling's level takes alone on the server cannot be met. It is said and not chased:
    refusing every request would turn a wrong number into an outage, and a `Retry-After` would be untrue. So the plan is
    for the least that can be kept.
    """

    latency: float
    planned: float
    attainable: bool


def plan(asked: float, alone: float, reserve: float = 0.0) -> Target:
    """`asked` is the SLO's latency, `alone` the upper time of the request at its ceiling on an idle server, and
    `reserve` what has to be left after its run; seconds.
    """
    latency = asked - reserve
    if alone <= latency:
        return Target(latency, latency - ROOM * (latency - alone), True)
    return Target(alone * _IMPOSSIBLE_ALLOWANCE, alone * _IMPOSSIBLE_ALLOWANCE, False)


@dataclass(slots=True)
class Promise:
    """That a request like the one refused is served when it comes back at `at`; so many seconds are kept for it."""

    at: float
    seconds: float
    key: Hashable


@dataclass(slots=True)
class Promises:
    """When the refused may come back: a `Retry-After` that stays true while the overload lasts.

    As long as more arrives than the ceiling's level can serve, no moment is good for everybody. So a refused request is
    given a place in a timetable that hands out no more than `share` of the capacity at any time; new requests are let
    in beside those that are about to come back, and one that does come back goes before the new ones. `key` is what a
    request is known by when it returns. A place is a whole number of seconds away, since the header knows no others.

    Not everyone comes back. What is kept free is what was promised times the share of the promises that were `taken`.
    """

    share: float = 0.5
    slot: float = 0.002
    longest: int = 600
    early: float = 0.05
    late: float = 1.0
    """Seconds around the moment told in which a request counts as the one that was told so."""
    taken: float = 0.5
    _booked: dict[int, float] = field(default_factory=dict)
    """Of each slot of time, the seconds that were ever promised."""
    _kept: dict[int, float] = field(default_factory=dict)
    """And those whose requests have not come back yet."""
    _coming: list[tuple[float, int, Promise]] = field(default_factory=list)
    _open: dict[Hashable, list[Promise]] = field(default_factory=dict)
    _first: dict[int, int] = field(default_factory=dict)
    """Of each phase of a second, the first slot that may have room: none before it will have any again."""
    _given: int = 0
    _ended: int = 0
    _past: int = 0

    @property
    def any(self) -> bool:
        return bool(self._open)

    def give(self, now: float, key: Hashable, seconds: float, late_by: float = 0.0) -> int:
        """Whole seconds after which a request that takes `seconds` of the server, and would be `late_by` late now,
        will be served; `longest` where everything until then is promised.
        """
        self._forget(now)
        room = self.share * self.slot
        for wait in range(self._earliest(now, max(ceil(late_by), 1), room), self.longest):
            slot = int((now + wait) / self.slot)
            if self._booked.get(slot, 0.0) + min(seconds, room) <= room * _ROUNDING:
                self._kept[slot] = self._kept.get(slot, 0.0) + seconds
                promise = Promise(now + wait, seconds, key)
                self._given += 1
                heappush(self._coming, (promise.at, self._given, promise))
                self._open.setdefault(key, []).append(promise)
                while seconds > 0:
                    part = min(seconds, room)
                    self._booked[slot] = self._booked.get(slot, 0.0) + part
                    seconds, slot = seconds - part, slot + 1
                return wait
        return self.longest

    def claim(self, now: float, key: Hashable) -> bool:
        """Whether a request is one that comes back when it was told to; its promise is used up."""
        self._forget(now)
        for promise in self._open.get(key, ()):
            if promise.at <= now + self.early:
                self._close(promise)
                self._learn(1.0)
                return True
        return False

    def kept(self, now: float, until: float) -> float:
        """Seconds that are to be left for those who come back until then."""
        slots = range(int((now - self.early) / self.slot), int(until / self.slot) + 1)
        return self.taken * sum(self._kept.get(slot, 0.0) for slot in slots)

    def _earliest(self, now: float, wait: int, room: float) -> int:
        """The first wait from this one on whose slot is not full."""
        slot, second = int((now + wait) / self.slot), round(1 / self.slot)
        first = max(self._first.get(slot % second, 0), slot)
        while self._booked.get(first, 0.0) * _ROUNDING >= room:
            first += second
        self._first[slot % second] = first
        return wait + (first - slot) // second

    def _close(self, promise: Promise) -> None:
        self._kept[int(promise.at / self.slot)] -= promise.seconds
        same = self._open[promise.key]
        same.remove(promise)
        if not same:
            del self._open[promise.key]

    def _learn(self, came: float) -> None:
        """One that was told so came back, 1, or did not, 0."""
        self._ended += 1
        self.taken += (came - self.taken) / min(self._ended + _PRIOR, _MEMORY)

    def _forget(self, now: float) -> None:
        while self._coming and self._coming[0][0] < now - self.late:
            promise = heappop(self._coming)[2]
            if promise in self._open.get(promise.key, ()):
                self._close(promise)
                self._learn(0.0)
        past = int((now - 2 * self.late) / self.slot)
        for slot in range(max(self._past, past - 1000), past):
            self._booked.pop(slot, None)
            self._kept.pop(slot, None)
        self._past = max(self._past, past)
        if not self._coming:
            self._first.clear()
            self._booked.clear()
            self._kept.clear()

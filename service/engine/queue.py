"""Requests that wait: the earliest deadline first, within priority. Not locked: it belongs to the scheduler."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from itertools import count, islice
from math import inf

from service.control.level import Demand
from service.control.load import Work
from service.engine.entry import Entry

_Key = tuple[int, float, float]


class Queue:
    """A sorted list: a queue is short, or its requests are refused, and prefix sums over it are what admission asks
    for.
    """

    def __init__(self) -> None:
        self._entries: list[tuple[_Key, Entry]] = []
        self._keys: dict[Entry, _Key] = {}
        self._sequence = count()
        # Of all that wait, so that a long queue costs no more to look at than a short one.
        self._least = self._fixed = self._scalable = 0.0
        self._planned: list[float] = []

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return (entry for _, entry in self._entries)

    @property
    def first(self) -> Entry | None:
        """The next to be taken; None when none waits."""
        return self._entries[0][1] if self._entries else None

    @property
    def work(self) -> Work:
        """Of all that wait."""
        return Work(max(self._fixed, 0.0), max(self._scalable, 0.0))

    @property
    def planned(self) -> float:
        """When the first of all that wait, in any order, is planned to be done; infinite when none waits."""
        return self._planned[0] if self._planned else inf

    def push(self, entry: Entry) -> None:
        key = (entry.request.options.urgency, entry.due, next(self._sequence))
        insort(self._entries, (key, entry))
        insort(self._planned, entry.planned)
        self._keys[entry] = key
        self._least += entry.least
        self._fixed += entry.work.fixed
        self._scalable += entry.work.scalable

    def pop(self) -> Entry | None:
        """The next to be taken, dead or alive; None when none waits."""
        if not self._entries:
            return None
        _, entry = self._entries.pop(0)
        self._forget(entry)
        return entry

    def remove(self, entry: Entry) -> bool:
        """Takes an entry out of its place; whether it was there."""
        key = self._keys.get(entry)
        if key is None:
            return False
        del self._entries[bisect_left(self._entries, (key, entry))]
        self._forget(entry)
        return True

    def least_ahead(self, urgency: int, due: float) -> float:
        """Seconds of one executor that those ahead of such a request take, each at its ceiling."""
        key = (urgency, due, inf)
        if not self._entries or self._entries[-1][0] <= key:
            return self._least
        place = bisect_right(self._entries, key, key=lambda item: item[0])
        return sum(entry.least for _, entry in islice(self._entries, place))

    def demands(self, now: float, limit: int) -> Iterator[Demand]:
        """The first that wait, in order, and all others as one: by when the last of them is to be done."""
        fixed = scalable = 0.0
        for _, entry in islice(self._entries, limit):
            fixed += entry.work.fixed
            scalable += entry.work.scalable
            yield Demand(entry.planned - now, entry.work)
        if len(self._entries) > limit:
            rest = Work(max(self._fixed - fixed, 0.0), max(self._scalable - scalable, 0.0))
            yield Demand(self._entries[-1][1].planned - now, rest)

    def _forget(self, entry: Entry) -> None:
        del self._keys[entry]
        del self._planned[bisect_left(self._planned, entry.planned)]
        self._least -= entry.least
        self._fixed -= entry.work.fixed
        self._scalable -= entry.work.scalable
        if not self._entries:
            # Exactly 0: rounding must not add up over days.
            self._least = self._fixed = self._scalable = 0.0

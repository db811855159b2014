"""The engine's rules in virtual time: arrivals in, what became of them out. Nothing sleeps, and no thread runs.

`Dispatch` and `HostedModel` are those of the server; what is simulated is the clock, the executors and the clients.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from heapq import heappop, heappush
from itertools import count

import numpy as np

from models.model import GateContext
from service.engine.dispatch import Assignment, Dispatch
from service.engine.entry import Entry, Ran
from service.engine.hosted import HostedModel
from service.engine.request import Request, RequestOptions
from service.errors import Expired, Refused, ServiceError

RunTime = Callable[[GateContext], float]
"""Seconds of a run, by its level and MACs."""
Event = tuple[float, Callable[[], object]]
"""A time, and what is done then: a change of the SLO, say."""


@dataclass(frozen=True, slots=True)
class Served:
    """`arrival` and `finished` are seconds of virtual time; `attempt` counts from 0."""

    arrival: float
    finished: float
    level: float
    quality: float
    met: bool
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Lost:
    """`at` is when the client was told."""

    arrival: float
    at: float
    error: ServiceError
    attempt: int = 0


Outcome = Served | Lost


def requests_at(
    times: Iterable[float], model: str = "simulated", options: RequestOptions | None = None, items: int = 1
) -> Iterator[Request]:
    """A request at each of the times, in order."""
    options = options or RequestOptions()
    for number, time in enumerate(times):
        yield Request("", model, {"item": np.full(items, number, np.uint32)}, float(time), options)


class Simulation:
    """One run of the rules. `returns` is how many times a refused client comes back when it was told to.

    An outcome is kept for every attempt of a client.
    """

    def __init__(
        self,
        hosted: HostedModel,
        run_time: RunTime,
        executors: int = 1,
        queue_limit: int = 1024,
        returns: int = 0,
    ) -> None:
        self.now = 0.0
        self.outcomes: list[Outcome] = []
        self._hosted = hosted
        self._run_time = run_time
        self._returns = returns
        self._attempts: dict[Entry, int] = {}
        self._dispatch: Dispatch[int] = Dispatch(executors, queue_limit, 0.0, self._drop)
        self._free = list(range(executors))
        self._order = count()
        self._agenda: list[tuple[float, int, Callable[[], object]]] = []

    def run(self, requests: Iterable[Request], events: Iterable[Event] = ()) -> list[Outcome]:
        """Runs the requests, which are in order of arrival, to their end."""
        for at, action in events:
            self._at(at, action)
        agenda, coming = self._agenda, iter(requests)
        request = next(coming, None)
        while agenda or request is not None:
            if request is not None and (not agenda or request.arrival < agenda[0][0]):
                self.now = request.arrival
                self._arrive(request, 0)
                request = next(coming, None)
            else:
                self.now, _, action = heappop(agenda)
                action()
            if self._free:
                self._start()
        return self.outcomes

    def _at(self, time: float, action: Callable[[], object]) -> None:
        heappush(self._agenda, (time, next(self._order), action))

    def _arrive(self, request: Request, attempt: int) -> None:
        macs = self._hosted.model.dense_macs(request.inputs)
        try:
            entry = self._dispatch.admit(self.now, self._hosted, request, macs, idle=bool(self._free))
        except (Refused, Expired) as error:
            self.outcomes.append(Lost(request.arrival, self.now, error, attempt))
            if isinstance(error, Refused) and attempt < self._returns:
                again = replace(request, arrival=self.now + error.retry_after_seconds)
                self._at(again.arrival, partial(self._arrive, again, attempt + 1))
            return
        if attempt:
            self._attempts[entry] = attempt

    def _start(self) -> None:
        while self._free:
            task = self._dispatch.take(self.now, self._free[-1], spare=len(self._free) > 1)
            if task is None:
                return
            assert isinstance(task, Assignment), "no shadow runs are simulated"
            executor, context = self._free.pop(), GateContext(task.level)
            self._hosted.model.run(task.entry.request.inputs, context)
            self._at(self.now + self._run_time(context), partial(self._end, executor, task, context))

    def _end(self, executor: int, task: Assignment, context: GateContext) -> None:
        entry = task.entry
        quality = self._hosted.dial.quality(task.level)
        ran = Ran({}, context, quality, task.since, task.taken, task.taken, self.now)
        self._free.append(executor)
        self._dispatch.ended(self.now, executor)
        self._dispatch.ran(entry, ran)
        try:
            met = self._dispatch.served(self.now, entry, ran).slo_met
        except Expired as error:
            self._drop(entry, error)
            return
        attempt = self._attempts.pop(entry, 0)
        self.outcomes.append(Served(entry.request.arrival, self.now, task.level, quality, met, attempt))

    def _drop(self, entry: Entry, error: ServiceError) -> None:
        self._dispatch.failed(self.now, entry, error)
        self.outcomes.append(Lost(entry.request.arrival, self.now, error, self._attempts.pop(entry, 0)))

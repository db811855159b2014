"""The engine's rules in virtual time: arrivals in, what became of them out. Nothing sleeps."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count

from models.model import GateContext
from service.engine.dispatch import Assignment, Dispatch
from service.engine.entry import Ran
from service.engine.hosted import HostedModel
from service.engine.request import Request
from service.engine.shadow import Shadow
from service.errors import Refused, ServiceError


@dataclass(frozen=True)
class Served:
    arrival: float
    finished: float
    level: float
    met: bool


@dataclass(frozen=True)
class Lost:
    arrival: float
    at: float
    error: ServiceError


def simulate(
    hosted: HostedModel,
    requests: Iterable[Request],
    seconds: Callable[[float], float],
    executors: int = 1,
    events: Iterable[tuple[float, Callable[[], object]]] = (),
    queue_limit: int = 1024,
) -> list[Served | Lost]:
    """Runs the requests, which are in order of arrival; a run takes `seconds(share of the dense MACs done)` per item.

    `events` are (time, what is done then).
    """
    results: list[Served | Lost] = []
    dispatch: Dispatch[int] = Dispatch(
        executors, queue_limit, 0.0, lambda entry, error: results.append(Lost(entry.request.arrival, now, error))
    )
    order = count()
    agenda: list[tuple[float, int, Callable[[], None]]] = []
    free = set(range(executors))
    now = 0.0

    def start() -> None:
        while free:
            task = dispatch.take(now, executor := free.pop(), spare=bool(free))
            if not isinstance(task, Assignment):
                assert not isinstance(task, Shadow)
                free.add(executor)
                return
            heappush(agenda, (now + duration(task), next(order), lambda e=executor, t=task: end(e, t)))

    def duration(task: Assignment) -> float:
        return seconds(hosted.profile.at(task.level).macs_ratio) * len(task.entry.request.inputs["x"])

    def end(executor: int, task: Assignment) -> None:
        entry = task.entry
        context = GateContext(task.level, macs=entry.macs)
        context.macs_skipped = round(entry.macs * (1 - hosted.profile.at(task.level).macs_ratio))
        ran = Ran({}, context, 1.0, task.taken, task.taken, now)
        dispatch.ended(executor)
        dispatch.ran(entry, ran)
        finished = dispatch.served(now, entry, ran)
        results.append(Served(entry.request.arrival, now, task.level, finished.slo_met))
        free.add(executor)

    def arrive(request: Request) -> None:
        macs = hosted.model.dense_macs(request.inputs)
        try:
            dispatch.admit(now, hosted, request, macs, idle=bool(free))
        except Refused as error:
            results.append(Lost(now, now, error))

    for at, action in events:
        heappush(agenda, (at, next(order), action))
    for request in requests:
        heappush(agenda, (request.arrival, next(order), lambda r=request: arrive(r)))
    while agenda:
        now, _, action = heappop(agenda)
        action()
        start()
    return results


def learned(hosted: HostedModel, seconds: Callable[[float], float], macs: int, runs: int = 30) -> HostedModel:
    """The model after a warm-up at a few levels, as the engine gives it when it is loaded."""
    for _ in range(runs):
        for level in (0.0, 0.5, 1.0):
            share = hosted.profile.at(level).macs_ratio
            hosted.latency.observe(macs * share, seconds(share))
    hosted.typical_macs = macs
    return hosted

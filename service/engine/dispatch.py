"""Which request runs next, at what level, and which are turned away: the engine's state and rules, with time as an
argument.

No thread, lock, clock or event loop: the scheduler drives it under its lock in real time, and a simulation can in
virtual time.
"""

import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from math import inf
from typing import Generic, TypeVar

from service.control.admission import Promises
from service.control.level import Demand, choose_level, fits_dense, share_in_time
from service.control.load import LEAST_UTILISATION, LEFT_TO_WAIT, LoadEstimate, Work, utilisation
from service.engine.entry import Entry, Ran, Reply
from service.engine.hosted import HostedModel
from service.engine.queue import Queue
from service.engine.request import Finished, Request
from service.engine.shadow import RequestShadow, Shadow, Shadows
from service.errors import Expired, Internal, Refused, ServiceError

log = logging.getLogger(__name__)

LOOK_AHEAD = 64
"""Waiting requests whose deadlines are looked at one by one when a level is chosen; those behind count as one."""

PLANNED_MISSES = 0.5
"""Of those that the SLO's percentile allows, the share that a lasting load is planned to make. The rest is for what no
plan knows of. A tail that is held at the SLO itself fails whoever judges it by a sample, half of the time.
"""

E = TypeVar("E", bound=Hashable)


@dataclass(slots=True)
class Assignment:
    """A request to run, and the level to run it at. It occupies the executor from `since` on: when that was free and
    the request there.
    """

    entry: Entry
    level: float
    taken: float
    since: float


@dataclass(slots=True)
class Running:
    """What an executor does: a request, a step of a language model (`entry` is None), or a shadow run (`model` is ""
    too). `until` is the predicted end.
    """

    entry: Entry | None
    since: float
    until: float
    model: str = ""


class Dispatch(Generic[E]):
    """`E` is what names an executor. `answer` is called with requests that are dropped from the queue, and the error.

    `now` is seconds on the clock of `Request.arrival`, and never goes back.
    """

    def __init__(
        self, executors: int, queue_limit: int, shadow_share: float, answer: Callable[[Entry, ServiceError], None]
    ) -> None:
        self.running: dict[E, Running] = {}
        self._freed: dict[E, float] = {}
        """When each executor's last run was over."""
        self._executors = executors
        self._queue_limit = queue_limit
        self._answer = answer
        self._queue = Queue()
        self._load = LoadEstimate()
        self._promises = Promises()
        self._shadows = Shadows(shadow_share)

    def admit(
        self, now: float, hosted: HostedModel, request: Request, macs: int, reply: Reply = None, *, idle: bool
    ) -> Entry:
        """Queues a request; `idle`: an executor waits for it. Raises `Refused`, or `Expired` past its timeout."""
        entry = plan_entry(hosted, request, macs, now, reply)
        if entry.expires <= now:
            raise expired(entry, now)
        self._load.arrive(now, entry.work)
        if not idle:
            self._refuse_if_late(entry, now)
        self._queue.push(entry)
        hosted.waiting += 1
        return entry

    def withdraw(self, entry: Entry) -> None:
        """Nobody waits for it any more: out of the queue, if it is still there."""
        entry.withdrawn = True
        if self._queue.remove(entry):
            entry.hosted.waiting -= 1

    def laxity(self, now: float) -> float | None:
        """Seconds that the first request that waits still can, at its ceiling; None where none does."""
        first = self._queue.first
        return None if first is None else first.due - first.least - now

    def occupy(self, now: float, executor: E, until: float, model: str) -> None:
        """A free executor does something else for a model, until `ended`."""
        self._freed.pop(executor, None)
        self.running[executor] = Running(None, now, until, model)

    def take(self, now: float, executor: E, *, spare: bool) -> Assignment | Shadow | None:
        """What a free executor is to do, if anything; `spare` says that another one is free too."""
        freed = self._freed.pop(executor, now)
        while entry := self._queue.pop():
            entry.hosted.waiting -= 1
            if entry.dead(now):
                self._answer(entry, expired(entry, now))
                continue
            try:
                level = self._decide(entry, now)
            except Exception as error:
                # It is out of the queue: nobody else would answer it.
                log.exception("no level could be chosen for request %s", entry.request.id)
                self._answer(entry, Internal(f"no level could be chosen for this request: {type(error).__name__}"))
                continue
            since = max(freed, entry.admitted)
            until = since + entry.work.at(entry.hosted.dial.macs_ratio(level))
            self.running[executor] = Running(entry, now, until, entry.hosted.name)
            entry.hosted.running += 1
            return Assignment(entry, level, now, since)
        if shadow := self._shadows.take(spare):
            self.running[executor] = Running(None, now, now + shadow.seconds)
            return shadow
        return None

    def ended(self, now: float, executor: E) -> None:
        """An executor is done with what it ran."""
        self.gone(executor)
        self._freed[executor] = now

    def gone(self, executor: E) -> None:
        """An executor that runs something is given up."""
        running = self.running.pop(executor)
        if running.entry is not None:
            running.entry.hosted.running -= 1

    def ran(self, entry: Entry, ran: Ran) -> None:
        """Learns from a run, and puts its request among those that may be run again dense."""
        entry.hosted.ran(entry, ran)
        own = entry.request.options
        if ran.context.level > 0 and own.level is None and own.quality_floor is None:
            hosted = entry.hosted
            self.offer(lambda: RequestShadow(hosted, entry, ran, hosted.latency.upper(dense_macs(entry))))

    def offer(self, make: Callable[[], Shadow]) -> None:
        """Something gated, under the model's own floor, has been served and may be done again dense."""
        self._shadows.offer(make)

    def served(self, now: float, entry: Entry, ran: Ran) -> Finished:
        """Counts a request whose outputs are handed over. Raises `Expired` when that is past its timeout."""
        if now >= entry.expires:
            raise expired(entry, now)
        met = now <= entry.deadline
        entry.hosted.served(now, entry, ran)
        entry.hosted.judge(now, entry, now <= entry.deadline - entry.half_room)
        return Finished(
            request_id=entry.request.id,
            outputs=ran.outputs,
            level=ran.context.level,
            quality=ran.quality,
            context=ran.context,
            queue_seconds=ran.taken - entry.admitted,
            compute_seconds=ran.ended - ran.started,
            duration=now - entry.request.arrival,
            slo_met=met,
            slo_attainable=entry.attainable,
            taken=ran.taken,
            started=ran.started,
        )

    def failed(self, now: float, entry: Entry, error: ServiceError) -> None:
        """Counts a request that was admitted and got no outputs."""
        entry.hosted.counts.fail.add(now - entry.request.arrival)
        if isinstance(error, Expired) and now < entry.expires:
            entry.hosted.judge(now, entry, met=False)

    def sweep(self, now: float) -> None:
        """Drops what is dead though no executor came by to find it so."""
        for entry in [entry for entry in self._queue if entry.dead(now)]:
            self.withdraw(entry)
            self._answer(entry, expired(entry, now))

    def forget(self, hosted: HostedModel) -> None:
        """Gives up the shadow runs of a model."""
        self._shadows.forget(hosted)

    def clear(self, error: ServiceError) -> None:
        """Answers all that wait."""
        while entry := self._queue.pop():
            entry.hosted.waiting -= 1
            self._answer(entry, error)

    def _decide(self, entry: Entry, now: float) -> float:
        hosted = entry.hosted
        margin, tail_ratio = hosted.margin(entry.request).at(now), hosted.latency.tail_ratio
        offered, allowed = self._lasting(entry, now, margin)
        busy = self._busy(now)
        whole = Work(busy) + entry.work + self._queue.work
        waits = not fits_dense(self._queue.planned - now, whole, margin * tail_ratio)
        level = choose_level(
            hosted.profile,
            entry.ceiling,
            # A deadline that cannot be met is missed by as little as the ceiling allows.
            Demand(min(entry.due, entry.deadline) - now, entry.work),
            self._queue.demands(now, LOOK_AHEAD) if waits else (),
            offered,
            utilisation=allowed,
            pinned=entry.pinned,
            executors=self._executors,
            busy=busy,
            margin=margin,
            tail_ratio=tail_ratio,
        )
        if entry.pinned is None:
            hosted.levels.add(now, level)
        return level

    def _lasting(self, entry: Entry, now: float, margin: float) -> tuple[Work, float]:
        """The work that arrives a second, and the share of the capacity that it may take."""
        within = entry.planned - entry.request.arrival
        offered = self._load.offered(now, within)
        if offered.at(1.0) <= LEAST_UTILISATION * self._executors:
            return offered, LEAST_UTILISATION  # which all of it keeps at level 0, however uneven it is
        allowed = utilisation(
            LEFT_TO_WAIT * (self._load.variation + entry.hosted.latency.variation),
            self._load.rate(now) * within,
            PLANNED_MISSES * entry.slo.allowed_misses,
            self._executors,
            margin,
            self._load.uncertainty,
        )
        return offered, allowed

    def _refuse_if_late(self, entry: Entry, now: float) -> None:
        hosted = entry.hosted
        ahead = self._queue.least_ahead(entry.request.options.urgency, entry.due) + self._busy(now)
        own = entry.least * hosted.latency.tail_ratio
        margin, limit, kept = hosted.admission_margin(entry.request).at(now), entry.due - entry.half_room, 0.0
        if self._promises.any:
            if self._promises.claim(now, entry.request.fingerprint()):
                margin, limit = 1.0, entry.due
            else:
                kept = self._promises.kept(now, limit)
        late_by = now + margin * (ahead / self._executors + own) + kept - limit
        full = hosted.waiting >= self._queue_limit
        if not full and (late_by <= 0 or not entry.slo.shed or not hosted.latency.trusted):
            return
        # What arrives leaves the dial below its ceiling: a clump or a stall it was, that a higher level had room for.
        offered, allowed = self._lasting(entry, now, hosted.margin(entry.request).at(now))
        in_time = share_in_time(allowed * self._executors, offered.fixed, offered.scalable)
        hosted.refused(now, entry, avoidable=in_time > entry.ceiling.macs_ratio)
        seconds = margin * entry.least / self._executors
        retry = self._promises.give(now, entry.request.fingerprint(), seconds, late_by)
        late = (
            f"even at level {entry.ceiling.level:.2f} ({entry.ceiling.reason}) it would be {late_by * 1e3:.1f} ms late"
        )
        why = f"{hosted.waiting} requests wait, the most that may" if full else late
        raise Refused(f"{hosted.name!r} is overloaded: {why}; come back in {retry} s", retry)

    def free_in(self, now: float, model: str) -> float:
        """Seconds until an executor has nothing to do for other models, by what is predicted of what they run; 0 where
        one has."""
        others = [running.until for running in self.running.values() if running.model != model]
        return max(min(others) - now, 0.0) if len(others) >= self._executors else 0.0

    def _busy(self, now: float) -> float:
        busy = 0.0
        for running in self.running.values():
            busy += max(running.until - now, 0.0)
        return busy


def dense_macs(entry: Entry) -> float:
    """The multiply-accumulates of the request at level 0."""
    return entry.macs * entry.hosted.dial.macs_ratio(0.0)


def expired(entry: Entry, now: float) -> Expired:
    """What to answer for an entry that is dead at `now`."""
    waited = (now - entry.request.arrival) * 1e3
    if now >= entry.expires:
        limit = entry.request.options.timeout_us
        return Expired(f"the request's timeout of {limit} µs passed; {waited:.1f} ms after arrival")
    latency = (entry.deadline - entry.request.arrival) * 1e3
    return Expired(f"the request's deadline of {latency:g} ms cannot be met any more: it waited {waited:.1f} ms")


def plan_entry(hosted: HostedModel, request: Request, macs: int, now: float, reply: Reply) -> Entry:
    """What a request is planned to take and to be held to, with the SLO and the ceiling of `now`."""
    options, slo = request.options, hosted.slo
    ceiling = hosted.ceiling(options.quality_floor, options.level)
    work = hosted.work(macs, ceiling, options.level is not None)
    least = work.at(ceiling.macs_ratio)
    asked = hosted.latency_of(request) if options.slo_ms is None else options.slo_ms / 1e3
    target = hosted.target(asked, least)
    return Entry(
        request=request,
        hosted=hosted,
        reply=reply,
        slo=slo,
        deadline=request.arrival + asked,
        due=request.arrival + target.latency,
        planned=request.arrival + target.planned,
        attainable=target.attainable,
        ceiling=ceiling,
        macs=macs,
        work=work,
        least=least,
        admitted=now,
        expires=request.arrival + options.timeout_us / 1e6 if options.timeout_us else inf,
    )

"""The one owner of the queue, the executors and the models' run-time state: everything else asks it.

Its lock is held for microseconds, never while a model runs. The event loop admits and settles; an executor that is free
takes the next request itself, so that no turn of the event loop lies between two runs.
"""

import logging
import threading
from asyncio import Future
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import inf

from models.model import GateContext
from service.control.admission import Returns, plan
from service.control.level import Demand, choose_level
from service.control.load import LoadEstimate
from service.engine.entry import Entry, Ran
from service.engine.executor import Executor, Job
from service.engine.hosted import HostedModel
from service.engine.queue import Queue
from service.engine.request import Finished, Request
from service.engine.settings import EngineSettings
from service.engine.shadow import Shadow, Shadows
from service.errors import Expired, Internal, Refused, ServiceError

log = logging.getLogger(__name__)

LOOK_AHEAD = 64
"""Waiting requests whose deadlines are looked at one by one when a level is chosen; those behind count as work."""
HORIZON = 1.0
"""Seconds for which the present load is taken to go on."""

Deliver = Callable[["Future[Ran]", Ran | ServiceError], None]


@dataclass(slots=True)
class Running:
    """What an executor does: a request, or a shadow run. Times are the clock's."""

    entry: Entry | None
    since: float
    until: float


class Scheduler:
    """`deliver` hands a result to the event loop; it is called from any thread."""

    def __init__(self, settings: EngineSettings, clock: Callable[[], float], deliver: Deliver) -> None:
        self._settings = settings
        self._clock = clock
        self._deliver = deliver
        self._lock = threading.Lock()
        self._queue = Queue()
        self._load = LoadEstimate()
        self._returns = Returns()
        self._shadows = Shadows(settings.shadow_share)
        self._idle: list[Executor] = []
        self._running: dict[Executor, Running] = {}
        self._executors: list[Executor] = []
        self._hung: set[Executor] = set()
        self.replaced = 0

    @property
    def lock(self) -> threading.Lock:
        """Guards every `HostedModel`."""
        return self._lock

    @property
    def hung(self) -> int:
        return len(self._hung)

    def start(self) -> None:
        with self._lock:
            for _ in range(self._settings.executors):
                self._add_executor()

    def close(self, error: ServiceError) -> list[Executor]:
        """Answers all that wait or run with `error`, and retires the executors, which are returned."""
        with self._lock:
            while entry := self._queue.pop():
                entry.hosted.waiting -= 1
                self._deliver(entry.future, error)
            for running in self._running.values():
                if running.entry is not None:
                    self._deliver(running.entry.future, error)
            for executor in self._executors:
                executor.retired = True
            for executor in self._idle:
                executor.ring()
            self._idle.clear()
            return self._executors

    # The event loop's side

    def admit(self, hosted: HostedModel, request: Request, macs: int, future: "Future[Ran]") -> Entry:
        """Queues a request. Raises `Refused`, or `Expired` when its timeout has passed already."""
        now = self._clock()
        with self._lock:
            entry = self._entry(hosted, request, macs, future, now)
            if entry.expires <= now:
                raise expired(entry, now)
            self._load.arrive(now, entry.work)
            if not self._idle:
                self._refuse_if_late(entry, now)
            self._queue.push(entry)
            hosted.waiting += 1
            if self._idle:
                self._idle.pop().ring()
        return entry

    def withdraw(self, entry: Entry) -> None:
        """The client does not wait any more: out of the queue, if it is still there."""
        with self._lock:
            if self._queue.remove(entry):
                entry.hosted.waiting -= 1

    def settle(self, entry: Entry, ran: Ran) -> Finished:
        """Counts a request that ran. Raises `Expired` when its timeout has passed."""
        now = self._clock()
        if now >= entry.expires:
            raise expired(entry, now)
        met = now <= entry.deadline
        with self._lock:
            entry.hosted.served(now, entry, ran)
            entry.hosted.judge(now, entry, met)
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
        )

    def failed(self, entry: Entry, error: ServiceError) -> None:
        """Counts a request that was admitted and got no outputs."""
        now = self._clock()
        with self._lock:
            entry.hosted.counts.fail.add(now - entry.request.arrival)
            if isinstance(error, Expired) and now < entry.expires:
                entry.hosted.judge(now, entry, met=False)

    def sweep(self) -> None:
        """Drops what expired while no executor came by, and replaces executors that hang."""
        now = self._clock()
        with self._lock:
            for entry in [entry for entry in self._queue if entry.dead(now)]:
                self._queue.remove(entry)
                self._drop(entry, now)
            for executor, running in list(self._running.items()):
                if now - running.since > self._settings.hang_seconds:
                    self._replace(executor, running)

    # The executors' side

    def _take(self, executor: Executor) -> Job | None:
        now = self._clock()
        with self._lock:
            if executor.retired:
                return _nothing
            while entry := self._queue.pop():
                entry.hosted.waiting -= 1
                if entry.dead(now):
                    self._drop(entry, now)
                    continue
                level = self._decide(entry, executor, now)
                entry.hosted.running += 1
                return partial(self._run, executor, entry, level, now)
            if shadow := self._shadows.take(spare=bool(self._idle)):
                self._running[executor] = Running(None, now, now + shadow.seconds)
                return partial(self._run_shadow, executor, shadow)
            self._idle.append(executor)
        return None

    def _decide(self, entry: Entry, executor: Executor, now: float) -> float:
        hosted, margin = entry.hosted, entry.hosted.margin.at(now)
        arriving = self._load.expected(now, HORIZON)
        if len(self._queue) > LOOK_AHEAD:
            arriving += self._queue.work_beyond(LOOK_AHEAD)
        decision = choose_level(
            hosted.profile,
            entry.ceiling,
            Demand(entry.due - now, entry.work),
            self._queue.demands(now, LOOK_AHEAD),
            Demand(HORIZON + entry.due - entry.request.arrival, arriving),
            pinned=entry.pinned,
            executors=self._settings.executors,
            busy=self._busy(now),
            margin=margin,
            tail_ratio=hosted.latency.tail_ratio,
        )
        share = hosted.profile.at(decision.level).macs_ratio if decision.level > 0 and entry.pinned is None else 1.0
        self._running[executor] = Running(entry, now, now + entry.work.at(share))
        if entry.pinned is None:
            hosted.levels.add(now, decision.level)
        return decision.level

    def _run(self, executor: Executor, entry: Entry, level: float, taken: float) -> None:
        hosted, context = entry.hosted, GateContext(level)
        result: Ran | ServiceError
        started = self._clock()
        try:
            outputs = hosted.model.run(entry.request.inputs, context)
            ended = self._clock()
            quality = hosted.profile.at(level).quality if level > 0 else 1.0
            result = Ran(outputs, context, quality, taken, started, ended)
        except BaseException as error:
            # Whatever a model raises is that request's own misfortune; the executor goes on.
            log.exception("model %s failed on request %s", hosted.name, entry.request.id, exc_info=error)
            result = Internal(f"the model {hosted.name!r} failed on this request: {type(error).__name__}")
        with self._lock:
            if executor in self._hung:
                # Given up long ago: answered, replaced, and of no use to the latency model.
                self._hung.discard(executor)
                return
            del self._running[executor]
            hosted.running -= 1
            if isinstance(result, Ran):
                hosted.ran(entry, result)
                if level > 0 and entry.pinned is None and entry.request.options.quality_floor is None:
                    self._shadows.offer(hosted, entry, result)
        self._deliver(entry.future, result)

    def _run_shadow(self, executor: Executor, shadow: Shadow) -> None:
        agreement = shadow.run()
        with self._lock:
            if executor in self._hung:
                self._hung.discard(executor)
                return
            del self._running[executor]
            if agreement is not None:
                shadow.hosted.shadowed(shadow.level, agreement)

    # Under the lock

    def _entry(self, hosted: HostedModel, request: Request, macs: int, future: "Future[Ran]", now: float) -> Entry:
        options, slo = request.options, hosted.slo
        ceiling = hosted.ceiling(options.quality_floor, options.level)
        work = hosted.work(macs, ceiling, options.level is not None)
        least = work.at(ceiling.macs_ratio)
        asked = slo.latency if options.slo_ms is None else options.slo_ms / 1e3
        alone = least * hosted.latency.tail_ratio if hosted.latency.trusted else 0.0
        target = plan(asked, alone)
        return Entry(
            request=request,
            hosted=hosted,
            future=future,
            slo=slo,
            deadline=request.arrival + asked,
            due=request.arrival + target.latency,
            attainable=target.attainable,
            ceiling=ceiling,
            macs=macs,
            work=work,
            least=least,
            admitted=now,
            expires=request.arrival + options.timeout_us / 1e6 if options.timeout_us else inf,
        )

    def _refuse_if_late(self, entry: Entry, now: float) -> None:
        hosted, executors = entry.hosted, self._settings.executors
        margin = hosted.margin.at(now)
        ahead = self._queue.least_ahead(entry.request.options.urgency, entry.due) + self._busy(now)
        late_by = now + margin * (ahead / executors + entry.least * hosted.latency.tail_ratio) - entry.due
        full = hosted.waiting >= self._settings.queue_limit
        if not full and (late_by <= 0 or not entry.slo.shed or not hosted.latency.trusted):
            return
        hosted.counts.fail.add(now - entry.request.arrival)
        utilisation = self._load.expected(now, 1.0).at(entry.ceiling.macs_ratio) / executors
        capacity = entry.least / executors
        retry = self._returns.place(
            now, late_by=max(late_by, capacity), capacity_seconds=capacity, utilisation=utilisation
        )
        late = (
            f"even at level {entry.ceiling.level:.2f} ({entry.ceiling.reason}) it would be {late_by * 1e3:.1f} ms late"
        )
        why = f"{hosted.waiting} requests wait, the most that may" if full else late
        raise Refused(f"{hosted.name!r} is overloaded: {why}; come back in {retry:.3f} s", retry)

    def _busy(self, now: float) -> float:
        return sum(max(running.until - now, 0.0) for running in self._running.values())

    def _drop(self, entry: Entry, now: float) -> None:
        self._deliver(entry.future, expired(entry, now))

    def _add_executor(self) -> None:
        executor = Executor(f"sluice-executor-{len(self._executors) + self.replaced}", self._take)
        self._executors.append(executor)
        executor.start()

    def _replace(self, executor: Executor, running: Running) -> None:
        del self._running[executor]
        self._executors.remove(executor)
        executor.retired = True
        self._hung.add(executor)
        self.replaced += 1
        if running.entry is not None:
            hosted = running.entry.hosted
            hosted.running -= 1
            log.error(
                "model %s ran for more than %g s: its executor is replaced", hosted.name, self._settings.hang_seconds
            )
            message = f"the model {hosted.name!r} took longer than {self._settings.hang_seconds:g} s and was given up"
            self._deliver(running.entry.future, Internal(message))
        self._add_executor()


def expired(entry: Entry, now: float) -> Expired:
    """What to answer for an entry that is dead at `now`, seconds of the engine's clock."""
    waited = (now - entry.request.arrival) * 1e3
    if now >= entry.expires:
        return Expired(
            f"the request's timeout of {entry.request.options.timeout_us} µs passed; {waited:.1f} ms after arrival"
        )
    latency = (entry.deadline - entry.request.arrival) * 1e3
    return Expired(f"the request's deadline of {latency:g} ms passed while it waited; {waited:.1f} ms after arrival")


def _nothing() -> None:
    """An executor that was retired while it came for work finds out on its next turn."""

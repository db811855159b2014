"""Drives the dispatch in real time: the lock around the engine's state, and the executors.

The lock is held for microseconds, never while a model runs. The event loop admits and settles; an executor that is
free takes the next request itself, so that no turn of the event loop lies between two runs.
"""

import logging
import threading
from collections.abc import Callable
from functools import partial

from models.kernels import Threads
from models.model import Cancelled, GateContext
from service.engine.counts import check_counts
from service.engine.dispatch import Assignment, Dispatch, Running
from service.engine.entry import Entry, Ran, Reply
from service.engine.executor import Executor, Job
from service.engine.generation import GenerationRequest, Piece
from service.engine.generation_entry import GenerationEntry
from service.engine.generation_pool import Step
from service.engine.generation_step import run_step
from service.engine.generations import Generations
from service.engine.hosted import HostedModel
from service.engine.request import Finished, Request
from service.engine.settings import EngineSettings
from service.engine.shadow import Shadow
from service.engine.snapshot import ModelSnapshot
from service.engine.stream import Stream
from service.engine.warmup import warm_up, warm_up_generation
from service.errors import ClientGone, Internal, InvalidRequest, ServiceError, Unavailable

log = logging.getLogger(__name__)

_TIMES_EXPECTED = 10.0
"""A run is not given up before it has taken so many times what it was expected to: a long recording takes minutes."""

Deliver = Callable[[Reply, Ran | ServiceError], None]
PassOn = Callable[[Stream, Piece | ServiceError], None]


class Scheduler:
    """`deliver` hands a result to the event loop, `pass_on` a piece of a generation; any thread calls them."""

    def __init__(self, settings: EngineSettings, clock: Callable[[], float], deliver: Deliver, pass_on: PassOn) -> None:
        self.lock = threading.Lock()
        """Guards the dispatch and every `HostedModel`."""
        self.replaced = 0
        self._settings = settings
        self._clock = clock
        self._deliver = deliver
        self._pass_on = pass_on
        self._dispatch: Dispatch[Executor] = Dispatch(
            settings.executors, settings.queue_limit, settings.shadow_share, self._answer
        )
        self._generations: Generations[Executor] = Generations(settings, self._pass_piece, self._dispatch.offer)
        self._idle: list[Executor] = []
        self._executors: list[Executor] = []
        self._hung: set[Executor] = set()

    @property
    def hung(self) -> int:
        """Executors that were given up and have not come back."""
        return len(self._hung)

    def host(self, hosted: HostedModel) -> None:
        """A model is there."""
        with self.lock:
            self._generations.host(hosted)

    def warm_up(self, hosted: HostedModel) -> None:
        """The first runs of a model that is not served yet. Blocks."""
        runs = self._settings.warmup_runs
        if pool := self._generations.pool(hosted):
            warm_up_generation(pool, runs)
        else:
            hosted.typical_macs = warm_up(hosted.model, hosted.latency, runs)

    def start(self) -> None:
        """Starts the executors."""
        with self.lock:
            for _ in range(self._settings.executors):
                self._add_executor()

    def close(self, error: ServiceError) -> list[Executor]:
        """Answers all that wait or run with `error`, and retires the executors, which are returned."""
        with self.lock:
            self._dispatch.clear(error)
            self._generations.clear(error)
            for running in self._dispatch.running.values():
                if running.entry is not None:
                    running.entry.withdrawn = True
                    self._answer(running.entry, error)
            for executor in self._executors:
                executor.retired = True
            for executor in self._idle:
                executor.ring()
            self._idle.clear()
            return self._executors

    def admit(self, hosted: HostedModel, request: Request, macs: int, reply: Reply) -> Entry:
        """Queues a request. Raises `Refused`, or `Expired` when its timeout has passed already."""
        with self.lock:
            now = self._clock()
            entry = self._dispatch.admit(now, hosted, request, macs, reply, idle=bool(self._idle))
            self._ring_one()
        return entry

    def withdraw(self, entry: Entry) -> None:
        """The client does not wait any more: out of the queue, if it is still there."""
        with self.lock:
            self._dispatch.withdraw(entry)

    def forget(self, hosted: HostedModel) -> None:
        """The model is unloaded: nothing is kept that would run it again, or keep it in memory."""
        with self.lock:
            self._dispatch.forget(hosted)
            self._generations.forget(hosted, Unavailable(f"the model {hosted.name!r} was unloaded"))

    def retire(self, hosted: HostedModel) -> None:
        """Another takes its place: its generations go on to their end, and nothing else is kept of it."""
        with self.lock:
            self._dispatch.forget(hosted)
            self._generations.retire(hosted)

    def admit_generation(self, hosted: HostedModel, request: GenerationRequest, stream: Stream) -> GenerationEntry:
        """Queues a generation. Raises `Refused`; `Expired` when its timeout has passed already; `InvalidRequest` where
        the model makes no text.
        """
        with self.lock:
            pool = self._generations.pool(hosted)
            if pool is None:
                raise InvalidRequest(f"{hosted.name!r} does not generate text", "model")
            now = self._clock()
            entry = pool.admit(now, request, stream, self._dispatch.free_in(now, hosted.name))
            self._ring_one()
        return entry

    def read(self, entry: GenerationEntry) -> None:
        """A piece of a generation was read."""
        with self.lock:
            if entry.read(self._clock()):
                self._ring_one()

    def expire_generation(self, entry: GenerationEntry) -> None:
        """The timeout that its client gave has passed."""
        with self.lock:
            if pool := self._generations.pool(entry.hosted):
                pool.expire(max(self._clock(), entry.expires), entry)

    def withdraw_generation(self, entry: GenerationEntry) -> None:
        """Nobody waits for more of it: at most the step that it is in is still done."""
        with self.lock:
            self._generations.withdraw(entry)

    def generation_failed(self, entry: GenerationEntry, error: ServiceError) -> None:
        """Counts a generation that was admitted and came to no end of its own."""
        with self.lock:
            if pool := self._generations.pool(entry.hosted):
                pool.failed(self._clock(), entry, error)

    def snapshot(self, hosted: HostedModel, now: float, ready: bool) -> ModelSnapshot:
        """To be called with the lock held."""
        pool = self._generations.pool(hosted)
        shown = hosted.snapshot(now, ready)
        return shown if pool is None else pool.shown(shown)

    def settle(self, entry: Entry, ran: Ran) -> Finished:
        """Counts a request that ran. Raises `Expired` when its timeout has passed."""
        with self.lock:
            now = self._clock()
            return self._dispatch.served(now, entry, ran)

    def failed(self, entry: Entry, error: ServiceError) -> None:
        """Counts a request that was admitted and got no outputs."""
        with self.lock:
            now = self._clock()
            self._dispatch.failed(now, entry, error)

    def sweep(self) -> None:
        """Drops what expired while no executor came by, and replaces executors that hang."""
        with self.lock:
            now = self._clock()
            self._dispatch.sweep(now)
            self._generations.sweep(now)
            for executor, running in list(self._dispatch.running.items()):
                expected = running.until - running.since
                if now - running.since > max(self._settings.hang_seconds, _TIMES_EXPECTED * expected):
                    self._replace(executor, running)

    def _take(self, executor: Executor) -> Job | None:
        with self.lock:
            now = self._clock()
            if executor.retired:
                return _nothing
            if self._generations.any and (step := self._take_step(now, executor)):
                return partial(self._run_step, executor, step)
            task = self._dispatch.take(now, executor, spare=bool(self._idle))
            if task is None:
                self._idle.append(executor)
                return None
        if isinstance(task, Assignment):
            return partial(self._run, executor, task)
        return partial(self._run_shadow, executor, task)

    def _take_step(self, now: float, executor: Executor) -> Step | None:
        step = self._generations.take(now, executor, self._dispatch.laxity(now), len(self._idle))
        if step is not None:
            self._dispatch.occupy(now, executor, step.until, step.pool.hosted.name)
            if self._generations.laxity(now) is not None:
                self._ring_one()
        return step

    def _run_step(self, executor: Executor, step: Step) -> None:
        results = run_step(step)
        with self.lock:
            if self._was_given_up(executor):
                return
            now = self._clock()
            self._dispatch.ended(now, executor)
            self._generations.stepped(now, executor, results)

    def _ring_one(self) -> None:
        if self._idle:
            self._idle.pop().ring()

    def _pass_piece(self, entry: GenerationEntry, item: Piece | ServiceError) -> None:
        if entry.stream is not None:
            self._pass_on(entry.stream, item)

    def _run(self, executor: Executor, task: Assignment) -> None:
        entry = task.entry
        context = GateContext(task.level, wanted=lambda: not entry.withdrawn, threads=executor.threads)
        hosted = entry.hosted
        result: Ran | ServiceError
        started = self._clock()
        try:
            outputs = hosted.model.run(entry.request.inputs, context)
            ended = self._clock()
            check_counts(context)
            quality = hosted.dial.quality(task.level) if task.level > 0 else 1.0
            result = Ran(outputs, context, quality, task.since, task.taken, started, ended)
        except Cancelled:
            ended = self._clock()
            result = ClientGone("nobody waited for the rest of this request")
        except BaseException as error:
            # Whatever a model raises is that request's own misfortune; the executor goes on.
            ended = self._clock()
            log.exception("model %s failed on request %s", hosted.name, entry.request.id)
            result = Internal(f"the model {hosted.name!r} failed on this request: {type(error).__name__}")
        context.wanted = None  # it is kept for a while, and the request need not be
        with self.lock:
            if self._was_given_up(executor):
                return
            self._dispatch.ended(ended, executor)
            try:
                if isinstance(result, Ran):
                    self._dispatch.ran(entry, result)
            finally:
                # Outputs that cannot be learned from are outputs all the same.
                self._answer(entry, result)

    def _run_shadow(self, executor: Executor, shadow: Shadow) -> None:
        agreement = shadow.run()
        with self.lock:
            if self._was_given_up(executor):
                return
            self._dispatch.ended(self._clock(), executor)
            if agreement is not None:
                shadow.hosted.shadowed(shadow.level, agreement)

    def _answer(self, entry: Entry, result: Ran | ServiceError) -> None:
        self._deliver(entry.reply, result)

    def _was_given_up(self, executor: Executor) -> bool:
        """It was answered for and replaced long ago, and its time is of no use to the latency model."""
        if executor not in self._hung:
            return False
        self._hung.discard(executor)
        return True

    def _add_executor(self) -> None:
        threads = Threads(self._settings.threads) if self._settings.threads > 1 else None
        executor = Executor(f"sluice-executor-{len(self._executors) + self.replaced}", self._take, threads)
        self._executors.append(executor)
        executor.start()

    def _replace(self, executor: Executor, running: Running) -> None:
        self._dispatch.gone(executor)
        self._executors.remove(executor)
        executor.retired = True
        self._hung.add(executor)
        self.replaced += 1
        if running.model:
            seconds = self._clock() - running.since
            log.error("model %s ran for more than %.1f s: its executor is replaced", running.model, seconds)
            error = Internal(f"the model {running.model!r} took longer than {seconds:.1f} s and was given up")
            self._generations.gave_up(executor, error)
            if running.entry is not None:
                running.entry.withdrawn = True  # should it come back after all, it ends at its next step
                self._answer(running.entry, error)
        self._add_executor()


def _nothing() -> None:
    """An executor that was retired while it came for work finds out on its next turn."""

"""Continuous batching: the generations of one model, which join and leave between steps, with time as an argument.

Like `service.engine.dispatch`: no thread, lock, clock or event loop; the scheduler drives it under its lock.
"""

from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from math import ceil, inf

from models.model import GateContext, Generator
from service.control.admission import plan
from service.control.generation import Pace, choose_levels, choose_turns, may_join, next_due, share_of_tokens
from service.control.generation_slo import GenerationSLO
from service.control.latency_model import LatencyModel
from service.control.level import Ceiling
from service.control.load import Work
from service.engine.generated_text import GeneratedText
from service.engine.generation import GenerationRequest, Piece
from service.engine.generation_entry import Advance, GenerationEntry, add_counts, parts_of
from service.engine.hosted import HostedModel
from service.engine.request import Finished, TokenTimes
from service.engine.sampling import Sampler
from service.engine.settings import EngineSettings
from service.engine.snapshot import GenerationSnapshot, ModelSnapshot
from service.engine.stream import Stream
from service.errors import Expired, Refused, ServiceError

Result = Advance | ServiceError
Answer = Callable[[GenerationEntry, Piece | ServiceError], None]
_SMOOTH = 0.1


@dataclass(frozen=True, slots=True)
class Step:
    """Generations to advance together, each under its own context. `until` is the predicted end."""

    pool: "GenerationPool"
    entries: tuple[GenerationEntry, ...]
    contexts: tuple[GateContext, ...]
    taken: float
    until: float


class GenerationPool:
    """As many run and wait, and may be unread, as the settings say. `answer` is called with each piece, and with the
    error that ends a generation.

    `now` is seconds on the clock of `GenerationRequest.arrival`, and never goes back.
    """

    def __init__(self, hosted: HostedModel, settings: EngineSettings, answer: Answer) -> None:
        assert isinstance(hosted.model, Generator)
        self.hosted = hosted
        self.model: Generator = hosted.model
        self.tokens = LatencyModel()
        """Of steps without a prompt."""
        self.prompts = LatencyModel()
        """Of those with one."""
        self.macs_per_token = 0.0
        """Dense multiply-accumulates, as the prompts of late have had them."""
        self._executors = settings.executors
        self._most = settings.generations
        self._queue_limit = settings.queue_limit
        self._unread_limit = settings.unread_limit
        self._answer = answer
        self._running: list[GenerationEntry] = []
        self._waiting: list[tuple[tuple[int, float, int], GenerationEntry]] = []
        self._order = count()
        self._steps: list[Step] = []
        self._seconds = 0.0
        """What a generation takes from its first step to its last, a mean of the recent ones; 0 before any."""
        self._typical_prompt = 0.0
        """Dense multiply-accumulates of the last one."""
        self._prompt_tokens = 0
        self._generated_tokens = 0

    def admit(self, now: float, request: GenerationRequest, stream: Stream | None = None) -> GenerationEntry:
        """Queues a generation. Raises `Refused`, or `Expired` when its timeout has passed already."""
        entry = self._plan(now, request, stream)
        if entry.expires <= now:
            raise expired(entry, now)
        self._refuse_if_late(now, entry)
        insort(self._waiting, ((request.options.common.urgency, entry.first_due, next(self._order)), entry))
        self.hosted.waiting += 1
        return entry

    def learn(self, tokens: int, macs: int) -> None:
        """That a prompt of so many tokens has so many dense multiply-accumulates."""
        each = macs / tokens
        self.macs_per_token += (each - self.macs_per_token) * (_SMOOTH if self.macs_per_token else 1.0)
        self._typical_prompt = macs

    def withdraw(self, entry: GenerationEntry) -> None:
        """Nobody waits for it any more: it leaves now, or at the end of the step that it is in."""
        entry.over = True
        if not entry.stepping:
            self._leave(entry)

    def laxity(self, now: float) -> float | None:
        """Seconds that the most urgent turn can wait; None where there is nothing to do."""
        turns = [entry.turn(now, self.prompts, self.tokens) for entry in self._ready()]
        if (joining := self._next(now)) is not None:
            turns.append(joining.turn(now, self.prompts, self.tokens))
        return min((turn.laxity for turn in turns), default=None)

    def take(self, now: float, idle: int) -> Step | None:
        """The next step, if there is something to do, for one executor; `idle` are others that have nothing to do."""
        self.sweep(now)
        while (joining := self._next(now)) is not None:
            self._join(now, joining)
        ready = self._ready()
        if not ready:
            return None
        turns = [entry.turn(now, self.prompts, self.tokens) for entry in ready]
        pace = self._pace(now, ready)
        chosen = choose_turns(turns, pace, self._part_of_one(idle), idle > 0)
        levels = choose_levels(self.hosted.profile, turns, chosen, pace, 1 + idle + len(self._steps))
        entries = tuple(ready[index] for index in chosen)
        for entry, level in zip(entries, levels, strict=True):
            entry.stepping = True
            if entry.pinned is None:
                self.hosted.levels.add(now, level)
        ratios = [self.hosted.dial.macs_ratio(level) for level in levels]
        work = sum(turns[index].work.at(ratio) for index, ratio in zip(chosen, ratios, strict=True))
        until = now + pace.step([turns[index] for index in chosen]).fixed + work
        step = Step(self, entries, tuple(GateContext(level) for level in levels), now, until)
        self._steps.append(step)
        return step

    def stepped(self, now: float, step: Step, results: list[Result]) -> None:
        """Takes in what a step has done, and learns from it."""
        self._steps.remove(step)
        self.hosted.counts.executions += 1
        seconds = now - step.taken
        done = [result for result in results if isinstance(result, Advance)]
        macs = sum(result.context.macs - result.context.macs_skipped for result in done)
        if len(done) == len(results):
            with_prompt = any(entry.in_prompt for entry in step.entries)
            (self.prompts if with_prompt else self.tokens).observe(macs, seconds)
        for entry, result in zip(step.entries, results, strict=True):
            entry.stepping = False
            if isinstance(result, Advance):
                self._advanced(now, entry, result, seconds)
            else:
                self._end(entry, result)
            if entry.over:
                self._leave(entry)

    def expire(self, now: float, entry: GenerationEntry) -> None:
        """The timeout that its client gave has passed at `now`."""
        self._end(entry, expired(entry, now))
        self.withdraw(entry)

    def failed(self, now: float, entry: GenerationEntry, error: ServiceError) -> None:
        """Counts a generation that was admitted and came to no end of its own."""
        self.hosted.counts.fail.add(now - entry.request.arrival)
        if isinstance(error, Expired) and now < entry.expires:
            self._judge(now, entry, met=False)

    def gave_up(self, step: Step, error: ServiceError) -> None:
        """The step hangs, and its executor is replaced: its generations are lost."""
        self._steps.remove(step)
        for entry in step.entries:
            entry.stepping = False
            self._end(entry, error)
            self._leave(entry)

    def sweep(self, now: float) -> None:
        """Drops what is dead and still waits."""
        for entry in [entry for _, entry in self._waiting if entry.dead(now)]:
            self._end(entry, expired(entry, now))
            self._leave(entry)

    def clear(self, error: ServiceError) -> None:
        """Ends all, those that are in a step too."""
        for entry in [*self._running, *(entry for _, entry in self._waiting)]:
            self._end(entry, error)
            if not entry.stepping:
                self._leave(entry)

    def shown(self, snapshot: ModelSnapshot) -> ModelSnapshot:
        """What the model shows, with its generations."""
        slo = self.hosted.slo
        assert isinstance(slo, GenerationSLO)
        ceiling = self.hosted.ceiling(None, None)
        prompt = self.prompts.upper(self._typical_prompt * ceiling.macs_ratio) if self.prompts.trusted else 0.0
        attainable = prompt <= slo.latency and self._token_alone(ceiling) <= slo.token
        return replace(
            snapshot,
            gate=replace(snapshot.gate, slo_attainable=attainable),
            generation=GenerationSnapshot(self._prompt_tokens, self._generated_tokens),
        )

    def _plan(self, now: float, request: GenerationRequest, stream: Stream | None) -> GenerationEntry:
        hosted, options, slo = self.hosted, request.options, self.hosted.slo
        assert isinstance(slo, GenerationSLO)
        ceiling = hosted.ceiling(options.common.quality_floor, options.common.level)
        macs = len(request.tokens) * self.macs_per_token
        overhead = parts_of(len(request.tokens)) * self.prompts.overhead
        least = overhead + self.prompts.scalable(macs * ceiling.macs_ratio)
        asked = slo.latency if options.first_token_ms is None else options.first_token_ms / 1e3
        token = slo.token if options.token_ms is None else options.token_ms / 1e3
        target = plan(asked, least * self.prompts.tail_ratio if self.prompts.trusted else 0.0)
        timeout = options.common.timeout_us
        room = self.model.context_length - len(request.tokens)
        return GenerationEntry(
            request=request,
            hosted=hosted,
            stream=stream,
            slo=slo,
            ceiling=ceiling,
            first_due=request.arrival + target.latency,
            due=request.arrival + target.planned,
            token=token,
            attainable=target.attainable and self._token_alone(ceiling) <= token,
            prompt_macs=macs,
            least=least,
            admitted=now,
            expires=request.arrival + timeout / 1e6 if timeout else inf,
            asked=asked,
            most_tokens=room if request.max_tokens is None else min(request.max_tokens, room),
            text=GeneratedText(request.stops),
            sampler=Sampler(request.sampling),
            next_macs=macs / max(parts_of(len(request.tokens)), 1),
        )

    def _refuse_if_late(self, now: float, entry: GenerationEntry) -> None:
        late_by, full = self._late_by(now, entry), len(self._waiting) >= self._queue_limit
        if not full and (late_by <= 0 or not entry.slo.shed or not self.prompts.trusted):
            return
        self.hosted.counts.fail.add(now - entry.request.arrival)
        retry = max(ceil(late_by), 1)
        late = f"even at level {entry.ceiling.level:.2f} ({entry.ceiling.reason}) its first token would be"
        why = f"{len(self._waiting)} wait, the most that may" if full else f"{late} {late_by * 1e3:.0f} ms late"
        raise Refused(f"{self.hosted.name!r} is overloaded: {why}; come back in {retry} s", retry)

    def _late_by(self, now: float, entry: GenerationEntry) -> float:
        """Seconds by which its first token is too late, at the ceiling, as things stand; below 0 where it is not."""
        key = (entry.request.options.common.urgency, entry.first_due)
        before = [other for place, other in self._waiting if place[:2] <= key]
        prompts = sum(other.least for other in before)
        prompts += sum(other.turn(now, self.prompts, self.tokens).least for other in self._running if other.in_prompt)
        pace, work = self._pace(now, [entry]), self._token_work()
        share = share_of_tokens(len(self._running), self._token_time(), work, entry.ceiling, pace, self._executors)
        wait = prompts / self._executors
        behind = len(self._running) + len(before) + 1 - self._most
        if behind > 0:
            wait = max(wait, behind * self._seconds / self._most)
        own = entry.least * self.prompts.tail_ratio
        late = now + pace.margin * (wait + own) / (1 - share) - entry.first_due
        return late if self._running or before else min(late, 0.0)

    def _next(self, now: float) -> GenerationEntry | None:
        """The first that waits, if it may join."""
        if not self._waiting or len(self._running) >= self._most:
            return None
        entry = self._waiting[0][1]
        pace = self._pace(now, [entry])
        token = min(self._token_time(), entry.token)
        allowed = may_join(len(self._running), token, self._token_work(), entry.ceiling, pace, self._executors)
        return entry if allowed or not self.tokens.trusted or not entry.slo.shed else None

    def _join(self, now: float, entry: GenerationEntry) -> None:
        del self._waiting[0]
        self.hosted.waiting -= 1
        self.hosted.running += 1
        entry.taken = now
        self._running.append(entry)

    def _leave(self, entry: GenerationEntry) -> None:
        entry.over = True
        if entry in self._running:
            self._running.remove(entry)
            self.hosted.running -= 1
            return
        for index, (_, other) in enumerate(self._waiting):
            if other is entry:
                del self._waiting[index]
                self.hosted.waiting -= 1
                return

    def _end(self, entry: GenerationEntry, error: ServiceError) -> None:
        if not entry.over:
            entry.over = True
            self._answer(entry, error)

    def _advanced(self, now: float, entry: GenerationEntry, advance: Advance, seconds: float) -> None:
        hosted, context = self.hosted, advance.context
        hosted.advanced(now, context, entry.in_prompt)
        add_counts(entry.context, context)
        entry.levels += context.level
        entry.quality += hosted.dial.quality(context.level) if context.level > 0 else 1.0
        entry.steps += 1
        entry.compute_seconds += seconds
        if advance.likeliest is None:
            return
        entry.generated += 1
        self._generated_tokens += 1
        entry.last = now
        if entry.first is None:
            self._first_token(now, entry)
        else:
            entry.due = next_due(entry.due, now, entry.token)
        if entry.over:
            return
        finished = None
        if advance.finish_reason is not None:
            finished = self._finish(now, entry)
        if advance.text or advance.tokens or finished is not None:
            entry.unread += 1
            self._answer(entry, Piece(advance.text, advance.tokens, advance.finish_reason, finished))
        if finished is not None:
            entry.over = True
        elif entry.unread >= self._unread_limit:
            entry.paused = now

    def _first_token(self, now: float, entry: GenerationEntry) -> None:
        entry.first = now
        entry.due = now + entry.token
        prompt = len(entry.request.tokens)
        self._prompt_tokens += prompt
        self.learn(prompt, entry.context.macs)
        self._judge(now, entry, now <= entry.first_due)

    def _finish(self, now: float, entry: GenerationEntry) -> Finished:
        assert entry.first is not None
        arrival = entry.request.arrival
        seconds = now - entry.taken - entry.paused_seconds
        self._seconds += (seconds - self._seconds) * (_SMOOTH if self._seconds else 1.0)
        first = entry.first - arrival
        others = entry.generated - 1
        token = max(entry.last - entry.first - entry.paused_seconds, 0.0) / others if others else None
        in_time = token is None or token <= entry.token
        if others:
            self._judge(now, entry, in_time)
        finished = Finished(
            request_id=entry.request.id,
            outputs={},
            level=entry.levels / entry.steps,
            quality=entry.quality / entry.steps,
            context=entry.context,
            queue_seconds=entry.taken - entry.admitted,
            compute_seconds=entry.compute_seconds,
            duration=now - arrival,
            slo_met=first <= entry.asked and in_time,
            slo_attainable=entry.attainable,
            taken=entry.taken,
            started=entry.taken,
            tokens=TokenTimes(len(entry.request.tokens), entry.generated, first, token),
        )
        self.hosted.generated(now, entry.admitted - arrival, finished)
        return finished

    def _judge(self, now: float, entry: GenerationEntry, met: bool) -> None:
        if entry.pinned is None and entry.attainable:
            self.hosted.margin(entry.request).record(now, met, entry.slo.allowed_misses)

    def _part_of_one(self, idle: int) -> int:
        """The tokens that one executor takes at once, so that those that share them have the same."""
        sharing = sum(any(not entry.in_prompt for entry in step.entries) for step in self._steps)
        return max(ceil(sum(not entry.in_prompt for entry in self._running) / (1 + idle + sharing)), 1)

    def _ready(self) -> list[GenerationEntry]:
        return [entry for entry in self._running if not (entry.stepping or entry.paused is not None or entry.over)]

    def _pace(self, now: float, entries: list[GenerationEntry]) -> Pace:
        margin = max(self.hosted.margin(entry.request).at(now) for entry in entries)
        return Pace(self.tokens, self.prompts, margin)

    def _token_work(self) -> Work:
        return Work(0.0, self.tokens.scalable(self.macs_per_token))

    def _token_alone(self, ceiling: Ceiling) -> float:
        """The upper time of a token of one generation alone, at the ceiling; 0 while nothing is known."""
        return self.tokens.upper(self.macs_per_token * ceiling.macs_ratio) if self.tokens.trusted else 0.0

    def _token_time(self) -> float:
        return min((entry.token for entry in self._running), default=inf)


def expired(entry: GenerationEntry, now: float) -> Expired:
    """What to answer for a generation that is dead at `now`."""
    passed = (now - entry.request.arrival) * 1e3
    if now >= entry.expires:
        limit = entry.request.options.common.timeout_us
        return Expired(f"the request's timeout of {limit} µs passed; {passed:.1f} ms after arrival")
    latency = entry.asked * 1e3
    return Expired(f"the first token cannot be there in {latency:g} ms any more: the request waited {passed:.1f} ms")

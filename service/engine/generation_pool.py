"""Continuous batching: the generations of one model, which join and leave between steps, with time as an argument.

Like `service.engine.dispatch`: no thread, lock, clock or event loop; the scheduler drives it under its lock.
"""

from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from math import ceil

from models.model import GateContext, Generator
from service.control.generation import choose_levels, choose_turns, places
from service.control.generation_slo import GenerationSLO
from service.control.level import Ceiling
from service.engine.generation import GenerationRequest, Piece
from service.engine.generation_admission import late_by, plan_generation, refuse
from service.engine.generation_entry import Advance, GenerationEntry, add_counts
from service.engine.generation_forecast import Forecast
from service.engine.generation_shadow import GenerationShadow
from service.engine.hosted import HostedModel
from service.engine.request import Finished, TokenTimes
from service.engine.settings import EngineSettings
from service.engine.shadow import Shadow
from service.engine.snapshot import GenerationSnapshot, ModelSnapshot
from service.engine.stream import Stream
from service.errors import Expired, ServiceError, TooSlow

Result = Advance | ServiceError
Answer = Callable[[GenerationEntry, Piece | ServiceError], None]
Offer = Callable[[Callable[[], Shadow]], None]


@dataclass(frozen=True, slots=True)
class Step:
    """Generations to advance together, each under its own context. `until` is the predicted end."""

    pool: "GenerationPool"
    entries: tuple[GenerationEntry, ...]
    contexts: tuple[GateContext, ...]
    taken: float
    until: float


class GenerationPool:
    """As many run and wait, and may be unread, as the settings say. As many again may pause, since their readers are
    slow: of more, the one that has paused longest ends where another wants to run. Those whose readers come back go on
    at once, beside the others. `answer` is called with each piece,
    and with the error that ends a generation; `offer` with what makes a shadow run of one that was gated.

    `now` is seconds on the clock of `GenerationRequest.arrival`, and never goes back.
    """

    def __init__(self, hosted: HostedModel, settings: EngineSettings, answer: Answer, offer: Offer) -> None:
        assert isinstance(hosted.model, Generator)
        self.hosted = hosted
        self.model: Generator = hosted.model
        self.forecast = Forecast()
        self._executors = settings.executors
        self._most = settings.generations
        self._queue_limit = settings.queue_limit
        self._unread_limit = settings.unread_limit
        self._answer = answer
        self._offer = offer
        self._running: list[GenerationEntry] = []
        self._waiting: list[tuple[tuple[int, float, int], GenerationEntry]] = []
        self._order = count()
        self._steps: list[Step] = []
        self._prompt_tokens = 0
        self._generated_tokens = 0

    def admit(
        self, now: float, request: GenerationRequest, stream: Stream | None = None, free_in: float = 0.0
    ) -> GenerationEntry:
        """Queues a generation; `free_in` is how many seconds all executors have something to do for other models.
        Raises `Refused`, or `Expired` when its timeout has passed already.
        """
        entry = plan_generation(self.hosted, self.forecast, request, now, stream)
        if entry.expires <= now:
            raise expired(entry, now)
        self._refuse_if_late(now, entry, free_in)
        insort(self._waiting, ((request.options.common.urgency, entry.first_due, next(self._order)), entry))
        self.hosted.waiting += 1
        return entry

    @property
    def busy(self) -> bool:
        """Whether a generation waits or runs."""
        return bool(self._running or self._waiting)

    def withdraw(self, entry: GenerationEntry) -> None:
        """Nobody waits for it any more: it leaves now, or at the end of the step that it is in."""
        entry.over = True
        if not entry.stepping:
            self._leave(entry)

    def laxity(self, now: float) -> float | None:
        """Seconds that the most urgent turn can wait; None where there is nothing to do."""
        turns = [entry.turn(now, self.forecast) for entry in self._ready()]
        if (joining := self._next(now)) is not None:
            turns.append(joining.turn(now, self.forecast))
        return min((turn.laxity for turn in turns), default=None)

    def take(self, now: float, idle: int) -> Step | None:
        """The next step, if there is something to do, for one executor; `idle` are others that have nothing to do."""
        self.sweep(now)
        while (joining := self._next(now)) is not None:
            self._join(now, joining)
        ready = self._ready()
        if not ready:
            return None
        turns = [entry.turn(now, self.forecast) for entry in ready]
        pace = self.forecast.pace(self._margin(now, ready))
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
            (self.forecast.prompts if with_prompt else self.forecast.tokens).observe(macs, seconds)
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
        attainable = self.forecast.attainable(self.hosted.ceiling(None, None), slo.latency, slo.token)
        return replace(
            snapshot,
            gate=replace(snapshot.gate, slo_attainable=attainable),
            generation=GenerationSnapshot(self._prompt_tokens, self._generated_tokens),
        )

    def _refuse_if_late(self, now: float, entry: GenerationEntry, free_in: float) -> None:
        key = (entry.request.options.common.urgency, entry.first_due)
        before = [other for place, other in self._waiting if place[:2] <= key]
        if not entry.leads:
            return
        full, late, going = len(self._waiting) >= self._queue_limit, 0.0, self._going()
        if going or before or free_in > 0:
            margin = self._margin(now, [entry])
            late = late_by(now, entry, going, before, self.forecast, margin, self._executors, self._most, free_in)
        if full or (late > 0 and entry.slo.shed and self.forecast.prompts.trusted):
            self.hosted.counts.fail.add(now - entry.request.arrival)
            raise refuse(self.hosted.name, entry, late, len(self._waiting), full)

    def _next(self, now: float) -> GenerationEntry | None:
        """The first that waits, if it may join."""
        going = self._going()
        if not self._waiting or len(going) >= self._most:
            return None
        entry = self._waiting[0][1]
        if not self.forecast.tokens.trusted or not entry.slo.shed:
            return entry
        token = min((other.allowed for other in going), default=entry.allowed)
        pace, work = self.forecast.pace(self._margin(now, [entry])), self.forecast.token()
        room = places(min(token, entry.allowed), work, entry.ceiling, pace, self._executors)
        return entry if len(going) < room else None

    def _join(self, now: float, entry: GenerationEntry) -> None:
        del self._waiting[0]
        if len(self._running) >= 2 * self._most:
            self._give_up_on_slowest_reader(now)
        self.hosted.waiting -= 1
        self.hosted.running += 1
        entry.taken = now
        if not entry.leads:
            entry.due += now - entry.request.arrival
        self._running.append(entry)

    def _give_up_on_slowest_reader(self, now: float) -> None:
        paused = ((entry.paused, entry) for entry in self._running if entry.paused is not None)
        since, slowest = min(paused, key=lambda found: found[0])
        self._end(slowest, TooSlow(f"nothing was read for {now - since:.1f} s, and others wait"))
        self._leave(slowest)

    def _leave(self, entry: GenerationEntry) -> None:
        entry.over = True
        # Its cache is large, and whoever waits for what it answered may hold the entry for long.
        entry.sequence = None
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
        if entry.in_prompt:
            self.forecast.saw_part(context, hosted.dial.macs_ratio(context.level))
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
            self.forecast.saw_token(context.macs)
            entry.advance_due(now)
        if entry.over:
            return
        finished = None
        if advance.finish_reason is not None:
            finished = self._finish(now, entry)
            self._offer_shadow(entry, advance.likeliest, context.level)
        if advance.text or advance.tokens or finished is not None:
            entry.unread += 1
            self._answer(entry, Piece(advance.text, advance.tokens, advance.finish_reason, finished))
        if finished is not None:
            entry.over = True
        elif entry.unread >= self._unread_limit:
            entry.paused = now

    def _first_token(self, now: float, entry: GenerationEntry) -> None:
        entry.first = now
        entry.due = now + entry.pace
        prompt = len(entry.request.tokens)
        self._prompt_tokens += prompt
        self.forecast.saw_prompt(prompt, entry.context.macs)
        if entry.leads:
            self._judge(now, entry, now <= entry.first_due)

    def _finish(self, now: float, entry: GenerationEntry) -> Finished:
        assert entry.first is not None
        arrival = entry.request.arrival
        self.forecast.saw_generation(entry.generated)
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

    def _offer_shadow(self, entry: GenerationEntry, likeliest: int, level: float) -> None:
        """Its last step may be done again dense: what it saw is all of the text."""
        options, sequence = entry.request.options.common, entry.sequence
        if level == 0 or options.level is not None or options.quality_floor is not None or sequence is None:
            return
        dense = Ceiling(0.0, self.hosted.dial.macs_ratio(0.0), "")
        tokens, forecast = tuple(sequence.tokens), self.forecast
        seconds = forecast.prompts.tail_ratio * forecast.prompt(len(tokens), dense)
        alone = forecast.prompts.tail_ratio * entry.least
        self._offer(lambda: GenerationShadow(self.hosted, self.model, tokens, likeliest, level, seconds, alone))

    def _judge(self, now: float, entry: GenerationEntry, met: bool) -> None:
        if entry.pinned is None and entry.attainable:
            self.hosted.margin(entry.request).record(now, met, entry.slo.allowed_misses)

    def _part_of_one(self, idle: int) -> int:
        """The tokens that one executor takes at once, so that those that share them have the same."""
        sharing = sum(any(not entry.in_prompt for entry in step.entries) for step in self._steps)
        return max(ceil(sum(not entry.in_prompt for entry in self._going()) / (1 + idle + sharing)), 1)

    def _going(self) -> list[GenerationEntry]:
        """Those that run and do not wait for their readers."""
        return [entry for entry in self._running if entry.paused is None]

    def _ready(self) -> list[GenerationEntry]:
        return [entry for entry in self._going() if not (entry.stepping or entry.over)]

    def _margin(self, now: float, entries: list[GenerationEntry]) -> float:
        return max(self.hosted.margin(entry.request).at(now) for entry in entries)


def expired(entry: GenerationEntry, now: float) -> Expired:
    """What to answer for a generation that is dead at `now`."""
    passed = (now - entry.request.arrival) * 1e3
    if now >= entry.expires:
        limit = entry.request.options.common.timeout_us
        return Expired(f"the request's timeout of {limit} µs passed; {passed:.1f} ms after arrival")
    latency = entry.asked * 1e3
    return Expired(f"the first token cannot be there in {latency:g} ms any more: the request waited {passed:.1f} ms")

"""A hosted model's run-time state: its SLO, what control has learned of it, and what was counted."""

import time
from dataclasses import dataclass, field

from models.gating.profile import Profile
from models.model import GateContext, Generator, Model, Transcriber
from service.control.admission import Target, plan
from service.control.feedback import SafetyMargin
from service.control.generation_slo import Objective
from service.control.guard import QualityGuard
from service.control.latency_model import LatencyModel
from service.control.level import Ceiling, Demand, Dial, ceiling_of, choose_level
from service.control.load import Work
from service.control.quantile import UpperQuantile
from service.control.speech_slo import SpeechSLO
from service.engine.entry import Entry, Ran
from service.engine.generation import GenerationRequest
from service.engine.request import Finished, Request
from service.engine.snapshot import GateSnapshot, LastActive, LayerGate, ModelSnapshot, Statistics
from service.engine.statistics import GatedWindow, RecentLevels, Tail, Timer, layer_rates, ratio


@dataclass(slots=True)
class Counts:
    """Sums for the protocol's statistics."""

    inferences: int = 0
    executions: int = 0
    success: Timer = field(default_factory=Timer)
    fail: Timer = field(default_factory=Timer)
    queue: Timer = field(default_factory=Timer)
    compute_input: Timer = field(default_factory=Timer)
    compute_infer: Timer = field(default_factory=Timer)
    compute_output: Timer = field(default_factory=Timer)
    last_inference_ms: int = 0


@dataclass(slots=True)
class Margins:
    """What feedback has made of misses: for the choice of levels, and for what is refused. A refusal belongs to the
    first alone. It says that the queue was too long, not that what was let in is late, and refusing more for it would
    only bring more of the same.
    """

    planning: SafetyMargin = field(default_factory=SafetyMargin)
    admission: SafetyMargin = field(default_factory=SafetyMargin)


class HostedModel:
    """Used under the scheduler's lock; only `model`, `generator`, `name`, `profile` and `dial`, which never change, may
    be read without.
    """

    def __init__(self, model: Model, slo: Objective) -> None:
        self.model = model
        self.name = model.name
        self.profile: Profile = model.profile
        self.dial = Dial(model.profile)
        self.latency = LatencyModel()
        self.handover = UpperQuantile(0.2e-3, lowest=1e-6, highest=1.0)
        """Seconds from the end of a run to the outputs being in the event loop's hands."""
        self._margins = Margins()
        self._margins_of_own_slos = Margins()
        """Apart, so that a client that asks for what is hard to keep costs the others no quality."""
        self.guard = QualityGuard()
        self.gated = GatedWindow()
        self.tail = Tail()
        self.levels = RecentLevels()
        self.counts = Counts()
        self.waiting = 0
        self.running = 0
        self.shadow_agreed = 0
        self.shadow_disagreed = 0
        self.typical_macs = 0
        # Found out once: whether a model keeps a protocol takes long to see, and requests are many.
        self.generator = model if isinstance(model, Generator) else None
        self._sample_rate = model.sample_rate if isinstance(model, Transcriber) else 0
        self._audio_seconds = 0.0
        """Of the last request, where it had audio."""
        self._last_run: tuple[GateContext, int] | None = None
        """What the last run did, and on how many items."""
        self.slo = slo
        self._ceiling = self._ceiling_for(slo.quality_floor)

    def set_slo(self, slo: Objective) -> None:
        self.slo = slo
        self._ceiling = self._ceiling_for(slo.quality_floor)

    def ceiling(self, quality_floor: float | None, pinned: float | None) -> Ceiling:
        """How far the dial may go for a request with this floor of its own and this pinned level, if it has them."""
        if pinned is not None:
            return Ceiling(pinned, self.dial.macs_ratio(pinned), "pinned by the request")
        return self._ceiling if quality_floor is None else self._ceiling_for(quality_floor)

    def work(self, macs: int, ceiling: Ceiling, pinned: bool) -> Work:
        work = Work(self.latency.overhead, self.latency.scalable(macs))
        return Work(work.at(ceiling.macs_ratio)) if pinned else work

    def latency_of(self, request: Request) -> float:
        """Within what the SLO wants a request answered, seconds."""
        if self._sample_rate:
            self._audio_seconds = len(request.inputs["audio"]) / self._sample_rate
        return self._latency(self._audio_seconds)

    def _latency(self, audio_seconds: float) -> float:
        slo = self.slo
        return slo.latency_of(audio_seconds) if isinstance(slo, SpeechSLO) else slo.latency

    def target(self, asked: float, least: float) -> Target:
        """What to plan a request for, that asks for a latency and takes `least` seconds at its ceiling; seconds."""
        alone = least * self.latency.tail_ratio if self.latency.trusted else 0.0
        # However long the hand-over takes, most of the latency stays for the work.
        return plan(asked, alone, min(self.handover.value, asked / 4))

    def ran(self, entry: Entry, ran: Ran) -> None:
        """Learns from a run and counts its work."""
        context, macs = ran.context, ran.context.macs - ran.context.macs_skipped
        if self._sample_rate:
            # How long a text will be, nobody knows before: what is learned is the time of what was expected.
            macs = round(entry.macs * self.dial.macs_ratio(context.level))
        self.latency.observe(macs, ran.ended - ran.since)
        self.gated.add(ran.ended, context)
        batch = items(entry)
        self.counts.executions += 1
        self.counts.inferences += batch
        self.typical_macs = entry.macs
        self._last_run = (context, batch)

    def served(self, now: float, entry: Entry, ran: Ran) -> None:
        """Counts a request whose outputs were handed over at `now`."""
        self.handover.follow(now - ran.ended)
        counts = self.counts
        counts.success.add(now - entry.request.arrival)
        counts.queue.add(ran.taken - entry.admitted)
        counts.compute_input.add(entry.admitted - entry.request.arrival)
        counts.compute_infer.add(ran.ended - ran.started)
        counts.compute_output.add(now - ran.ended)
        counts.last_inference_ms = time.time_ns() // 1_000_000
        self.tail.add(now, now - entry.request.arrival)

    def advanced(self, now: float, context: GateContext, prompt: bool) -> None:
        """Counts the work of one step of a generation."""
        self.gated.add(now, context)
        if not prompt:
            self._last_run = (context, 1)

    def generated(self, now: float, input_seconds: float, finished: Finished) -> None:
        """Counts a generation that came to its end at `now`."""
        assert finished.tokens is not None
        counts = self.counts
        counts.inferences += 1
        counts.success.add(finished.duration)
        counts.queue.add(finished.queue_seconds)
        counts.compute_input.add(input_seconds)
        counts.compute_infer.add(finished.compute_seconds)
        counts.compute_output.add(0.0)
        counts.last_inference_ms = time.time_ns() // 1_000_000
        self.tail.add(now, finished.tokens.first_token_seconds)

    def refused(self, now: float, entry: Entry, avoidable: bool) -> None:
        """Counts a request that was refused: to the feedback, a miss where a higher level before would have left room
        for it.
        """
        self.counts.fail.add(now - entry.request.arrival)
        if avoidable and _can_be_helped(entry):
            self._margins_of(entry.request).planning.record(now, False, entry.slo.allowed_misses)

    def judge(self, now: float, entry: Entry, met: bool) -> None:
        """Tells the feedback of an outcome that it could have changed; `met` is with half of the plan's room."""
        if _can_be_helped(entry):
            margins = self._margins_of(entry.request)
            margins.planning.record(now, met, entry.slo.allowed_misses)
            margins.admission.record(now, met, entry.slo.allowed_misses)

    def margin(self, request: Request | GenerationRequest) -> SafetyMargin:
        """What feedback has made of the misses of requests like this one."""
        return self._margins_of(request).planning

    def admission_margin(self, request: Request | GenerationRequest) -> SafetyMargin:
        """The same, of those that were let in."""
        return self._margins_of(request).admission

    def _margins_of(self, request: Request | GenerationRequest) -> "Margins":
        return self._margins_of_own_slos if request.options.own_slo else self._margins

    def shadowed(self, level: float, agreement: float) -> None:
        """Counts a gated request that was run again dense."""
        self.guard.record(level, agreement, self.slo.quality_floor)
        if agreement >= self.slo.quality_floor:
            self.shadow_agreed += 1
        else:
            self.shadow_disagreed += 1
        self._ceiling = self._ceiling_for(self.slo.quality_floor)

    def snapshot(self, now: float, ready: bool) -> ModelSnapshot:
        total = self.gated.total
        return ModelSnapshot(
            name=self.name,
            version=self.model.version,
            ready=ready,
            gate=self._gate(now),
            statistics=self.statistics(),
            macs=total.macs,
            macs_skipped=total.macs_skipped,
            tail_seconds=self.tail.percentiles(now),
            shadow_agreed=self.shadow_agreed,
            shadow_disagreed=self.shadow_disagreed,
            queue_depth=self.waiting,
            inflight=self.running,
            last_active=self._last_active(),
        )

    def statistics(self) -> Statistics:
        counts = self.counts
        return Statistics(
            inference_count=counts.inferences,
            execution_count=counts.executions,
            success=counts.success.total(),
            fail=counts.fail.total(),
            queue=counts.queue.total(),
            compute_input=counts.compute_input.total(),
            compute_infer=counts.compute_infer.total(),
            compute_output=counts.compute_output.total(),
            last_inference_ms=counts.last_inference_ms,
        )

    def _gate(self, now: float) -> GateSnapshot:
        ceiling, margin = self._ceiling, self._margins.planning.at(now)
        work = self.work(self.typical_macs, ceiling, pinned=False)
        target = self.target(self._latency(self._audio_seconds), work.at(ceiling.macs_ratio))
        idle = choose_level(
            self.profile,
            ceiling,
            Demand(target.latency, work),
            margin=margin,
            tail_ratio=self.latency.tail_ratio,
        )
        recent = self.levels.mean(now)
        level = idle if recent is None else recent
        point, window, total = self.profile.at(level), self.gated.recent(now), self.gated.total.layers
        rates = layer_rates(window)
        layers = {
            layer: LayerGate(threshold, rates.get(layer), *total.get(layer, (0, 0)))
            for layer, threshold in point.thresholds.items()
        }
        return GateSnapshot(
            level=level,
            highest_level=ceiling.level,
            highest_reason=ceiling.reason,
            layers=layers,
            expected_skip_rate=point.skip_rate,
            expected_quality=point.quality,
            expected_quality_lower=point.quality_lower,
            live_agreement=self.guard.agreement,
            live_samples=self.guard.samples,
            skip_rate=window.skip_rate,
            macs_skipped=ratio(window.macs_skipped, window.macs),
            slo_attainable=target.attainable,
            safety_margin=margin,
        )

    def _last_active(self) -> dict[str, LastActive]:
        if self._last_run is None:
            return {}
        context, images = self._last_run
        return {name: LastActive(work.channels // images, work.last_active) for name, work in context.layers.items()}

    def _ceiling_for(self, quality_floor: float) -> Ceiling:
        limit = self.guard.limit
        return ceiling_of(self.profile, quality_floor, limit, self.guard.reason if limit < 1 else "")


def _can_be_helped(entry: Entry) -> bool:
    """Whether a margin changes anything for a request."""
    return entry.pinned is None and entry.attainable


def items(entry: Entry) -> int:
    """The batch: the length of the first input's first axis, where the model takes batches."""
    if entry.hosted.model.max_batch <= 1:
        return 1
    shape = next(iter(entry.request.inputs.values())).shape
    return int(shape[0]) if shape else 1

"""The rules of generations in virtual time: steps take what a formula says."""

from heapq import heappop, heappush
from itertools import count

from models.model import GateContext
from service.control.generation_slo import GenerationSLO
from service.engine.generation_step import run_step
from service.engine.generations import Generations
from service.engine.hosted import HostedModel
from service.engine.settings import EngineSettings
from service.errors import Refused, ServiceError
from tests.service.engine.fake_generator import FakeGenerator, generation

OVERHEAD = 0.002
PER_MAC = 8e-9
"""Seconds: a token of a million multiply-accumulates takes 8 ms, dense and alone 10 ms."""


def step_seconds(contexts, batched=1.0):
    """What a step takes; with `batched` below 1, those after the first cost so much of what they do."""
    macs = sorted((context.macs - context.macs_skipped for context in contexts), reverse=True)
    return OVERHEAD + PER_MAC * (macs[0] + batched * sum(macs[1:]))


class Virtual:
    """`done` has (the request's id, `Finished`), `lost` (its id, the error). Nothing is read of those in `unread`."""

    def __init__(self, slo, executors=1, batched=1.0, unread=(), **settings):
        model = FakeGenerator(endless=True, context_length=4000)
        self.hosted = HostedModel(model, slo)
        self.generations = Generations(EngineSettings(executors=executors, **settings), self._answer, lambda make: None)
        self.generations.host(self.hosted)
        self.pool = self.generations.pool(self.hosted)
        self.done, self.lost, self.levels = [], [], []
        self._free = list(range(executors))
        self._agenda, self._order = [], count()
        self._batched = batched
        self._unread = set(unread)
        self._learn()

    def run(self, requests):
        for request in requests:
            heappush(self._agenda, (request.arrival, next(self._order), self._arrive, request))
        while self._agenda:
            now, _, action, given = heappop(self._agenda)
            action(now, given)
            self._start(now)
        return self

    def _learn(self):
        """What a warm-up would have found."""
        forecast, profile = self.pool.forecast, self.hosted.profile
        for _ in range(30):
            for level in (0.0, 0.5, 1.0):
                ratio = profile.at(level).macs_ratio
                for latency, macs in ((forecast.tokens, 10**6), (forecast.prompts, 8 * 10**6)):
                    latency.observe(macs * ratio, OVERHEAD + PER_MAC * macs * ratio)
                context = GateContext(level, macs=100, macs_skipped=round(100 * (1 - ratio)))
                forecast.saw_part(context, ratio)
        forecast.saw_prompt(10, 10 * 10**6)
        forecast.saw_token(10**6)
        forecast.saw_generation(50)

    def _arrive(self, now, request):
        try:
            self.pool.admit(now, request)
        except Refused as error:
            self.lost.append((request.id, error))

    def _start(self, now):
        while self._free:
            executor = self._free.pop()
            step = self.generations.take(now, executor, None, len(self._free))
            if step is None:
                self._free.append(executor)
                return
            self.levels += [context.level for context in step.contexts]
            results = run_step(step)
            until = now + step_seconds(step.contexts, self._batched)
            heappush(self._agenda, (until, next(self._order), self._end, (executor, results)))

    def _end(self, now, given):
        executor, results = given
        self.generations.stepped(now, executor, results)
        self._free.append(executor)

    def _answer(self, entry, item):
        if isinstance(item, ServiceError):
            self.lost.append((entry.request.id, item))
        elif item.finished:
            self.done.append((entry.request.id, item.finished))
        elif entry.request.id not in self._unread:
            entry.unread = 0

    def attainment(self):
        """The share of all that met their SLO."""
        return sum(done.slo_met for _, done in self.done) / (len(self.done) + len(self.lost))


def stream(rate, seconds, prompt=40, tokens=50, first=0.0, **options):
    """Arrivals, evenly."""
    return [
        generation(f"{n:<{prompt}}", arrival=first + n / rate, max_tokens=tokens, **options)
        for n in range(round(rate * seconds))
    ]


def slo(first_token_ms=500, token_ms=20, floor=0.8, **more):
    return GenerationSLO(first_token_ms, token_ms, quality_floor=floor, **more)

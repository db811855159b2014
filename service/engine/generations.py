"""The generations of all language models: whose turn it is on an executor. Used under the scheduler's lock."""

from collections.abc import Hashable
from typing import Generic, TypeVar

from models.model import Generator
from service.engine.generation_entry import GenerationEntry
from service.engine.generation_pool import Answer, GenerationPool, Offer, Result, Step
from service.engine.hosted import HostedModel
from service.engine.settings import EngineSettings
from service.errors import Internal, ServiceError

E = TypeVar("E", bound=Hashable)


class Generations(Generic[E]):
    """`E` is what names an executor; `answer` and `offer` are as in `GenerationPool`."""

    def __init__(self, settings: EngineSettings, answer: Answer, offer: Offer) -> None:
        self._settings = settings
        self._answer = answer
        self._offer = offer
        self._pools: dict[HostedModel, GenerationPool] = {}
        self._retired: set[HostedModel] = set()
        self._steps: dict[E, Step] = {}
        self._stepped_last: set[E] = set()
        self._coming: set[E] = set()
        """Executors whose step is over and that have not asked for the next thing to do."""

    @property
    def any(self) -> bool:
        """Whether a language model is hosted."""
        return bool(self._pools)

    def pool(self, hosted: HostedModel) -> GenerationPool | None:
        """Those of one model; None where it is no language model, or not hosted any more."""
        return self._pools.get(hosted)

    def host(self, hosted: HostedModel) -> None:
        """A model is there; a language model gets a pool."""
        if isinstance(hosted.model, Generator):
            self._pools[hosted] = GenerationPool(hosted, self._settings, self._answer, self._offer)

    def forget(self, hosted: HostedModel, error: ServiceError) -> None:
        """The model is unloaded: what is left of its generations ends with `error`."""
        self._retired.discard(hosted)
        if pool := self._pools.pop(hosted, None):
            pool.clear(error)

    def retire(self, hosted: HostedModel) -> None:
        """Another takes the model's place; it is forgotten when its last generation has ended."""
        if hosted in self._pools:
            self._retired.add(hosted)
        self._forget_retired()

    def withdraw(self, entry: GenerationEntry) -> None:
        """Nobody waits for more of a generation: at most the step that it is in is still done."""
        if pool := self._pools.get(entry.hosted):
            pool.withdraw(entry)
            self._forget_retired()

    def clear(self, error: ServiceError) -> None:
        """Ends all with `error`."""
        for pool in self._pools.values():
            pool.clear(error)

    def sweep(self, now: float) -> None:
        """Drops those that wait and are dead."""
        for pool in self._pools.values():
            pool.sweep(now)

    def laxity(self, now: float) -> float | None:
        """Seconds that the most urgent step can wait; None where none is to be done."""
        return min(self._laxities(now), key=lambda found: found[0], default=(None, None))[0]

    def take(self, now: float, executor: E, request: float | None, idle: int) -> Step | None:
        """The next step for a free executor, if it is more urgent than the request that can wait `request` seconds
        (None: there is no such request). `idle` are other executors that have nothing to do.

        After a step a request is next: generations that are late would be the more urgent for ever.
        """
        self._coming.discard(executor)
        stepped_last = executor in self._stepped_last
        self._stepped_last.discard(executor)
        slack, pool = min(self._laxities(now), key=lambda found: found[0], default=(0.0, None))
        if pool is None or (request is not None and (stepped_last or request <= slack)):
            return None
        step = pool.take(now, idle + len(self._coming))
        if step is not None:
            self._steps[executor] = step
            self._stepped_last.add(executor)
        return step

    def stepped(self, now: float, executor: E, results: list[Result]) -> None:
        """The executor is done with its step."""
        step = self._steps.pop(executor)
        self._coming.add(executor)
        step.pool.stepped(now, step, results)
        self._forget_retired()

    def gave_up(self, executor: E, error: Internal) -> bool:
        """The executor hangs; whether it is in a step, whose generations end with `error`."""
        step = self._steps.pop(executor, None)
        if step is not None:
            step.pool.gave_up(step, error)
        return step is not None

    def _forget_retired(self) -> None:
        for hosted in [hosted for hosted in self._retired if not self._pools[hosted].busy]:
            self._retired.remove(hosted)
            del self._pools[hosted]

    def _laxities(self, now: float) -> list[tuple[float, GenerationPool]]:
        return [(slack, pool) for pool in self._pools.values() if (slack := pool.laxity(now)) is not None]

"""Shadow runs: a share of gated requests done again dense, for the quality guard, when nothing else is to be done."""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from models.model import GateContext
from service.engine.entry import Entry, Ran
from service.engine.hosted import HostedModel

log = logging.getLogger(__name__)

_WAITING = 4


class Shadow(Protocol):
    """Something gated to be done again dense. `seconds` is what that is predicted to take, at its upper quantile, and
    `alone` what a request like it takes at its ceiling.
    """

    @property
    def hosted(self) -> HostedModel: ...
    @property
    def level(self) -> float: ...
    @property
    def seconds(self) -> float: ...
    @property
    def alone(self) -> float: ...

    def run(self) -> float | None:
        """The agreement of what was served with the dense run, 0 to 1; None when the model failed. Its work is in no
        counter. Blocks.
        """


@dataclass(slots=True)
class RequestShadow:
    """A gated request."""

    hosted: HostedModel
    entry: Entry
    ran: Ran
    seconds: float

    @property
    def alone(self) -> float:
        return self.entry.least * self.hosted.latency.tail_ratio

    @property
    def level(self) -> float:
        return self.ran.context.level

    def run(self) -> float | None:
        model = self.hosted.model
        try:
            dense = model.run(self.entry.request.inputs, GateContext(0.0))
            agreement = model.agreement(self.ran.outputs, dense)
            if not 0 <= agreement <= 1:
                raise ValueError(f"an agreement is 0 to 1, got {agreement}")
            return agreement
        except Exception:
            log.exception("the shadow run of request %s failed", self.entry.request.id)
            return None


class Shadows:
    """Picks every n-th gated request and keeps a few until there is time; the newest push out the oldest."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._due = 0.0
        self._waiting: deque[Shadow] = deque(maxlen=_WAITING)

    def offer(self, make: Callable[[], Shadow]) -> None:
        """Something gated, under the model's own floor, has been served."""
        self._due += self._share
        if self._due >= 1:
            self._due -= 1
            self._waiting.append(make())

    def forget(self, hosted: HostedModel) -> None:
        """Gives up those of a model."""
        for shadow in [shadow for shadow in self._waiting if shadow.hosted is hosted]:
            self._waiting.remove(shadow)

    def take(self, spare: bool) -> Shadow | None:
        """One to run on an executor that has nothing to do; `spare` says that another has nothing to do either.

        Without a spare one, a request that arrives now would wait for the shadow run, and still has to meet its SLO at
        some level.
        """
        for shadow in self._waiting:
            if spare or shadow.seconds + shadow.alone <= shadow.hosted.slo.latency:
                self._waiting.remove(shadow)
                return shadow
        return None

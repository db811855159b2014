"""A request in the engine's hands, from admission to its result."""

import asyncio
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from models.model import GateContext
from service.control.generation_slo import Objective
from service.control.level import Ceiling
from service.control.load import Work
from service.engine.request import Request

if TYPE_CHECKING:
    from service.engine.hosted import HostedModel


@dataclass(slots=True)
class Ran:
    """A run's result. Times are the engine's clock: `since` is when it could have begun, its executor free and the
    request there; `taken` when the executor took it; `started` and `ended` are around the model's own run.
    """

    outputs: dict[str, NDArray[Any]]
    context: GateContext
    quality: float
    since: float
    taken: float
    started: float
    ended: float


Reply = asyncio.Future[Ran] | None
"""Where a result goes: looked at by the engine only, and None in a simulation."""


@dataclass(slots=True, eq=False)
class Entry:
    """`slo` is the one in force at arrival. `deadline` is arrival + the latency that was asked for; `due` is when the
    run has to be over for that, later than the deadline where it cannot be met; `planned` is when the plan wants it
    over. `expires` is the client's own, hard timeout. Times are the engine's clock.

    `work` is the predicted run, and `least` its seconds at the ceiling. A pinned level is its own ceiling, and nothing
    of its work scales.
    """

    request: Request
    hosted: "HostedModel"
    reply: Reply
    slo: Objective
    deadline: float
    due: float
    planned: float
    attainable: bool
    ceiling: Ceiling
    macs: int
    work: Work
    least: float
    admitted: float
    expires: float = inf
    withdrawn: bool = False
    """Nobody waits for it any more: a run of many steps ends at the next."""

    @property
    def pinned(self) -> float | None:
        return self.request.options.level

    @property
    def timed(self) -> bool:
        """Whether the client gave a timeout."""
        return self.expires < inf

    def dead(self, now: float) -> bool:
        """Past its timeout; or too late for its deadline at any level, where late answers are not wanted and one in
        time could be had.
        """
        return now >= self.expires or (self.slo.shed and self.attainable and now + self.least > self.due)

    @property
    def half_room(self) -> float:
        """Half of what the plan leaves unused, seconds: so much is left where requests are refused, and where the
        feedback takes one for late. Feedback that waited for real misses would hold the tail at the deadline.
        """
        return (self.due - self.planned) / 2

"""Where a request's end is told: once for each request, at one place."""

from dataclasses import dataclass
from typing import Protocol

from service.engine.request import Finished
from service.errors import Outcome


@dataclass(slots=True)
class RequestOutcome:
    """How a request ended.

    `model` is "" where the server does not know the name, so that clients cannot make new labels. `duration` is seconds
    from arrival. `slo_met` is None where the SLO does not apply: an invalid request, or one whose client went away.
    `finished` is there when the outcome is "ok".
    """

    model: str
    protocol: str
    outcome: Outcome
    duration: float
    slo_met: bool | None
    finished: Finished | None = None


class Observer(Protocol):
    """Is told how each request ended."""

    def finished(self, outcome: RequestOutcome) -> None:
        """Called in the event loop's thread, as the last act of a request; must not raise or block."""


class Unobserved:
    """Watches nothing."""

    def finished(self, outcome: RequestOutcome) -> None:
        pass

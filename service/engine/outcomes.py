"""How requests ended, told to the observer in its words."""

from collections.abc import Callable

from service.engine.generation import GenerationRequest
from service.engine.observer import Observer, RequestOutcome
from service.engine.request import Finished, Request
from service.errors import Internal, ServiceError

AnyRequest = Request | GenerationRequest


class Outcomes:
    """`label` is what a model is known by there, "" for a name that nobody knows; `clock` is that of the arrivals."""

    def __init__(self, observer: Observer, label: Callable[[str], str], clock: Callable[[], float]) -> None:
        self._observer = observer
        self._label = label
        self._clock = clock

    def served(self, request: AnyRequest, finished: Finished) -> None:
        self._observer.finished(
            RequestOutcome(request.model, request.protocol, "ok", finished.duration, finished.slo_met, finished)
        )

    def cancelled(self, request: AnyRequest) -> None:
        seconds = self._clock() - request.arrival
        self._observer.finished(
            RequestOutcome(self._label(request.model), request.protocol, "cancelled", seconds, None)
        )

    def faulty(self, request: AnyRequest, error: Exception) -> Internal:
        """A fault of ours; what to raise for it."""
        fault = Internal(f"the server failed on this request: {type(error).__name__}")
        self.failed(request.model, request.protocol, request.arrival, fault)
        return fault

    def failed(self, model: str, protocol: str, arrival: float, error: ServiceError) -> None:
        met = None if error.outcome in ("invalid", "cancelled") else False
        outcome = RequestOutcome(self._label(model), protocol, error.outcome, self._clock() - arrival, met)
        self._observer.finished(outcome)

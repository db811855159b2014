"""What goes wrong before a request is the engine's: it is counted all the same."""

import time
from types import TracebackType

from service.errors import Internal, ServiceError
from service.protocol.collaborators import InferenceEngine


class Intake:
    """While a request is received and parsed; `model` is what it names, "" until that is known, and `arrival` when all
    of it was there. An error inside is told to the engine, and leaves as a ServiceError.

    >>> with Intake(engine, "v2") as intake:            # doctest: +SKIP
    ...     body = await receive_body(headers, receive, limit)
    ...     intake.received()
    """

    __slots__ = ("_engine", "_protocol", "arrival", "model")

    def __init__(self, engine: InferenceEngine, protocol: str, model: str = "") -> None:
        self.model = model
        self.arrival = time.monotonic()
        self._engine = engine
        self._protocol = protocol

    def received(self) -> None:
        """All of it is there: a slow sender's own time is not the server's to make up for."""
        self.arrival = time.monotonic()

    def __enter__(self) -> "Intake":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, ServiceError):
            self._engine.reject(self.model, self._protocol, self.arrival, error)
        elif isinstance(error, Exception):
            fault = Internal(f"this request could not be read: {type(error).__name__}")
            self._engine.reject(self.model, self._protocol, self.arrival, fault)
            raise fault from error

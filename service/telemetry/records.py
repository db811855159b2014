"""What is known of each HTTP request: its id, the trace it belongs to, its status, and how what it asked for ended.

The engine tells the observer how a request ended, in the task that answers it; the record of that task keeps it until
the answer is sent. Then it is shown to whoever wants to write it down: the log, the spans.
"""

import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.engine.observer import Observer, RequestOutcome
from service.protocol.errors import unexpected_response
from service.protocol.request_id import HEADER, RequestIds
from service.protocol.trace_context import TraceParent, trace_parent


@dataclass(slots=True)
class RequestRecord:
    """`started` is `time.monotonic()` when the request's head was there, `seconds` runs from there to the end of the
    answer. `status` is 0 until an answer begins. `outcomes` has one for each inference that it asked for, most often
    one or none.
    """

    id: str
    method: str
    path: str
    started: float
    seconds: float = 0.0
    parent: TraceParent | None = None
    status: int = 0
    outcomes: list[RequestOutcome] = field(default_factory=list)


Watcher = Callable[[RequestRecord], None]
"""Is shown each request when its answer is sent; must not raise or block."""

CURRENT: ContextVar[RequestRecord | None] = ContextVar("sluice_request", default=None)
"""The record of the request that this task answers."""


class Recorded:
    """ASGI middleware: gives each request an id, which is in its answer's `x-request-id` too, and keeps its record.

    The outermost one. An error that nothing else made an answer of becomes one here, so that it has the id as well.
    """

    def __init__(self, app: ASGIApp, watchers: Sequence[Watcher] = ()) -> None:
        self._app = app
        self._watchers = tuple(watchers)
        self._ids = RequestIds()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = scope["headers"]
        request_id = self._ids.of(next((value for name, value in headers if name == HEADER), None))
        path = scope.get("raw_path") or scope["path"].encode()
        record = RequestRecord(request_id.decode(), scope["method"], path.decode("latin-1"), time.monotonic())
        if self._watchers:
            record.parent = trace_parent(headers)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), (HEADER, request_id)]}
            await send(message)

        token = CURRENT.set(record)
        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:
            if record.status:
                raise
            response = unexpected_response(record.method, record.path, error)
            await response(scope, receive, send_with_id)
        finally:
            record.seconds = time.monotonic() - record.started
            for watch in self._watchers:
                watch(record)
            CURRENT.reset(token)


class OnRecord:
    """An observer that notes each outcome on the record of its request, and tells it to another."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def finished(self, outcome: RequestOutcome) -> None:
        self._observer.finished(outcome)
        record = CURRENT.get()
        if record is not None:
            record.outcomes.append(outcome)

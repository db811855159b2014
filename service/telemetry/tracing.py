"""OpenTelemetry spans: a request, and in it the queue, the gate (choosing the level) and the run of the model.

They are made of a request's times when it has ended, so that nothing is paid before, and nothing at all, not even the
import, where tracing is off. It needs the extra `tracing`.
"""

import threading
import time
from collections.abc import Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING

from service.engine.observer import RequestOutcome
from service.protocol.trace_context import TraceParent
from service.telemetry.records import RequestRecord

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.util.types import AttributeValue

CLOSE_SECONDS = 3.0


class TracingMissing(RuntimeError):
    """Tracing is wanted and its packages are not installed; the message says how to."""


def send_spans() -> "Spans":
    """Spans that are sent by OTLP over HTTP, in batches and on a thread of their own.

    The variables of OpenTelemetry say where to (`OTEL_EXPORTER_OTLP_ENDPOINT`, by default http://localhost:4318), which
    (`OTEL_TRACES_SAMPLER`) and under which name (`OTEL_SERVICE_NAME`). Raises TracingMissing.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise TracingMissing(f"tracing: {error}: pip install 'sluice-serve[tracing]'") from error
    ours = Resource({"service.name": "sluice", "service.version": version("sluice-serve")})
    provider = TracerProvider(shutdown_on_exit=False, resource=ours.merge(OTELResourceDetector().detect()))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Spans(provider)


class Spans:
    """Watches requests (`service.telemetry.records.Watcher`) and makes spans of those that asked for an inference."""

    def __init__(self, provider: "TracerProvider") -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("sluice", version("sluice-serve"))

    def __call__(self, record: RequestRecord) -> None:
        if not record.outcomes:
            return
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        epoch = time.time() - time.monotonic()
        span = self._tracer.start_span(
            f"infer {record.outcomes[-1].model}".strip(),
            _within(record.parent),
            SpanKind.SERVER,
            dict(_of_request(record)),
            start_time=_nanoseconds(epoch + record.started),
        )
        if span.is_recording():
            inside = set_span_in_context(span)
            for outcome in record.outcomes:
                for name, start, end, attributes in _parts(outcome):
                    part = self._tracer.start_span(
                        name, inside, SpanKind.INTERNAL, attributes, start_time=_nanoseconds(epoch + start)
                    )
                    part.end(_nanoseconds(epoch + end))
            if record.status >= 500 or not record.status:
                span.set_status(Status(StatusCode.ERROR, record.outcomes[-1].outcome))
        span.end(_nanoseconds(epoch + record.started + record.seconds))

    def close(self) -> None:
        """Sends what is left, as far as that is possible in `CLOSE_SECONDS`: one would try a collector that is gone for
        longer than a server should take to stop.
        """
        closing = threading.Thread(target=self._provider.shutdown, name="sluice-spans", daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)


def _within(parent: TraceParent | None) -> "Context":
    """The context of a client's span; an empty one where it sent none."""
    from opentelemetry.context import Context
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState, set_span_in_context

    if parent is None:
        return Context()
    flags = TraceFlags(TraceFlags.SAMPLED if parent.sampled else TraceFlags.DEFAULT)
    state = TraceState.from_header(list(parent.state))
    client = SpanContext(int(parent.trace_id, 16), int(parent.span_id, 16), True, flags, state)
    return set_span_in_context(NonRecordingSpan(client), Context())


def _of_request(record: RequestRecord) -> Iterator[tuple[str, "AttributeValue"]]:
    outcome = record.outcomes[-1]
    yield "http.request.method", record.method
    yield "url.path", record.path
    if record.status:
        yield "http.response.status_code", record.status
    yield "sluice.request_id", record.id
    yield "sluice.model", outcome.model
    yield "sluice.outcome", outcome.outcome
    if outcome.slo_met is not None:
        yield "sluice.slo_met", outcome.slo_met


def _parts(outcome: RequestOutcome) -> Iterator[tuple[str, float, float, dict[str, "AttributeValue"]]]:
    """Name, start, end and attributes of what a computed request went through, on the clock of the engine."""
    done = outcome.finished
    if done is None:
        return
    context = done.context
    yield "queue", done.taken - done.queue_seconds, done.taken, {}
    yield "gate", done.taken, done.started, {"sluice.level": done.level, "sluice.quality": done.quality}
    work = {"sluice.skip_rate": context.skip_rate, "sluice.macs_skipped": context.macs_skipped_ratio}
    yield "compute", done.started, done.started + done.compute_seconds, {"sluice.model": outcome.model, **work}


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)

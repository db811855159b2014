"""Spans, in memory and as an OTLP collector receives them."""

import gzip
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from models.model import GateContext
from service.engine.observer import RequestOutcome
from service.engine.request import Finished
from service.protocol.trace_context import TraceParent
from service.telemetry.records import RequestRecord
from service.telemetry.tracing import Spans
from tests.live import infer_body, serve

TRACE, CLIENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def memory():
    return InMemorySpanExporter()


@pytest.fixture
def spans(memory) -> Spans:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(memory))
    return Spans(provider)


def computed(now: float) -> RequestOutcome:
    """In the queue for 2 ms, at the gate for 1 ms, in the model for 4 ms; 10 ms ago it was there."""
    context = GateContext(0.25, macs=100, macs_skipped=40)
    finished = Finished("7", {}, 0.25, 0.99, context, 0.002, 0.004, 0.01, True, True, now - 0.007, now - 0.006)
    return RequestOutcome("fashion", "v2", "ok", 0.01, True, finished)


def record(*outcomes, now, parent=None, status=200) -> RequestRecord:
    return RequestRecord("r-1", "POST", "/v2/models/fashion/infer", now - 0.01, 0.01, parent, status, list(outcomes))


def test_a_request_and_its_parts(spans, memory):
    now = time.monotonic()
    spans(record(computed(now), now=now, parent=TraceParent(TRACE, CLIENT, True, ("a=1",))))
    found = {span.name: span for span in memory.get_finished_spans()}
    assert set(found) == {"infer fashion", "queue", "gate", "compute"}
    request = found.pop("infer fashion")
    assert request.kind is SpanKind.SERVER
    assert f"{request.context.trace_id:032x}" == TRACE
    assert f"{request.parent.span_id:016x}" == CLIENT
    assert request.context.trace_state.get("a") == "1"
    assert request.attributes["sluice.request_id"] == "r-1"
    assert (request.attributes["sluice.outcome"], request.attributes["http.response.status_code"]) == ("ok", 200)
    assert request.status.status_code is StatusCode.UNSET
    assert all(part.parent.span_id == request.context.span_id for part in found.values())
    queue, gate, compute = found["queue"], found["gate"], found["compute"]
    lengths = [(span.end_time - span.start_time) / 1e6 for span in (request, queue, gate, compute)]
    assert lengths == pytest.approx([10, 2, 1, 4], abs=0.01)
    assert request.start_time <= queue.start_time <= queue.end_time == gate.start_time
    assert gate.end_time == compute.start_time <= compute.end_time <= request.end_time
    assert abs(request.end_time / 1e9 - time.time()) < 5
    assert gate.attributes["sluice.level"] == 0.25
    assert compute.attributes["sluice.macs_skipped"] == 0.4


def test_a_request_without_a_trace_begins_one(spans, memory):
    now = time.monotonic()
    for _ in range(2):
        spans(record(computed(now), now=now))
    assert len({span.context.trace_id for span in memory.get_finished_spans()}) == 2


def test_what_its_client_does_not_record_is_not_recorded(spans, memory):
    now = time.monotonic()
    spans(record(computed(now), now=now, parent=TraceParent(TRACE, CLIENT, False)))
    assert memory.get_finished_spans() == ()


def test_a_state_that_cannot_be_read_costs_only_itself(spans, memory):
    now = time.monotonic()
    spans(record(computed(now), now=now, parent=TraceParent(TRACE, CLIENT, True, ("=;, x",))))
    assert f"{memory.get_finished_spans()[0].context.trace_id:032x}" == TRACE


def test_a_refusal_is_an_error_without_parts(spans, memory):
    now = time.monotonic()
    spans(record(RequestOutcome("fashion", "v2", "refused", 0.001, False), now=now, status=503))
    (span,) = memory.get_finished_spans()
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "refused")
    assert span.attributes["sluice.slo_met"] is False


def test_a_request_that_asks_for_no_inference_has_no_span(spans, memory):
    spans(record(now=time.monotonic()))
    assert memory.get_finished_spans() == ()


@contextmanager
def collector():
    """An OTLP/HTTP receiver: its address, and the requests that it was sent."""
    received: list[tuple[str, ExportTraceServiceRequest]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            received.append((self.path, ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", received
        server.shutdown()
        thread.join()


def test_a_collector_receives_the_spans_of_a_server(model, images, tmp_path, monkeypatch):
    with collector() as (address, received):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
        with serve([model], tmp_path, tracing=True, shadow_share=0.0) as live:
            infer = "/v2/models/fashion/infer"
            headers = {"traceparent": f"00-{TRACE}-{CLIENT}-01", "x-request-id": "mine"}
            answer = live.http.post(infer, json=infer_body(images[:1], level=0.5), headers=headers)
            live.http.post(infer, content=b"{", headers={"traceparent": f"00-{TRACE.upper()}-{CLIENT}-01"})
            live.http.get("/metrics")
    assert {path for path, _ in received} == {"/v1/traces"}
    resources = [part for _, request in received for part in request.resource_spans]
    assert {value.value.string_value for part in resources for value in part.resource.attributes} >= {"shop"}
    spans = [span for part in resources for scope in part.scope_spans for span in scope.spans]
    ours = {span.name: span for span in spans if span.trace_id.hex() == TRACE}
    assert set(ours) == {"infer fashion", "queue", "gate", "compute"}
    assert ours["infer fashion"].parent_span_id.hex() == CLIENT
    known = {item.key: item.value for item in ours["infer fashion"].attributes}
    assert known["sluice.request_id"].string_value == "mine" == answer.headers["x-request-id"]
    compute = ours["compute"].end_time_unix_nano - ours["compute"].start_time_unix_nano
    assert compute / 1e6 == pytest.approx(answer.json()["parameters"]["compute_ms"], abs=0.01)
    (other,) = [span for span in spans if span.trace_id.hex() != TRACE]
    assert not other.parent_span_id, "a malformed traceparent is as if it were not there"


def test_a_collector_that_is_not_there_costs_no_request(model, images, tmp_path, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    with serve([model], tmp_path, tracing=True) as live:
        for _ in range(5):
            assert live.http.post("/v2/models/fashion/infer", json=infer_body(images[:1])).status_code == 200
            time.sleep(0.03)
        stopping = time.monotonic()
    assert time.monotonic() - stopping < 5


def test_without_tracing_nothing_of_it_is_imported():
    code = (
        "import sys, tempfile; from pathlib import Path\n"
        "from service.app import create_app; from service.settings import load_settings\n"
        "from tests.tiny_model import tiny_model; from fastapi.testclient import TestClient\n"
        "with TestClient(create_app(load_settings(home=Path(tempfile.mkdtemp())), [tiny_model()])) as client:\n"
        "    headers = {'traceparent': '00-' + 'a' * 32 + '-' + 'b' * 16 + '-01'}\n"
        "    assert client.post('/v2/models/fashion/infer', content=b'{', headers=headers).status_code == 400\n"
        # The framework imports the API, which does nothing by itself.
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_without_its_packages_it_says_how_to_install_them(monkeypatch):
    from service.telemetry.tracing import TracingMissing, send_spans

    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(TracingMissing, match=r"pip install 'sluice-serve\[tracing\]'"):
        send_spans()

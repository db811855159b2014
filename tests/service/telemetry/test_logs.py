"""The log as a process that reads it sees it: lines."""

import io
import json
import logging
import re
from contextlib import contextmanager

import pytest

from models.model import GateContext
from service.engine.observer import RequestOutcome
from service.engine.request import Finished
from service.protocol.trace_context import TraceParent
from service.telemetry.logs import JsonLines, TextLines, log_request
from service.telemetry.records import CURRENT, RequestRecord
from tests.live import infer_body, serve

HOSTILE = "a\nb\r\x1b[2J\u2028c\u202ed\x00"
TEXT_LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [A-Z]+ \S+: ")


@contextmanager
def written(formatter: logging.Formatter, level=logging.INFO):
    """A logger, and a function that reads the lines that it wrote."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logger = logging.getLogger("sluice")
    logger.addHandler(handler)
    before, logger.level = logger.level, level
    try:
        yield logger, lambda: stream.getvalue().split("\n")[:-1]
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


@contextmanager
def answering(record: RequestRecord):
    token = CURRENT.set(record)
    try:
        yield
    finally:
        CURRENT.reset(token)


def record(**changes) -> RequestRecord:
    return RequestRecord(**{"id": "r-1", "method": "POST", "path": "/v2/x", "started": 0.0, "status": 200, **changes})


def fail():
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        logging.getLogger("sluice").exception("it failed on %s", HOSTILE)


def test_each_event_is_one_json_object():
    with written(JsonLines()) as (logger, lines):
        logger.warning("hello %s", HOSTILE)
        logger.info("%s", 1 << 80, extra={"fields": {"big": 1 << 80, "half": "\ud800"}})
        fail()
        first, second, third = map(json.loads, lines())
    assert first["message"] == f"hello {HOSTILE}"
    assert (first["severity"], first["logger"]) == ("warning", "sluice")
    assert first["time"].endswith("Z")
    assert "request_id" not in first
    assert second["big"] == 1 << 80
    assert "ValueError" in third["error"] and "Traceback" in third["error"]


def test_text_cannot_be_forged():
    with written(TextLines()) as (logger, lines):
        logger.warning("hello %s", HOSTILE, extra={"fields": {"id": HOSTILE, "n": 1.5, "none": None, "two": "a b"}})
        fail()
        text = lines()
    events = [line for line in text if TEXT_LINE.match(line)]
    assert len(events) == 2
    assert all(line.startswith("    ") for line in text if line not in events)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u2028\u202e]", "".join(text))
    assert events[0].endswith(r' n=1.5 none=null two="a b"')
    assert r"hello a\nb\r\x1b[2J\u2028c" in events[0]


@pytest.mark.parametrize("formatter", [JsonLines(), TextLines()])
def test_a_line_says_which_request_it_belongs_to(formatter):
    with written(formatter) as (logger, lines), answering(record(parent=TraceParent("ab" * 16, "cd" * 8, True))):
        logger.error("oh")
        (line,) = lines()
    assert "r-1" in line and "ab" * 16 in line


def test_a_request_is_written_down_with_its_outcome_level_and_times():
    context = GateContext(0.25, macs=100, macs_skipped=40)
    context.record("conv", channels=10, active=4)
    finished = Finished(HOSTILE, {}, 0.25, 0.991, context, 0.001, 0.004, 0.006, True)
    seen = record(seconds=0.0065, outcomes=[RequestOutcome("fashion", "v2", "ok", 0.006, True, finished)])
    with written(JsonLines()) as (_, lines), answering(seen):
        log_request(seen)
        (line,) = map(json.loads, lines())
    expected = {
        "severity": "info",
        "request_id": "r-1",
        "method": "POST",
        "path": "/v2/x",
        "status": 200,
        "duration_ms": 6.5,
        "model": "fashion",
        "protocol": "v2",
        "outcome": "ok",
        "slo_met": True,
        "id": HOSTILE,
        "level": 0.25,
        "quality": 0.991,
        "skip_rate": 0.6,
        "macs_skipped": 0.4,
        "queue_ms": 1.0,
        "compute_ms": 4.0,
    }
    assert {name: line.get(name) for name in expected} == expected


def test_a_request_that_computed_nothing_has_its_outcome_alone():
    seen = record(status=503, outcomes=[RequestOutcome("fashion", "v2", "refused", 0.001, False)])
    with written(JsonLines()) as (_, lines):
        log_request(seen)
        (line,) = map(json.loads, lines())
    assert (line["status"], line["outcome"], line["slo_met"]) == (503, "refused", False)
    assert "level" not in line and "queue_ms" not in line


def test_above_its_level_nothing_is_written():
    with written(JsonLines(), logging.WARNING) as (_, lines):
        log_request(record())
        assert lines() == []


def test_a_server_logs_each_request_with_the_id_that_it_answered(model, images, tmp_path):
    forged = '1"}\\n{"severity":"error'
    with written(JsonLines()) as (_, lines), serve([model], tmp_path, access_log=True) as live:
        infer = "/v2/models/fashion/infer"
        answers = [
            live.http.post(infer, json=infer_body(images[:1], level=1.0), headers={"x-request-id": "mine"}),
            live.http.post(infer, json=infer_body(images[:1]) | {"id": HOSTILE}, headers={"x-request-id": forged}),
            live.http.post(infer, content=b"{"),
            live.http.post("/v2/models/nobody/infer", content=b"{}"),
            live.http.get("/%0Aforged"),
        ]
        found = [json.loads(line) for line in lines()]
    assert [line["request_id"] for line in found] == [answer.headers["x-request-id"] for answer in answers]
    assert [line["status"] for line in found] == [200, 200, 400, 404, 404]
    assert [line.get("outcome") for line in found] == ["ok", "ok", "invalid", "invalid", None]
    assert answers[0].headers["x-request-id"] == "mine"
    assert answers[0].json()["parameters"]["level"] == found[0]["level"] == 1
    assert answers[0].json()["parameters"]["queue_ms"] == pytest.approx(found[0]["queue_ms"], abs=0.001)
    assert found[0]["duration_ms"] >= found[0]["queue_ms"] + found[0]["compute_ms"]
    assert found[1]["id"] == HOSTILE
    assert found[1]["request_id"] == "1nseverity:error"


def test_a_server_that_is_not_asked_to_logs_none(server, images):
    with written(JsonLines()) as (_, lines):
        server.http.post("/v2/models/fashion/infer", json=infer_body(images[:1]))
        assert lines() == []

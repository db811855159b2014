"""Where a request's time goes: the parts of the server's own path, each timed alone on the same request."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry

from loadtest.benchmarks.overhead_server import Nothing
from models.model import GateContext
from service.engine.dispatch import Dispatch
from service.engine.engine import Engine
from service.engine.entry import Ran
from service.engine.hosted import HostedModel
from service.engine.observer import RequestOutcome, Unobserved
from service.engine.request import Finished, Request
from service.engine.settings import EngineSettings
from service.engine.slo_store import MemorySloStore
from service.protocol.disconnect import Caller, unless_disconnected
from service.protocol.limits import Limits
from service.protocol.v2_infer import parameters_of
from service.protocol.v2_request import parse_infer
from service.protocol.v2_response import render_infer
from service.telemetry.metrics import RequestMetrics

REPEATS = 2000
ROUNDS = 5
METRICS = "metrics"


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the path and the seconds of processor time that it takes."""

    name: str
    seconds: float


async def phases(body: bytes, json_length: str, repeats: int = REPEATS) -> list[Phase]:
    """The phases of one request in processor time, the best of a few rounds each."""
    model, limits = Nothing(), Limits()
    hosted = HostedModel(model, EngineSettings().default_slo)
    dispatch: Dispatch[int] = Dispatch(1, 1024, 0.0, lambda entry, error: None)
    metrics = RequestMetrics(CollectorRegistry(), [model.name])

    def parse() -> Any:
        return parse_infer(body, json_length, model.inputs, model.outputs, limits)

    inputs = parse().inputs

    def control() -> Finished:
        now = time.monotonic()
        request = Request("", model.name, inputs, now)
        model.check(inputs)
        entry = dispatch.admit(now, hosted, request, model.dense_macs(inputs), idle=True)
        assignment: Any = dispatch.take(now, 0, spare=False)
        context = GateContext(assignment.level)
        context.record("layer", 64, 64)
        context.macs = 1000
        ran = Ran({"y": np.zeros((1, 1), np.float32)}, context, 1.0, now, now, now, now)
        dispatch.ended(now, 0)
        dispatch.ran(entry, ran)
        return dispatch.served(now, entry, ran)

    finished = control()

    def render() -> Any:
        outputs = parse().outputs
        return render_infer(model.name, "1", "", model.outputs, finished.outputs, outputs, parameters_of(finished))

    def count() -> None:
        metrics.finished(RequestOutcome(model.name, "v2", "ok", 0.001, True, finished))

    async with _engine(model) as engine:

        async def submit() -> Finished:
            return await engine.submit(Request("", model.name, inputs, time.monotonic()))

        async def nothing() -> None:
            await asyncio.sleep(0)

        caller = Caller()

        async def watched() -> None:
            await unless_disconnected(nothing(), _never, caller)

        whole = await _timed(submit, repeats)
        watching = await _timed(watched, repeats)
    parsing, deciding = _time(parse, repeats), _time(control, repeats)
    return [
        Phase("parse the request", parsing),
        Phase("watch for a client that leaves", watching),
        Phase("admission, queue, level, learning", deciding),
        Phase("to an executor's thread and back", max(whole - deciding, 0.0)),
        Phase("render the answer", max(_time(render, repeats) - parsing, 0.0)),
        Phase(METRICS, _time(count, repeats)),
    ]


def _time(call: Callable[[], Any], repeats: int) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.process_time()
        for _ in range(repeats):
            call()
        best = min(best, time.process_time() - started)
    return best / repeats


async def _timed(call: Callable[[], Awaitable[Any]], repeats: int) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.process_time()
        for _ in range(repeats):
            await call()
        best = min(best, time.process_time() - started)
    return best / repeats


async def _never() -> Any:
    await asyncio.Event().wait()


@asynccontextmanager
async def _engine(model: Nothing) -> AsyncIterator[Engine]:
    engine = Engine([model], EngineSettings(executors=1), MemorySloStore(), Unobserved())
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop(1.0)

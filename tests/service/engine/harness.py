"""A running engine, and models that can be held in the middle of a run."""

import asyncio
import threading
import time
from contextlib import asynccontextmanager

from service.control.slo import SLO
from service.engine.engine import Engine
from service.engine.settings import EngineSettings
from service.engine.slo_store import MemorySloStore
from tests.service.engine.fakes import FakeModel, Watcher, linear_profile
from tests.service.engine.fakes import request as request_at

WIDE = SLO(latency_ms=10_000, percentile=99, quality_floor=0.9)


def request(value=1.0, **options):
    return request_at(value, arrival=time.monotonic(), **options)


@asynccontextmanager
async def running(*models, watcher=None, store=None, load=None, **settings):
    settings = {"executors": 1, "warmup_runs": 0, "shadow_share": 0.0, "default_slo": WIDE} | settings
    engine = Engine(models, EngineSettings(**settings), store or MemorySloStore(), watcher or Watcher(), load=load)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop(grace_seconds=1.0)


class Held:
    """Work that begins and then waits to be let go, for inputs below 0 only."""

    def __init__(self):
        self.begun, self.free = threading.Event(), threading.Event()

    def __call__(self, value, context):
        if value < 0:
            self.begun.set()
            assert self.free.wait(5)

    async def occupy(self, engine, **options):
        """Takes one executor; the request's task."""
        self.begun.clear()
        task = asyncio.create_task(engine.submit(request(-1.0, **options)))
        assert await asyncio.to_thread(self.begun.wait, 5)
        return task


async def until(condition):
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.002)
    raise AssertionError("it did not come to be")


async def queued(engine, *requests):
    """Submits requests that find every executor busy, and waits until all of them wait."""
    tasks = [asyncio.create_task(engine.submit(one)) for one in requests]
    await until(lambda: engine.queue_depth("fake") == len(tasks))
    return tasks


def sleepy(dense):
    """A run of `dense` seconds, less in proportion to the MACs that its level skips."""
    profile = linear_profile()
    return FakeModel(
        profile=profile, work=lambda value, context: time.sleep(dense * profile.at(context.level).macs_ratio)
    )

"""A run of many steps ends when nobody waits for it any more."""

import asyncio
import threading
import time

import pytest

from service.errors import Expired, Unavailable
from tests.service.engine.fakes import FakeModel, Watcher
from tests.service.engine.harness import request, running


class Steps:
    """Work of a step a millisecond, that goes on until it is told to stop; for inputs below 0 only."""

    def __init__(self):
        self.begun, self.ended, self.count = threading.Event(), threading.Event(), 0

    def __call__(self, value, context):
        if value >= 0:
            return
        self.begun.set()
        try:
            until = time.monotonic() + 5
            while time.monotonic() < until:
                context.check_wanted()
                self.count += 1
                time.sleep(0.001)
        finally:
            self.ended.set()


async def test_a_client_that_leaves_ends_its_run():
    steps, watcher = Steps(), Watcher()
    async with running(FakeModel(work=steps), watcher=watcher) as engine:
        task = asyncio.create_task(engine.submit(request(-1.0)))
        await asyncio.to_thread(steps.begun.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(steps.ended.wait, 1)
        assert (await engine.submit(request())).level == 0
        assert watcher.outcomes == ["cancelled", "ok"]
        assert engine.inflight("fake") == 0


async def test_a_timeout_ends_its_run():
    steps, watcher = Steps(), Watcher()
    async with running(FakeModel(work=steps), watcher=watcher) as engine:
        with pytest.raises(Expired):
            await engine.submit(request(-1.0, timeout_us=50_000))
        assert await asyncio.to_thread(steps.ended.wait, 1)
        assert (await engine.submit(request())).level == 0
        assert watcher.outcomes == ["expired", "ok"]


async def test_a_server_that_stops_does_not_wait_for_it():
    steps = Steps()
    async with running(FakeModel(work=steps)) as engine:
        task = asyncio.create_task(engine.submit(request(-1.0)))
        await asyncio.to_thread(steps.begun.wait, 5)
        await engine.stop(grace_seconds=0.01)
        with pytest.raises(Unavailable):
            await task
        assert await asyncio.to_thread(steps.ended.wait, 1)

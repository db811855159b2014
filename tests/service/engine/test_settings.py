import asyncio
import threading

import pytest

from service.engine.cores import usable_cores
from service.engine.settings import EngineSettings
from tests.service.engine.fakes import FakeModel
from tests.service.engine.harness import request, running


def test_one_executor_a_core_unless_told_otherwise():
    assert EngineSettings().executors == usable_cores()
    assert EngineSettings(executors=2).executors == 2


@pytest.mark.parametrize("executors", [1, 3])
async def test_as_many_requests_run_at_once_as_there_are_executors_and_each_in_one_thread(executors):
    together, most, threads, lock = 0, 0, set(), threading.Lock()
    release = threading.Event()

    def work(value, context):
        nonlocal together, most
        with lock:
            together += 1
            most = max(most, together)
            threads.add(threading.get_ident())
        release.wait(0.2)
        with lock:
            together -= 1

    async with running(FakeModel(work=work), executors=executors) as engine:
        await asyncio.gather(*(engine.submit(request()) for _ in range(2 * executors)))
    assert most == executors
    assert len(threads) == executors


@pytest.mark.parametrize(
    ("name", "value"),
    [("executors", 0), ("threads", 0), ("queue_limit", 0), ("hang_seconds", 0.0), ("shadow_share", 1.5)],
)
def test_what_cannot_be_is_named(name, value):
    with pytest.raises(ValueError, match=name):
        EngineSettings(**{name: value})


@pytest.mark.skipif(usable_cores() < 2, reason="there is one core")
async def test_each_run_has_the_threads_of_its_executor():
    seen = []
    model = FakeModel(work=lambda value, context: seen.append(context.threads))
    async with running(model, executors=1, threads=2) as engine:
        await asyncio.gather(*(engine.submit(request()) for _ in range(3)))
    assert [threads.count for threads in seen[-3:]] == [2, 2, 2]
    assert len(set(map(id, seen[-3:]))) == 1


async def test_a_run_is_alone_unless_told_otherwise():
    seen = []
    async with running(FakeModel(work=lambda value, context: seen.append(context.threads))) as engine:
        await engine.submit(request())
    assert seen[-1] is None


def test_threads_never_outnumber_the_cores():
    cores = usable_cores()
    EngineSettings(executors=cores + 1)
    with pytest.raises(ValueError, match="threads must leave a core to each"):
        EngineSettings(executors=cores, threads=2)

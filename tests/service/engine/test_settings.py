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
    ("name", "value"), [("executors", 0), ("queue_limit", 0), ("hang_seconds", 0.0), ("shadow_share", 1.5)]
)
def test_what_cannot_be_is_named(name, value):
    with pytest.raises(ValueError, match=name):
        EngineSettings(**{name: value})

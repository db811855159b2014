"""Long texts are taken apart beside the event loop."""

import threading

import numpy as np
import pytest

from models.model import InvalidInput
from service.engine.engine import Engine
from service.engine.long_texts import LONG, beside_the_loop_if
from service.engine.request import Request
from service.engine.settings import EngineSettings
from service.engine.slo_store import MemorySloStore
from service.errors import InvalidRequest
from tests.service.engine.fakes import FakeModel, Watcher


async def test_only_a_long_one_changes_the_thread():
    loop = threading.get_ident()
    assert await beside_the_loop_if(LONG, threading.get_ident) == loop
    assert await beside_the_loop_if(LONG + 1, threading.get_ident) != loop


@pytest.mark.parametrize(("texts", "beside"), [([b"x"] * 256, False), ([b"x" * 1000] * 9, True)])
async def test_a_request_of_long_texts_is_checked_beside_the_loop(texts, beside):
    model, threads = FakeModel(), []

    def check(inputs):
        threads.append(threading.get_ident())
        raise InvalidInput("x", "is refused")

    model.check = check
    engine = Engine([model], EngineSettings(executors=1, warmup_runs=0), MemorySloStore(), Watcher())
    await engine.start()
    threads.clear()
    with pytest.raises(InvalidRequest, match="is refused"):
        await engine.submit(Request("", model.name, {"x": np.array(texts, object)}, 0.0))
    await engine.stop(grace_seconds=0.5)
    assert [thread != threading.get_ident() for thread in threads] == [beside]

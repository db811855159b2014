"""Faults of the server's own: each costs its own request at most, and is counted."""

import asyncio

import pytest

from service.control.latency_model import LatencyModel
from service.engine import dispatch
from service.engine.dispatch import Dispatch
from service.engine.hosted import HostedModel
from service.errors import Internal
from tests.service.engine.fakes import FakeModel, Watcher
from tests.service.engine.harness import Held, request, running


def fail(*arguments, **options):
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        pytest.param(dispatch, "plan_entry", id="admission"),
        pytest.param(dispatch, "choose_level", id="choice of level"),
        pytest.param(HostedModel, "served", id="hand-over"),
    ],
)
async def test_a_fault_of_the_control_is_an_error_and_the_next_request_is_served(monkeypatch, owner, name):
    watcher = Watcher()
    async with running(FakeModel(), watcher=watcher) as engine:
        with monkeypatch.context() as broken:
            broken.setattr(owner, name, fail)
            for _ in range(3):
                with pytest.raises(Internal, match="ZeroDivisionError"):
                    await engine.submit(request())
        assert (await engine.submit(request())).level == 0.0
        assert watcher.outcomes == ["error"] * 3 + ["ok"]
        assert engine.queue_depth("fake") == engine.inflight("fake") == 0


async def test_outputs_that_cannot_be_learned_from_are_served(monkeypatch):
    watcher = Watcher()
    async with running(FakeModel(), watcher=watcher) as engine:
        with monkeypatch.context() as broken:
            broken.setattr(LatencyModel, "observe", fail)
            for _ in range(3):
                await engine.submit(request())
        await engine.submit(request())
        assert watcher.outcomes == ["ok"] * 4


async def test_a_sweep_that_fails_is_not_the_last(monkeypatch):
    work, watcher = Held(), Watcher()
    model = FakeModel(work=work)
    async with running(model, watcher=watcher, hang_seconds=0.2) as engine:
        with monkeypatch.context() as broken:
            broken.setattr(Dispatch, "sweep", fail)
            hanging = await work.occupy(engine)
            await asyncio.sleep(0.4)
            assert not hanging.done()
        with pytest.raises(Internal, match="given up"):
            await hanging
        work.free.set()

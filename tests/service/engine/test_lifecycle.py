"""Loading, unloading, stopping, hanging; and the SLOs that outlive a server."""

import asyncio
import gc
import logging
import time
import weakref
from contextlib import suppress

import pytest

from service.control.slo import SLO
from service.engine.slo_store import MemorySloStore, SloStoreError, SqliteSloStore
from service.errors import Internal, InvalidRequest, NotFound, Unavailable
from tests.service.engine.fakes import FakeModel, Watcher
from tests.service.engine.harness import WIDE, Held, queued, request, running, sleepy, until


async def test_a_run_that_hangs_is_given_up_and_its_executor_replaced():
    held = Held()
    async with running(FakeModel(work=held), hang_seconds=0.2) as engine:
        with pytest.raises(Internal, match=r"longer than 0\.\d s and was given up"):
            await engine.submit(request(-1))
        assert (await engine.submit(request(1))).outputs["y"].item() == 2.0
        health = engine.health()
        assert (health.hung_executors, health.replaced_executors, health.ready) == (1, 1, True)
        assert "hang past 0.2 s" in health.faults[0]
        held.free.set()
        await until(lambda: engine.health().hung_executors == 0)
        assert engine.health().faults == ()
        assert engine.inflight("fake") == 0


async def test_a_run_that_was_given_up_ends_at_its_next_step():
    def steps(value, context):
        while value < 0:
            time.sleep(0.01)
            context.check_wanted()

    async with running(FakeModel(work=steps), hang_seconds=0.2) as engine:
        with pytest.raises(Internal, match="given up"):
            await engine.submit(request(-1))
        await until(lambda: engine.health().hung_executors == 0)


async def test_a_run_that_was_expected_to_be_long_does_not_hang():
    # Without any run before it a model is expected to take 5.5 ms for one item.
    async with running(
        FakeModel(work=lambda value, context: time.sleep(value)), hang_seconds=0.1, warmup_runs=0
    ) as engine:
        with pytest.raises(Internal, match="given up"):
            await engine.submit(request(0.6, slo_ms=10_000))
        assert (await engine.submit(request(0.4, items=20, slo_ms=10_000))).outputs["y"].shape == (20, 1)


async def test_stopping_finishes_what_is_inside_and_takes_nothing_new():
    held, watcher = Held(), Watcher()
    async with running(FakeModel(work=held), watcher=watcher) as engine:
        assert engine.ready
        first = await held.occupy(engine)
        (waiting,) = await queued(engine, request(7))
        stopping = asyncio.create_task(engine.stop(grace_seconds=5))
        await until(lambda: not engine.ready)
        assert not engine.is_ready("fake")
        with pytest.raises(Unavailable, match="stopping"):
            await engine.submit(request(8))
        held.free.set()
        await stopping
        assert first.done()
        assert (await waiting).outputs["y"].item() == 14.0
    assert watcher.outcomes == ["refused", "ok", "ok"]


async def test_stopping_does_not_wait_longer_than_it_may():
    held = Held()
    async with running(FakeModel(work=held)) as engine:
        first = await held.occupy(engine)
        (waiting,) = await queued(engine, request(7))
        started = time.monotonic()
        await engine.stop(grace_seconds=0.05)
        assert time.monotonic() - started < 1.5
        for task in (first, waiting):
            with pytest.raises(Unavailable, match="stopped before"):
                await task
        held.free.set()


async def test_a_model_is_unloaded_when_its_requests_are_done_and_can_be_loaded_again():
    held, watcher = Held(), Watcher()
    model = FakeModel(work=held)
    async with running(model, watcher=watcher, load=lambda name: {"fake": model}[name]) as engine:
        first = await held.occupy(engine)
        (waiting,) = await queued(engine, request(7))
        unloading = asyncio.create_task(engine.unload("fake"))
        await until(lambda: engine.state("fake")[0] == "UNLOADING")
        with pytest.raises(Unavailable, match="'fake' is not ready: unloading"):
            await engine.submit(request(8))
        with pytest.raises(Unavailable, match="unloading"):
            await engine.load("fake")
        held.free.set()
        await unloading
        assert (await first, (await waiting).outputs["y"].item())[1] == 14.0
        assert engine.state("fake") == ("UNAVAILABLE", "unloaded")
        assert (engine.names(), engine.snapshots(), engine.ready) == (["fake"], [], True)
        with pytest.raises(Unavailable, match="'fake' is not ready: unloaded"):
            engine.model("fake")
        await engine.unload("fake")
        await engine.load("fake")
        assert engine.is_ready("fake")
        assert (await engine.submit(request(9))).outputs["y"].item() == 18.0
        assert engine.snapshot("fake").statistics.success.count == 1
    assert watcher.outcomes == ["refused", "ok", "ok", "ok"]


async def test_what_cannot_be_loaded_says_why():
    def load(name):
        if name == "broken":
            raise RuntimeError("weights are missing; run: sluice fetch broken")
        raise KeyError(name)

    async with running(FakeModel(), load=load) as engine:
        with pytest.raises(NotFound, match="unknown model 'nothing'"):
            await engine.load("nothing")
        with pytest.raises(Unavailable, match="run: sluice fetch broken"):
            await engine.load("broken")
        assert engine.names() == ["fake"]
        with pytest.raises(NotFound):
            await engine.unload("nothing")
        await engine.load("fake")


async def test_an_slo_acts_on_the_next_request_and_is_there_after_a_restart(tmp_path):
    store = SqliteSloStore(tmp_path / "slo.db")
    tight = SLO(latency_ms=1e-3, percentile=95, quality_floor=0.9, shed=False)
    async with running(FakeModel(), store=store) as engine:
        assert engine.slo("fake") == WIDE
        assert (await engine.submit(request())).slo_met
        assert engine.set_slo("fake", tight) == tight
        assert not (await engine.submit(request())).slo_met
    async with running(FakeModel(), store=SqliteSloStore(tmp_path / "slo.db")) as engine:
        assert engine.slo("fake") == tight


async def test_an_slo_that_cannot_be_kept_is_not_in_force():
    class Broken(MemorySloStore):
        def put(self, model, slo):
            raise SloStoreError("the disk is full")

    async with running(FakeModel(), store=Broken()) as engine:
        with pytest.raises(Unavailable, match="the disk is full"):
            engine.set_slo("fake", SLO(1))
        assert engine.slo("fake") == WIDE


async def test_the_slo_of_the_settings_is_the_first_one():
    async with running(FakeModel("a"), FakeModel("b"), slos={"a": SLO(7)}) as engine:
        assert (engine.slo("a"), engine.slo("b")) == (SLO(7), WIDE)


async def test_a_model_is_known_before_its_first_request():
    """Warmed up, an SLO tighter than dense raises the level of the first request already."""
    async with running(sleepy(0.03), warmup_runs=2, default_slo=SLO(20, quality_floor=0.8)) as engine:
        assert (await engine.submit(request())).level > 0.1
        engine.set_slo("fake", SLO(10_000))
        assert (await engine.submit(request())).level == 0.0


async def test_an_unloaded_model_leaves_the_memory_though_its_requests_failed(caplog):
    """At once: an error that held its frame, and the frame the model, would wait for the collector of cycles."""

    def fail(value, context):
        raise RuntimeError("no")

    caplog.set_level(logging.CRITICAL, logger="service.engine.scheduler")  # it would keep the tracebacks
    loaded = []

    def load(name):
        model = FakeModel(work=fail)
        loaded.append(weakref.ref(model))
        return model

    async with running(FakeModel(), load=load) as engine:
        await engine.unload("fake")
        await engine.load("fake")
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                with suppress(Internal):
                    await engine.submit(request())
            with suppress(InvalidRequest):
                await engine.submit(request(float("nan")))
            await engine.unload("fake")
            await asyncio.sleep(0.01)  # the event loop lets go of what it handled last
            assert [model() for model in loaded] == [None]
        finally:
            gc.enable()

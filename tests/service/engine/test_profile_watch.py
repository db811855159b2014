import asyncio
import logging
from contextlib import asynccontextmanager, suppress

import pytest

from service.control.slo import SLO
from service.engine.profile_watch import follow_profiles
from service.errors import NotFound, Unavailable
from tests.service.engine.fakes import FakeModel
from tests.service.engine.harness import Held, request, running, until


@asynccontextmanager
async def following(engine, stamp):
    task = asyncio.create_task(follow_profiles(engine, stamp, seconds=0.01))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_new_profile_is_served_without_a_restart():
    first, second, stamps = FakeModel(), FakeModel(), {"fake": 1}
    async with running(first, load=lambda name: second) as engine, following(engine, stamps.get):
        engine.set_slo("fake", SLO(latency_ms=12_345))
        await asyncio.sleep(0.05)
        assert engine.model("fake") is first
        stamps["fake"] = 2
        await until(lambda: engine.model("fake") is second)
        assert engine.slo("fake").latency_ms == 12_345
        assert (await engine.submit(request(3))).outputs["y"].item() == 6.0
        assert engine.state("fake") == ("READY", "")


async def test_what_runs_meanwhile_ends_on_the_old_one():
    held, stamps = Held(), {"fake": 1}
    second = FakeModel()
    async with running(FakeModel(work=held), load=lambda name: second) as engine, following(engine, stamps.get):
        inside = await held.occupy(engine)
        stamps["fake"] = 2
        await until(lambda: engine.model("fake") is second)
        assert not inside.done()
        held.free.set()
        assert await inside


async def test_a_profile_that_cannot_be_used_leaves_the_model_as_it_was(caplog):
    caplog.set_level(logging.ERROR)
    first, stamps, loads = FakeModel(), {"fake": 1}, []

    def load(name):
        loads.append(name)
        raise ValueError("the profile was measured on other weights")

    async with running(first, load=load) as engine, following(engine, stamps.get):
        await asyncio.sleep(0.03)
        stamps["fake"] = 2
        await until(lambda: "other weights" in caplog.text)
        await asyncio.sleep(0.05)
        assert loads == ["fake"]
        assert engine.model("fake") is first
        assert engine.is_ready("fake")


async def test_a_file_that_cannot_be_read_does_not_end_the_watch(caplog):
    stamps = iter([1, OSError("gone"), *[2] * 1000])
    second = FakeModel()

    def stamp(name):
        found = next(stamps)
        if isinstance(found, OSError):
            raise found
        return found

    async with running(FakeModel(), load=lambda name: second) as engine, following(engine, stamp):
        await until(lambda: engine.model("fake") is second)
    assert "could not be looked at" in caplog.text


async def test_only_a_ready_model_can_be_loaded_anew():
    async with running(FakeModel()) as engine:
        with pytest.raises(Unavailable):
            await engine.reload("fake")
        with pytest.raises(NotFound):
            await engine.reload("other")

"""The engine with real threads and a real clock; the model waits on events, so that no test has to guess how long."""

import asyncio
import threading
import time
from contextlib import asynccontextmanager

import numpy as np
import pytest

from service.control.slo import SLO
from service.engine.engine import Engine
from service.engine.settings import EngineSettings
from service.engine.slo_store import MemorySloStore, SloStoreError, SqliteSloStore
from service.errors import Expired, Internal, InvalidRequest, NotFound, Refused, Unavailable
from tests.service.engine.fakes import MACS, FakeModel, Watcher, linear_profile
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


async def test_a_request_is_run_and_told_of_once():
    watcher = Watcher()
    async with running(FakeModel(), watcher=watcher) as engine:
        finished = await engine.submit(request(3.0, items=2))
    assert finished.outputs["y"].tolist() == [[6.0], [6.0]]
    assert (finished.level, finished.quality, finished.slo_met, finished.slo_attainable) == (0.0, 1.0, True, True)
    assert finished.duration >= finished.queue_seconds + finished.compute_seconds
    assert watcher.outcomes == ["ok"]
    assert watcher.told[0].finished is finished
    assert (watcher.told[0].model, watcher.told[0].slo_met) == ("fake", True)


async def test_requests_at_different_levels_run_at_once_and_each_has_its_own_context():
    meeting = threading.Barrier(3)
    model = FakeModel(work=lambda value, context: meeting.wait(5))
    async with running(model, executors=3) as engine:
        levels = [0.0, 0.4, 0.9]
        done = await asyncio.gather(*(engine.submit(request(index, level=level)) for index, level in enumerate(levels)))
    assert [one.level for one in done] == levels
    assert [one.outputs["y"].item() for one in done] == [0.0, 2.0, 4.0]
    assert [one.context.skip_rate for one in done] == [0.0, 5 / 30, 5 / 30]
    assert [one.quality for one in done] == pytest.approx([1.0, 0.92, 0.82])


async def test_priorities_and_deadlines_decide_who_is_next():
    held = Held()
    model = FakeModel(work=held)
    async with running(model) as engine:
        first = await held.occupy(engine)
        tasks = await queued(
            engine,
            request(1, slo_ms=9000),
            request(2, slo_ms=5000),
            request(3, priority=2, slo_ms=9000),
            request(4, priority=1, slo_ms=9000),
        )
        held.free.set()
        await asyncio.gather(first, *tasks)
    assert [value for value, _ in model.ran] == [-1, 4, 3, 2, 1]


async def test_one_whose_client_goes_away_leaves_the_queue_and_is_not_computed():
    held, watcher = Held(), Watcher()
    model = FakeModel(work=held)
    async with running(model, watcher=watcher) as engine:
        first = await held.occupy(engine)
        (waiting,) = await queued(engine, request(7))
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert engine.queue_depth("fake") == 0
        held.free.set()
        await first
    assert [value for value, _ in model.ran] == [-1]
    assert sorted(watcher.outcomes) == ["cancelled", "ok"]
    assert watcher.told[0].slo_met is None


async def test_a_timeout_is_answered_when_it_passes_and_the_request_is_never_computed():
    held = Held()
    model = FakeModel(work=held)
    async with running(model) as engine:
        first = await held.occupy(engine)
        with pytest.raises(Expired, match="timeout of 20000 µs"):
            await engine.submit(request(7, timeout_us=20_000))
        assert engine.queue_depth("fake") == 0
        held.free.set()
        await first
    assert [value for value, _ in model.ran] == [-1]


async def test_an_answer_past_its_timeout_is_an_error_though_it_was_computed():
    watcher = Watcher()
    async with running(FakeModel(work=lambda value, context: time.sleep(0.05)), watcher=watcher) as engine:
        with pytest.raises(Expired, match="timeout"):
            await engine.submit(request(timeout_us=10_000))
        with pytest.raises(Expired, match="timeout"):
            await engine.submit(request_at(arrival=time.monotonic() - 1, timeout_us=10_000))
    assert watcher.outcomes == ["expired", "expired"]
    assert [told.slo_met for told in watcher.told] == [False, False]


@pytest.mark.parametrize("shed", [True, False])
async def test_a_deadline_that_passes_in_the_queue_sheds_the_request_or_serves_it_late(shed):
    held, watcher = Held(), Watcher()
    model = FakeModel(work=held)
    async with running(model, watcher=watcher, default_slo=SLO(10_000, shed=shed)) as engine:
        first = await held.occupy(engine)
        (waiting,) = await queued(engine, request(7, slo_ms=100))
        await asyncio.sleep(0.11)
        if shed:
            # Found by the sweep: no executor has come by.
            with pytest.raises(Expired, match="deadline of 100 ms passed"):
                await waiting
        held.free.set()
        await first
        if not shed:
            assert not (await waiting).slo_met
    assert [value for value, _ in model.ran] == ([-1] if shed else [-1, 7])


async def test_a_model_that_raises_fails_its_own_request_only():
    def work(value, context):
        if value == 13:
            raise ValueError("thirteen")

    watcher = Watcher()
    async with running(FakeModel(work=work), watcher=watcher) as engine:
        with pytest.raises(Internal, match="'fake' failed on this request: ValueError"):
            await engine.submit(request(13))
        assert (await engine.submit(request(1))).slo_met
        statistics = engine.snapshot("fake").statistics
        assert (statistics.fail.count, statistics.success.count) == (1, 1)
        assert engine.inflight("fake") == 0
    assert watcher.outcomes == ["error", "ok"]


async def test_bad_input_is_refused_before_the_queue():
    watcher = Watcher()
    async with running(FakeModel(), watcher=watcher) as engine:
        with pytest.raises(InvalidRequest, match=r"^x: holds NaN$") as refused:
            await engine.submit(request(np.nan))
        assert refused.value.field == "x"
        with pytest.raises(NotFound, match="unknown model 'other'"):
            await engine.submit(request(model="other"))
        engine.reject("whatever", "v2", time.monotonic(), InvalidRequest("is no JSON"))
    assert watcher.outcomes == ["invalid"] * 3
    assert [told.model for told in watcher.told] == ["fake", "", ""]
    assert {told.slo_met for told in watcher.told} == {None}


async def test_a_full_queue_refuses():
    held, watcher = Held(), Watcher()
    async with running(FakeModel(work=held), watcher=watcher, queue_limit=2) as engine:
        first = await held.occupy(engine)
        tasks = await queued(engine, request(1), request(2))
        with pytest.raises(Refused, match="2 requests wait, the most that may") as refused:
            await engine.submit(request(3))
        assert refused.value.retry_after_seconds > 0
        held.free.set()
        await asyncio.gather(first, *tasks)
    assert watcher.outcomes[0] == "refused"


async def test_a_run_that_hangs_is_given_up_and_its_executor_replaced():
    held = Held()
    async with running(FakeModel(work=held), hang_seconds=0.2) as engine:
        with pytest.raises(Internal, match=r"longer than 0\.2 s and was given up"):
            await engine.submit(request(-1))
        assert (await engine.submit(request(1))).outputs["y"].item() == 2.0
        health = engine.health()
        assert (health.hung_executors, health.replaced_executors, health.ready) == (1, 1, True)
        assert "hang past 0.2 s" in health.faults[0]
        held.free.set()
        await until(lambda: engine.health().hung_executors == 0)
        assert engine.health().faults == ()
        assert engine.inflight("fake") == 0


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


async def test_the_slo_in_force_at_arrival_judges():
    held = Held()
    async with running(FakeModel(work=held)) as engine:
        first = await held.occupy(engine)
        engine.set_slo("fake", SLO(latency_ms=1e-3))
        held.free.set()
        assert (await first).slo_met


def sleepy(dense):
    """A run of `dense` seconds, less in proportion to the MACs that its level skips."""
    profile = linear_profile()
    return FakeModel(
        profile=profile, work=lambda value, context: time.sleep(dense * profile.at(context.level).macs_ratio)
    )


async def test_a_model_is_known_before_its_first_request():
    """Warmed up, an SLO tighter than dense raises the level of the first request already."""
    async with running(sleepy(0.03), warmup_runs=2, default_slo=SLO(20, quality_floor=0.8)) as engine:
        assert (await engine.submit(request())).level > 0.1
        engine.set_slo("fake", SLO(10_000))
        assert (await engine.submit(request())).level == 0.0


async def test_an_slo_that_cannot_be_met_is_said_in_the_response_and_the_snapshot():
    async with running(sleepy(0.004), warmup_runs=2, default_slo=SLO(0.1, quality_floor=0.95)) as engine:
        finished = await engine.submit(request())
        gate = engine.snapshot("fake").gate
        assert (finished.slo_met, finished.slo_attainable, gate.slo_attainable) == (False, False, False)
        assert finished.level == gate.highest_level == pytest.approx(0.25)
        assert gate.highest_reason == "quality floor 0.95"


async def test_what_was_done_is_counted():
    async with running(FakeModel()) as engine:
        await engine.submit(request(items=3))
        await engine.submit(request(level=0.5))
        snapshot = engine.snapshot("fake")
    statistics, gate = snapshot.statistics, snapshot.gate
    assert (statistics.inference_count, statistics.execution_count) == (4, 2)
    for timer in (statistics.success, statistics.queue, statistics.compute_infer, statistics.compute_output):
        assert timer.count == 2
        assert timer.ns > 0
    assert statistics.last_inference_ms == pytest.approx(time.time() * 1e3, abs=60_000)
    assert snapshot.macs == 4 * MACS
    assert snapshot.macs_skipped == pytest.approx(0.4 * MACS)
    assert (gate.layers["first"].channels, gate.layers["first"].channels_skipped) == (20, 5)
    assert gate.layers["first"].skip_rate == 0.25
    assert gate.layers["second"].skip_rate == 0.0
    assert gate.layers["second"].threshold == 0.0
    assert gate.macs_skipped == pytest.approx(0.1)
    assert set(snapshot.tail_seconds) == {"50", "95", "99", "99.9"}
    assert (snapshot.queue_depth, snapshot.inflight) == (0, 0)


async def test_shadow_runs_judge_quality_and_are_in_no_counter():
    """Under an SLO that the dense model misses, with an executor to spare, every request is run again dense."""
    model = sleepy(0.01)
    slo = SLO(6, quality_floor=0.8, shed=False)
    async with running(model, executors=2, warmup_runs=2, shadow_share=1.0, default_slo=slo) as engine:
        warm = len(model.ran)
        finished = await engine.submit(request(5))
        assert finished.level > 0
        await until(lambda: engine.snapshot("fake").gate.live_samples == 1)
        snapshot = engine.snapshot("fake")
        assert [level for _, level in model.ran[warm:]] == [finished.level, 0.0]
        assert (snapshot.statistics.execution_count, snapshot.macs) == (1, MACS)
        assert (snapshot.shadow_agreed, snapshot.shadow_disagreed) == (1, 0)
        model.agrees = 0.1
        while engine.snapshot("fake").gate.highest_level == 1:
            await engine.submit(request(5))
            assert engine.snapshot("fake").shadow_disagreed <= 30
        assert engine.snapshot("fake").gate.highest_reason.startswith("live agreement 0.")


async def test_a_dense_request_is_not_shadowed():
    model = FakeModel()
    async with running(model, executors=2, shadow_share=1.0) as engine:
        await engine.submit(request())
        await engine.submit(request(level=0.5))
        await asyncio.sleep(0.02)
        assert len(model.ran) == 2


@pytest.mark.parametrize("clients", [1, 16])
async def test_nothing_is_lost_among_many_clients(clients):
    watcher = Watcher()
    async with running(FakeModel(), watcher=watcher, executors=2) as engine:

        async def client(name):
            for index in range(50):
                value = float(name * 1000 + index)
                task = asyncio.create_task(engine.submit(request(value, timeout_us=5_000_000)))
                if index % 7 == 3:
                    await asyncio.sleep(0)
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
                else:
                    assert (await task).outputs["y"].item() == 2 * value

        await asyncio.gather(*(client(name) for name in range(clients)))
        assert (engine.queue_depth("fake"), engine.inflight("fake")) == (0, 0)
    assert len(watcher.told) == clients * 50
    assert set(watcher.outcomes) <= {"ok", "cancelled"}

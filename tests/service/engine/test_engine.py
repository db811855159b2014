"""The engine with real threads and a real clock; the model waits on events, so that no test has to guess how long."""

import asyncio
import threading
import time

import numpy as np
import pytest

from service.control.slo import SLO
from service.engine.request import Finished
from service.errors import Expired, Internal, InvalidRequest, NotFound, Refused
from tests.service.engine.fakes import MACS, FakeModel, Watcher
from tests.service.engine.fakes import request as request_at
from tests.service.engine.harness import Held, queued, request, running, sleepy, until


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
            with pytest.raises(Expired, match="deadline of 100 ms cannot be met any more"):
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


@pytest.mark.parametrize("macs", [None, float("nan"), -1, "many"])
async def test_a_model_that_counts_nonsense_fails_its_own_request_only(macs):
    class Careless(FakeModel):
        def run(self, inputs, context):
            outputs = super().run(inputs, context)
            if inputs["x"].flat[0] == 13:
                context.macs = macs
            return outputs

    watcher = Watcher()
    async with running(Careless(), watcher=watcher) as engine:
        with pytest.raises(Internal, match="'fake' failed on this request"):
            await engine.submit(request(13))
        finished = await engine.submit(request(1))
        assert finished.context.macs == MACS
        assert engine.snapshot("fake").macs == MACS
    assert watcher.outcomes == ["error", "ok"]


async def test_one_whose_client_goes_away_while_it_runs_holds_nothing_up():
    held, watcher = Held(), Watcher()
    async with running(FakeModel(work=held), watcher=watcher) as engine:
        first = await held.occupy(engine)
        (waiting,) = await queued(engine, request(7))
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert engine.inflight("fake") == 1
        held.free.set()
        assert (await waiting).outputs["y"].item() == 14.0
        assert engine.inflight("fake") == 0
        # It was computed, and nobody got it.
        statistics = engine.snapshot("fake").statistics
        assert (statistics.execution_count, statistics.success.count) == (2, 1)
    assert watcher.outcomes == ["cancelled", "ok"]


async def test_dead_requests_are_passed_over_when_an_executor_comes_by():
    """The sweep that looks for them is slower than this: they are found where they would have been taken."""
    held, watcher = Held(), Watcher()
    model = FakeModel(work=held)
    async with running(model, watcher=watcher) as engine:
        first = await held.occupy(engine)
        tasks = await queued(engine, request(5, slo_ms=5), request(6, slo_ms=5), request(7))
        time.sleep(0.01)
        held.free.set()
        ended = await asyncio.gather(first, *tasks, return_exceptions=True)
    assert [type(one) for one in ended] == [Finished, Expired, Expired, Finished]
    assert [value for value, _ in model.ran] == [-1, 7]
    assert sorted(watcher.outcomes) == ["expired", "expired", "ok", "ok"]


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


async def test_the_slo_in_force_at_arrival_judges():
    held = Held()
    async with running(FakeModel(work=held)) as engine:
        first = await held.occupy(engine)
        engine.set_slo("fake", SLO(latency_ms=1e-3))
        held.free.set()
        assert (await first).slo_met


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

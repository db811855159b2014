"""The rules over whole runs in virtual time: the SLO is met under load, and without load nothing is spent."""

import random
from dataclasses import replace
from statistics import mean, pstdev

import pytest

from service.control.slo import SLO
from service.engine.dispatch import Dispatch, plan_entry
from service.engine.hosted import HostedModel
from service.errors import Expired, Refused
from tests.service.engine.fakes import MACS, FakeModel, linear_profile, request
from tests.service.engine.virtual import Lost, Served, learned, simulate

DENSE = 0.003


def seconds(share):
    """3 ms dense, a tenth of it whatever is skipped."""
    return DENSE * (0.1 + 0.9 * share)


def hosted(latency=6 * DENSE, floor=0.9, shed=True):
    """Level 1 does a sixth of the work: a quarter of the time, at a quality of 0.9."""
    model = FakeModel(profile=linear_profile(least_macs=1 / 6, quality_loss=0.1))
    return learned(HostedModel(model, SLO(latency * 1e3, 99, floor, shed)), seconds, MACS)


def even(load, duration, start=0.0, **options):
    """Arrivals at the same distance, at `load` times what the dense model can do."""
    gap = DENSE / load
    return [request(arrival=start + index * gap, **options) for index in range(int(duration / gap))]


def poisson(load, duration, start=0.0, seed=0):
    rng, now, arrivals = random.Random(seed), start, []
    while (now := now + rng.expovariate(load / DENSE)) < start + duration:
        arrivals.append(request(arrival=now))
    return arrivals


def share_met(results):
    return mean(isinstance(result, Served) and result.met for result in results)


def levels(results, since=0.0, until=1e9):
    return [result.level for result in results if isinstance(result, Served) and since <= result.arrival < until]


@pytest.mark.parametrize("load", [0.05, 0.5, 0.9])
def test_a_steady_load_that_the_dense_model_can_do_is_done_dense(load):
    results = simulate(hosted(), even(load, 5), seconds)
    assert set(levels(results)) == {0.0}
    assert share_met(results) == 1


def test_a_burst_that_is_done_long_before_it_is_due_costs_no_quality():
    """Two seconds of work within a tenth of one: there are ten to do it."""
    arrivals = [request(arrival=0.01 * index, items=64) for index in range(10)]
    results = simulate(hosted(latency=10.0), arrivals, seconds)
    assert set(levels(results)) == {0.0}
    assert share_met(results) == 1


@pytest.mark.parametrize("load", [1.2, 2.0, 3.0])
def test_a_steady_load_beyond_it_settles_and_is_served_in_time(load):
    results = simulate(hosted(), even(load, 4), seconds)
    settled = levels(results, since=2)
    assert share_met(results) >= 0.99
    assert pstdev(settled) <= 0.05
    # The level is little above the one at which the work just fits.
    fits = ((1 / load / 0.95 - 0.1) / 0.9 - 1) / (1 / 6 - 1)
    assert mean(settled) == pytest.approx(fits, abs=0.12)


@pytest.mark.parametrize(("load", "attainment"), [(0.6, 0.99), (2.0, 0.99), (2.5, 0.97)])
def test_random_arrivals_are_served_in_time(load, attainment):
    results = simulate(hosted(), poisson(load, 4), seconds)
    assert share_met(results) >= attainment


def test_a_burst_costs_quality_only_while_it_lasts():
    traffic = poisson(0.5, 4) + poisson(2.0, 4, start=4, seed=1) + poisson(0.5, 4, start=8, seed=2)
    results = simulate(hosted(), traffic, seconds)
    assert share_met(results) >= 0.99
    assert mean(levels(results, 0, 4)) < 0.02
    assert mean(levels(results, 5, 8)) > 0.4
    assert mean(levels(results, 9, 12)) < 0.02


@pytest.mark.parametrize("load", [1.0, 3.0, 8.0])
@pytest.mark.parametrize("floor", [0.93, 0.97, 1.0])
def test_never_past_the_floor(load, floor):
    model = hosted(floor=floor)
    results = simulate(model, poisson(load, 2), seconds)
    assert max(levels(results)) <= model.profile.highest_level(floor) + 1e-12


def test_beyond_the_floor_it_refuses_and_serves_the_rest_in_time():
    """At level 1 a run takes a quarter, so at 8 times the load half of it can be served."""
    results = simulate(hosted(), even(8, 1.5), seconds)
    served = [result for result in results if isinstance(result, Served)]
    lost = [result for result in results if isinstance(result, Lost)]
    assert all(isinstance(result.error, Refused) for result in lost)
    assert len(served) / len(results) == pytest.approx(0.5, abs=0.06)
    assert mean(result.met for result in served) > 0.98


def test_those_who_come_back_when_told_are_served_in_time():
    """A burst of twice what the floor's level can do, over a light load; each of the refused returns once."""
    model = hosted()
    arrivals = sorted(one.arrival for one in even(0.5, 7, start=1e-4) + even(8, 0.3, start=1))
    traffic = [request(float(number), arrival=at) for number, at in enumerate(arrivals)]
    refusals = simulate(model, traffic, seconds)
    again = [
        request(float(arrivals.index(lost.arrival)), arrival=lost.at + lost.error.retry_after_seconds)
        for lost in refusals
        if isinstance(lost, Lost)
    ]
    assert len(again) > 50
    model = hosted()
    results = simulate(model, sorted(traffic + again, key=lambda one: one.arrival), seconds)
    times = {one.arrival for one in again}
    returned = [result for result in results if result.arrival in times]
    assert len(returned) == len(again)
    assert share_met(returned) >= 0.9


def test_without_shedding_everything_is_served_late_rather_than_not():
    results = simulate(hosted(shed=False), even(8, 0.5), seconds)
    assert all(isinstance(result, Served) for result in results)
    assert share_met(results) < 0.5


def test_a_bounded_queue_refuses_even_then():
    results = simulate(hosted(shed=False), even(8, 1), seconds, queue_limit=10)
    assert any(isinstance(result, Lost) and isinstance(result.error, Refused) for result in results)
    assert any(isinstance(result, Served) for result in results)


def test_an_slo_acts_on_the_next_request():
    model = hosted(latency=1.0)
    tight = (1.0, lambda: model.set_slo(SLO(DENSE * 1e3 * 0.7, 99, 0.9)))
    wide = (2.0, lambda: model.set_slo(SLO(1000, 99, 0.9)))
    results = simulate(model, even(0.2, 3, start=1e-4), seconds, events=[tight, wide])
    assert set(levels(results, 0, 1)) == {0.0}
    assert min(levels(results, 1, 2)) > 0.25
    assert set(levels(results, 2)) == {0.0}
    assert share_met(results) > 0.99


def test_an_slo_that_cannot_be_met_is_said_and_not_chased():
    model = hosted(latency=DENSE / 10)
    results = simulate(model, even(0.2, 3), seconds)
    assert all(isinstance(result, Served) and not result.met for result in results)
    snapshot = model.snapshot(3.0, ready=True)
    assert not snapshot.gate.slo_attainable
    assert snapshot.gate.safety_margin == 1.0
    model.set_slo(SLO(100))
    assert model.snapshot(3.0, ready=True).gate.slo_attainable


def test_a_server_that_slows_down_still_meets_its_slo():
    slow = 1.0

    def drifting(share):
        return seconds(share) * slow

    def stall():
        nonlocal slow
        slow = 1.8

    model = hosted()
    results = simulate(model, poisson(0.9, 8), drifting, events=[(2.0, stall)])
    assert share_met([result for result in results if result.arrival > 4]) >= 0.98
    assert mean(levels(results, 5)) > 0.2


def test_refusals_that_a_higher_level_would_have_spared_are_learned_from():
    """Stalls of 90 ms under a load that leaves the dial in the middle."""
    slow = 1.0

    def stalling(share):
        return seconds(share) * slow

    def become(factor):
        def event():
            nonlocal slow
            slow = factor

        return event

    model = hosted()
    stalls = [(at + start, become(factor)) for at in range(1, 8) for start, factor in ((0.0, 6.0), (0.09, 1.0))]
    results = simulate(model, poisson(1.6, 8), stalling, events=stalls)
    refused = [result for result in results if isinstance(result, Lost) and isinstance(result.error, Refused)]
    assert len(refused) > 0.005 * len(results)
    assert mean(levels(results)) < 0.9
    assert model.margin(request()).at(8.0) > 1


def test_refusals_at_the_ceiling_teach_nothing():
    model = hosted()
    results = simulate(model, even(8, 4), seconds)
    assert sum(isinstance(result, Lost) for result in results) > 1000
    # Two steps, for what was lost until the load was known.
    assert model.margin(request()).at(4.0) < 1.25
    assert model.admission_margin(request()).at(4.0) < 1.11


def test_two_executors_do_twice_as_much():
    results = simulate(hosted(), even(1.8, 3), seconds, executors=2)
    assert set(levels(results)) == {0.0}
    assert share_met(results) == 1


def test_a_request_of_its_own_floor_and_slo():
    model = hosted(latency=1.0, floor=0.95)
    half = {"slo_ms": DENSE * 1e3 * 0.5}
    (own,) = simulate(model, [request(arrival=0.0, **half, quality_floor=0.9)], seconds)
    (bounded,) = simulate(model, [request(arrival=1.0, **half)], seconds)
    (strict,) = simulate(model, [request(arrival=2.0, **half, quality_floor=1.0)], seconds)
    assert own.level > bounded.level == pytest.approx(0.5)
    assert strict.level == 0.0
    assert [own.met, bounded.met, strict.met] == [True, False, False]


def test_a_pinned_level_is_run_whatever_the_floor_and_moves_no_dial():
    model = hosted(floor=1.0)
    results = simulate(model, even(0.5, 0.5, level=0.9), seconds)
    assert set(levels(results)) == {0.9}
    assert model.snapshot(0.5, ready=True).gate.level == 0.0


def test_batches_are_planned_by_their_size():
    """Eight images in the time of six: the level rises for the batch and not for the single image."""
    model = hosted()
    batch, single = simulate(model, [request(arrival=0.0, items=8), request(arrival=1.0)], seconds)
    assert batch.level > 0.2
    assert batch.met
    assert single.level == 0.0


def test_a_timeout_is_hard_and_an_expired_request_is_never_computed():
    model = hosted(latency=10.0)
    traffic = [request(arrival=0.0, items=64), request(2.0, arrival=0.001, timeout_us=1000)]
    served, lost = simulate(model, traffic, seconds)
    assert isinstance(lost, Lost)
    assert isinstance(lost.error, Expired)
    assert "timeout of 1000 µs" in lost.error.message
    assert isinstance(served, Served)
    assert model.counts.executions == 1


def test_one_that_could_never_be_in_time_is_not_dropped_for_being_late():
    model = hosted()
    for slo_ms, dropped in ((DENSE * 1e3, True), (0.01, False)):
        entry = plan_entry(model, request(slo_ms=slo_ms), MACS, 0.0, None)
        assert entry.attainable == dropped
        assert entry.dead(now=9.0) == dropped


def test_what_passes_between_two_runs_is_part_of_what_a_run_takes():
    """Of two that were there together the second begins, for the latency model, when the first is over."""
    model = hosted(latency=1.0)
    dispatch = Dispatch(1, 10, 0.0, lambda entry, error: None)
    for _ in range(2):
        dispatch.admit(0.0, model, request(arrival=0.0), MACS, idle=False)
    first = dispatch.take(0.001, "executor", spare=False)
    dispatch.ended(0.004, "executor")
    second = dispatch.take(0.0045, "executor", spare=False)
    assert (first.since, second.since) == (0.001, 0.004)
    dispatch.ended(0.0075, "executor")
    dispatch.admit(1.0, model, request(arrival=1.0), MACS, idle=True)
    assert dispatch.take(1.0001, "executor", spare=False).since == 1.0


def test_a_run_at_level_0_is_predicted_to_do_the_work_of_level_0():
    model = FakeModel(profile=linear_profile(least_macs=1 / 6, quality_loss=0.1))
    sparse = replace(
        model.profile, points=tuple(replace(p, macs_ratio=0.8 * p.macs_ratio) for p in model.profile.points)
    )
    quick = learned(HostedModel(FakeModel(profile=sparse), SLO(1000, 99, 0.9)), seconds, MACS)
    dispatch = Dispatch(1, 10, 0.0, lambda entry, error: None)
    dispatch.admit(0.0, quick, request(arrival=0.0), MACS, idle=True)
    dispatch.take(0.0, "executor", spare=False)
    assert dispatch.running["executor"].until == pytest.approx(seconds(0.8), rel=0.02)


def test_when_an_executor_will_be_free():
    dispatch = Dispatch(2, 10, 0.0, lambda entry, error: None)
    dispatch.occupy(0.0, "one", 5.0, "model")
    assert dispatch.free_in(1.0, "another") == 0
    dispatch.occupy(0.0, "other", 3.0, "model")
    assert [dispatch.free_in(now, "another") for now in (1.0, 4.0)] == [2.0, 0.0]
    # What it does for the model itself is counted where its generations are.
    assert dispatch.free_in(1.0, "model") == 0

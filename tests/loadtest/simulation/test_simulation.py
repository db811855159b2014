from random import Random
from statistics import mean, pstdev
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.curve import Span
from loadtest.simulation.model import SimulatedModel, host, straight_profile
from loadtest.simulation.report import report
from loadtest.simulation.service_times import from_profile
from loadtest.simulation.simulator import Served, Simulation, requests_at
from service.control.slo import SLO

DENSE = 0.003


def simulation(slo_ms=18.0, floor=0.9, returns=0):
    model = SimulatedModel(straight_profile())
    times = from_profile(model.profile, DENSE, model.macs, noise=0.05)
    hosted = host(model, SLO(slo_ms, 99, floor), times)
    return Simulation(hosted, times, returns=returns), hosted


def poisson(*phases, seed=0):
    random, end, times = Random(seed), 0.0, []
    for load, seconds in phases:
        now, end = end, end + seconds
        while (now := now + random.expovariate(load / DENSE)) < end:
            times.append(now)
    return times


def levels(outcomes, since, until=1e9):
    return [one.level for one in outcomes if isinstance(one, Served) and since <= one.arrival < until]


@settings(max_examples=15, deadline=None)
@given(load=st.floats(0.2, 8), floor=st.floats(0.9, 1), slo_ms=st.floats(0.1, 100), seed=st.integers(0, 99))
def test_never_past_the_floor_and_every_arrival_has_one_outcome(load, floor, slo_ms, seed):
    simulated, hosted = simulation(slo_ms, floor)
    times = poisson((load, 0.3), seed=seed)
    outcomes = simulated.run(requests_at(times))
    assert sorted(one.arrival for one in outcomes) == times
    assert max(levels(outcomes, 0), default=0) <= hosted.profile.highest_level(floor) + 1e-12


@pytest.mark.parametrize("load", [1.2, 2.0])
def test_random_arrivals_make_no_oscillation(load):
    simulated, _ = simulation()
    outcomes = simulated.run(requests_at(poisson((load, 20))))
    assert pstdev(levels(outcomes, 3)) <= 0.05
    assert report(outcomes).total.attainment >= 0.99


@pytest.mark.parametrize(("peak", "attainment"), [(2.0, 0.99), (2.5, 0.97)])
def test_a_burst_is_served_and_its_cost_ends_with_it(peak, attainment):
    simulated, _ = simulation()
    outcomes = simulated.run(requests_at(poisson((0.6, 6), (peak, 4), (0.6, 6))))
    assert report(outcomes).total.attainment >= attainment
    assert mean(levels(outcomes, 2, 6)) < 0.02
    assert mean(levels(outcomes, 11.5)) < 0.02


def test_a_step_in_the_slo_is_kept_within_a_second():
    simulated, hosted = simulation(100)
    change = (3.0, lambda: hosted.set_slo(SLO(6.0, 99, 0.9)))
    outcomes = simulated.run(requests_at(poisson((1.2, 6))), [change])
    late = [one for one in outcomes if one.arrival > 4]
    assert mean(isinstance(one, Served) and one.finished - one.arrival <= 0.006 for one in late) >= 0.99


def test_an_impossible_slo_is_reported_and_not_chased():
    simulated, hosted = simulation(slo_ms=0.1)
    outcomes = simulated.run(requests_at(poisson((0.2, 3))))
    gate = hosted.snapshot(simulated.now, ready=True).gate
    assert not gate.slo_attainable
    assert gate.safety_margin == 1.0
    assert all(isinstance(one, Served) for one in outcomes)


def test_those_who_come_back_when_told_are_served_in_time():
    simulated, _ = simulation(returns=1)
    found = report(simulated.run(requests_at(poisson((0.5, 2), (8, 1), (0.5, 10)))))
    assert found.total.refused == found.returns.arrivals > 100
    assert found.returns.attainment >= 0.9


def test_thousands_of_requests_a_second():
    """More than 10,000 on a core that is left alone; half of it on one that is not. The best of a few tries."""
    times = poisson((2.0, 4))

    def rate():
        simulated, _ = simulation()
        started = process_time()
        simulated.run(requests_at(times))
        return len(times) / (process_time() - started)

    assert any(rate() > 5_000 for _ in range(5))


def test_phases_are_reported_apart():
    simulated, _ = simulation()
    spans = (Span("calm", 0, 1), Span("burst", 1, 2), Span("calm", 2, 3))
    found = report(simulated.run(requests_at([0.5, 1.5, 1.6, 2.5])), spans)
    assert [(phase.name, phase.arrivals) for phase in found.phases] == [("calm", 2), ("burst", 2)]
    assert found.levels == (0.0, 0.0, 0.0)

"""What the control promises, for arrivals of several kinds and for services of light and of heavy noise."""

from pathlib import Path
from random import Random
from statistics import mean, pstdev

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import loadtest.traces
from loadtest.curve import Curve, Phase, steady
from loadtest.simulation.model import SimulatedModel, host, straight_profile
from loadtest.simulation.service_times import from_profile
from loadtest.simulation.simulator import Served, Simulation, requests_at
from loadtest.trace import generate, load
from service.control.slo import SLO
from service.engine.request import RequestOptions

DENSE = 0.002
TRACES = sorted(Path(loadtest.traces.__path__[0]).glob("*.trace"))
LIGHT, HEAVY = 0.05, 0.3


def simulation(latency, noise=LIGHT, stalls=0.0, floor=0.9, returns=0):
    """`stalls` is the share of runs that take 5 to 10 ms more."""
    model = SimulatedModel(straight_profile())
    times = from_profile(model.profile, DENSE, model.macs, noise=noise)
    random = Random(1)

    def run_time(context):
        return times(context) + (random.uniform(0.005, 0.010) if random.random() < stalls else 0.0)

    hosted = host(model, SLO(latency * 1e3, 99, floor), run_time)
    return Simulation(hosted, run_time, returns=returns), hosted


def served(outcomes, since=0.0, until=1e9):
    return [one for one in outcomes if isinstance(one, Served) and since <= one.arrival < until]


def p99(outcomes):
    return float(np.percentile([one.finished - one.arrival for one in outcomes], 99))


EXAMPLES = settings(max_examples=6, deadline=None, derandomize=True)
seeds = st.integers(0, 99)


@EXAMPLES
@given(
    load=st.floats(0.2, 8),
    floor=st.floats(0.9, 1),
    factor=st.floats(0.1, 30),
    variation=st.sampled_from([0.0, 1.0, 2.0, 4.0]),
    noise=st.sampled_from([LIGHT, HEAVY]),
    seed=seeds,
)
def test_never_past_the_floor(load, floor, factor, variation, noise, seed):
    simulated, hosted = simulation(factor * DENSE, noise, floor=floor)
    outcomes = simulated.run(requests_at(generate("x", steady(load / DENSE, 1), seed, variation).times))
    highest = hosted.profile.highest_level(floor)
    assert all(one.level <= highest + 1e-12 for one in served(outcomes))


@pytest.mark.parametrize("factor", [6, 25])
@pytest.mark.parametrize(("noise", "stalls"), [(LIGHT, 0.0), (HEAVY, 0.0), (LIGHT, 0.003)])
@pytest.mark.parametrize("load", [0.6, 0.93, 2.5])
def test_under_a_lasting_load_the_tail_keeps_room_and_the_level_stands_still(load, noise, stalls, factor):
    simulated, _ = simulation(factor * DENSE, noise, stalls)
    outcomes = simulated.run(requests_at(generate("x", steady(load / DENSE, 12), 5).times))
    late = served(outcomes, 3)
    assert p99(late) <= (0.93 if stalls else 0.9) * factor * DENSE
    assert mean(one.met for one in late) >= 0.99
    assert pstdev(one.level for one in late) <= (0.05 if noise == LIGHT and not stalls else 0.1)


@pytest.mark.parametrize("load", [0.5, 0.65, 0.68, 0.75, 1.3])
def test_over_a_steady_minute_the_level_stands_still(load):
    """Loads about which the dial begins to move are the hardest: the level of a clump is far from that of the rest."""
    simulated, _ = simulation(6 * DENSE)
    late = served(simulated.run(requests_at(generate("x", steady(load / DENSE, 61), 4).times)), 1)
    assert pstdev(one.level for one in late) <= 0.05
    assert p99(late) <= 6 * DENSE


@EXAMPLES
@given(load=st.floats(0.3, 3.0), seed=seeds)
def test_a_constant_load_settles(load, seed):
    """It stands still, in time, at a level that the floor allows."""
    simulated, hosted = simulation(6 * DENSE)
    late = served(simulated.run(requests_at(generate("x", steady(load / DENSE, 8), seed).times)), 2)
    assert pstdev(one.level for one in late) <= 0.05
    assert p99(late) <= 6 * DENSE
    assert mean(one.level for one in late) <= hosted.profile.highest_level(0.9)


@EXAMPLES
@given(load=st.floats(0.6, 2.5), seed=seeds)
def test_no_lower_level_that_stands_still_would_do(load, seed):
    latency, times = 6 * DENSE, generate("x", steady(load / DENSE, 10), seed).times
    free, _ = simulation(latency)
    level = mean(one.level for one in served(free.run(requests_at(times)), 3))
    lower = RequestOptions(level=max(level - 0.08, 0.0), slo_ms=1e6)
    pinned, _ = simulation(latency)
    tail = p99(served(pinned.run(requests_at(times, options=lower)), 3))
    assert level < 0.02 or tail > 0.9 * latency


@EXAMPLES
@given(before=st.floats(0.2, 3.0), after=st.floats(0.2, 3.0), factor=st.sampled_from([6, 25]), seed=seeds)
def test_after_a_step_in_load_the_tail_is_kept_within_a_second(before, after, factor, seed):
    simulated, _ = simulation(factor * DENSE)
    curve = Curve((Phase("a", 4, before / DENSE, before / DENSE), Phase("b", 4, after / DENSE, after / DENSE)))
    outcomes = simulated.run(requests_at(generate("x", curve, seed).times))
    assert p99(served(outcomes, 5)) <= factor * DENSE
    assert len(served(outcomes)) >= 0.99 * len(outcomes)


@EXAMPLES
@given(load=st.floats(0.2, 2.0), before=st.floats(6, 25), after=st.floats(6, 25), seed=seeds)
def test_after_a_step_in_the_slo_the_tail_is_kept_within_a_second(load, before, after, seed):
    simulated, hosted = simulation(before * DENSE)
    changed = SLO(after * DENSE * 1e3, 99, 0.9)
    times = generate("x", steady(load / DENSE, 8), seed).times
    outcomes = simulated.run(requests_at(times), [(4.0, lambda: hosted.set_slo(changed))])
    assert p99(served(outcomes, 5)) <= after * DENSE
    assert len(served(outcomes)) >= 0.99 * len(outcomes)


@EXAMPLES
@given(factor=st.floats(0.01, 0.15), load=st.floats(0.2, 1.0), seed=seeds)
def test_an_impossible_slo_is_said_and_not_chased(factor, load, seed):
    """The least that a run takes is more: all are served, none is refused, and the answers say so."""
    simulated, hosted = simulation(factor * DENSE)
    outcomes = simulated.run(requests_at(generate("x", steady(load / DENSE, 4), seed).times))
    assert len(served(outcomes)) >= 0.99 * len(outcomes)
    assert not any(one.met for one in served(outcomes))
    assert not hosted.snapshot(simulated.now, ready=True).gate.slo_attainable


@pytest.mark.parametrize("peak", [2.0, 2.5, 4.0])
def test_a_burst_is_forgotten_within_a_second(peak):
    simulated, _ = simulation(6 * DENSE)
    phases = [Phase(name, 8, load / DENSE, load / DENSE) for name, load in (("a", 0.6), ("b", peak), ("c", 0.6))]
    outcomes = simulated.run(requests_at(generate("x", Curve(tuple(phases)), 3).times))
    assert mean(one.level for one in served(outcomes, 17, 18)) < 0.01


@pytest.mark.parametrize("variation", [2.0, 4.0])
def test_clumped_arrivals_are_served_in_time(variation):
    simulated, _ = simulation(25 * DENSE)
    outcomes = simulated.run(requests_at(generate("x", steady(1.2 / DENSE, 10), 5, variation).times))
    assert mean(isinstance(one, Served) and one.met for one in outcomes) >= 0.99


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_the_shipped_traces_are_served_in_time(path):
    trace = load(path)
    simulated, _ = simulation(25 * DENSE)
    outcomes = simulated.run(requests_at(trace.faster(0.9 / DENSE / trace.rate).times))
    assert mean(isinstance(one, Served) and one.met for one in outcomes) >= 0.99


@pytest.mark.parametrize("seconds", [2, 4])
@pytest.mark.parametrize(("noise", "stalls"), [(LIGHT, 0.0), (HEAVY, 0.003)])
def test_who_comes_back_when_told_is_served_though_the_overload_lasts(noise, stalls, seconds):
    simulated, _ = simulation(6 * DENSE, noise, stalls, returns=1)
    phases = [Phase(name, at, load / DENSE, load / DENSE) for name, at, load in (("a", 1, 0.5), ("b", seconds, 8))]
    outcomes = simulated.run(requests_at(generate("x", Curve(tuple(phases)), 4).times))
    during = [one for one in outcomes if one.attempt and one.arrival < 1 + seconds]
    assert len(during) > 100
    assert mean(isinstance(one, Served) and one.met for one in during) >= 0.9


@pytest.mark.parametrize("load", [1.2, 2.0, 4.0])
def test_a_dense_server_with_admission_serves_what_its_capacity_allows(load):
    simulated, _ = simulation(6 * DENSE, floor=1.0)
    outcomes = simulated.run(requests_at(generate("x", steady(load / DENSE, 8), 6).times))
    assert all(one.level == 0 for one in served(outcomes))
    assert sum(one.met for one in served(outcomes)) / len(outcomes) >= 0.93 / load
    assert p99(served(outcomes)) <= 6 * DENSE

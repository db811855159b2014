from math import exp
from random import Random
from statistics import mean, pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.control.load import HIGHEST_UTILISATION, LEAST_UTILISATION, LoadEstimate, Work, utilisation

WORK = Work(0.001, 0.003)


def arrivals(rate, seconds, cv=1.0, start=0.0, seed=0):
    random, now, times = Random(seed), start, []
    while (now := now + (random.gammavariate(cv**-2, cv**2) if cv else 1.0) / rate) < start + seconds:
        times.append(now)
    return times


def fed(times, work=WORK, load=None):
    load = load or LoadEstimate()
    for now in times:
        load.arrive(now, work)
    return load


def test_work_at_a_share():
    assert Work(0.001, 0.004).at(0.5) == pytest.approx(0.003)
    assert Work(1, 2) + Work(3, 4) == Work(4, 6)


@pytest.mark.parametrize("rate", [20, 200, 2000])
def test_a_steady_stream_is_measured_exactly(rate):
    load = fed(arrivals(rate, 10, cv=0))
    assert load.rate(10.0) == pytest.approx(rate, rel=0.03)
    assert load.offered(10.0).fixed == pytest.approx(rate * 0.001, rel=0.03)
    assert load.offered(10.0).scalable == pytest.approx(rate * 0.003, rel=0.03)


def test_one_request_however_large_says_nothing_of_the_next():
    assert fed([0.0], Work(0.1, 10.0)).offered(0.0) == Work()


def test_a_burst_is_spread_over_the_time_that_there_is_for_it():
    load = LoadEstimate()
    for index in range(20):
        load.arrive(index * 1e-3, Work(0.0, 0.1))
    assert load.offered(0.02).scalable > 10
    assert load.offered(0.02, within=10.0).scalable == pytest.approx(0.19, rel=0.01)


@pytest.mark.parametrize("within", [0.01, 1.0, 100.0])
def test_a_load_that_lasts_is_the_same_however_much_time_there_is(within):
    load = LoadEstimate()
    for index in range(10_000):
        load.arrive(index * 0.01, Work(0.001, 0.004))
    assert load.offered(100.0, within).scalable == pytest.approx(0.4, rel=0.02)


def test_a_random_stream_moves_it_little():
    load, rates = LoadEstimate(), []
    for now in arrivals(450, 60):
        load.arrive(now, WORK)
        if now > 10:
            rates.append(load.rate(now))
    assert mean(rates) == pytest.approx(450, rel=0.03)
    assert pstdev(rates) / 450 < 0.04


@pytest.mark.parametrize(("before", "after"), [(300, 1000), (1000, 300), (1000, 60)])
def test_a_change_is_followed_in_half_a_second(before, after):
    load = fed(arrivals(before, 20) + arrivals(after, 0.5, start=20, seed=1))
    assert load.rate(20.5) == pytest.approx(after, rel=max(0.25, 3 / (after * 0.5) ** 0.5))
    fed(arrivals(after, 1.5, start=20.5, seed=2), load=load)
    assert load.rate(22.0) == pytest.approx(after, rel=0.2)


def test_a_change_of_size_is_a_change_of_load():
    load = fed(arrivals(200, 20), Work(0.0, 0.064))
    fed(arrivals(200, 1, start=20, seed=1), Work(0.0, 0.001), load)
    assert load.offered(21.0).scalable < 0.4


def test_silence_is_forgotten():
    load = fed(arrivals(1000, 3))
    assert load.rate(100.0) < 10
    assert load.rate(10_000.0) == 0


@pytest.mark.parametrize("cv", [0.0, 1.0, 1.5])
def test_the_variation_of_gaps_is_measured(cv):
    assert fed(arrivals(500, 20, cv=cv)).variation == pytest.approx(cv**2, abs=0.35)


def test_the_variation_of_rare_requests_is_measured_too():
    assert fed(arrivals(5, 200)).variation == pytest.approx(1.0, abs=0.35)


def test_clumped_arrivals_vary_more():
    assert fed(arrivals(500, 20, cv=4.0)).variation > 2.5


def test_a_change_of_load_is_not_taken_for_variation():
    calm, burst, after = arrivals(300, 10), arrivals(1000, 2, start=10, seed=1), arrivals(300, 2, start=12, seed=2)
    assert fed(calm + burst + after).variation < 1.5


def test_utilisation_leaves_what_the_tail_of_the_waits_needs():
    """P(wait > t) = exp(-2 (1 - u) t / (u s variation)), with t = waiting x gap and s = u x gap, is what is allowed."""
    share = utilisation(variation=1.0, arrivals=11.0, allowed=0.01)
    assert exp(-2 * (1 - share) * 10 / share**2) == pytest.approx(0.01)
    assert share == pytest.approx(0.836, abs=0.01)


def test_even_arrivals_need_no_more_than_the_highest():
    assert utilisation(0.0, 10, 0.01) == HIGHEST_UTILISATION
    assert utilisation(1.0, 1e6, 0.01) == HIGHEST_UTILISATION
    assert utilisation(1.0, 0.0, 0.01) == LEAST_UTILISATION


def test_a_load_that_is_not_surely_high_is_taken_for_one_that_is_not():
    assert utilisation(1.0, 0.0, 0.01, uncertainty=0.1) == pytest.approx(1.1 * LEAST_UTILISATION)
    certain, soon = LoadEstimate(), LoadEstimate()
    times = arrivals(100, 40)
    for time in times:
        certain.arrive(time, WORK)
    for time in times[:100]:
        soon.arrive(time, WORK)
    assert 0.02 < certain.uncertainty < 0.04
    assert 0.07 < soon.uncertainty < 0.14
    assert LoadEstimate().uncertainty == 1.0


def test_a_margin_divides_it():
    assert utilisation(0.0, 10, 0.01, margin=1.2) == pytest.approx(HIGHEST_UTILISATION / 1.2)


@given(st.floats(0, 10), st.floats(0, 1000), st.floats(1e-4, 0.5), st.integers(1, 8))
def test_more_variation_or_fewer_misses_allowed_never_use_more(variation, expected, allowed, executors):
    share = utilisation(variation, expected, allowed, executors)
    assert LEAST_UTILISATION <= share <= HIGHEST_UTILISATION
    assert utilisation(variation + 0.5, expected, allowed, executors) <= share
    assert utilisation(variation, expected, allowed / 2, executors) <= share
    assert utilisation(variation, expected + 1, allowed, executors) >= share

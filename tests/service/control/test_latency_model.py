import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.control.latency_model import LatencyModel

DENSE = 300_000_000


def observed(overhead, per_mac, sizes, noise=0.0, seed=0):
    rng = random.Random(seed)
    model = LatencyModel()
    for macs in sizes:
        model.observe(macs, (overhead + per_mac * macs) * (1 + rng.uniform(-noise, noise)))
    return model


def test_before_data_it_is_slow_and_not_trusted():
    model = LatencyModel()
    assert not model.trusted
    assert model.seconds(DENSE) > 0.01


@given(
    overhead=st.floats(0, 0.01),
    per_mac=st.floats(1e-12, 1e-9),
    sizes=st.lists(st.sampled_from([DENSE // 10, DENSE // 3, DENSE, DENSE * 8]), min_size=1, max_size=5),
)
def test_exact_times_are_found(overhead, per_mac, sizes):
    """With sizes that differ both coefficients are; with one size, its time is."""
    model = observed(overhead, per_mac, sizes * 100)
    for macs in set(sizes):
        assert model.seconds(macs) == pytest.approx(overhead + per_mac * macs, rel=0.1)


def test_noise_averages_out():
    model = observed(0.001, 10e-12, [DENSE // 5, DENSE // 2, DENSE] * 100, noise=0.2)
    assert model.overhead == pytest.approx(0.001, rel=0.3)
    assert model.seconds(DENSE) == pytest.approx(0.004, rel=0.05)


@given(st.lists(st.tuples(st.integers(0, 10**10), st.floats(0, 10)), max_size=60))
def test_coefficients_are_never_negative_and_times_rise_with_work(runs):
    model = LatencyModel()
    for macs, seconds in runs:
        model.observe(macs, seconds)
        assert model.overhead >= 0
        assert model.seconds_per_gmac >= 0
        assert 1 <= model.tail_ratio <= 2.5
    assert model.seconds(0) <= model.seconds(DENSE) <= model.upper(DENSE)


def test_one_size_leaves_a_share_to_the_overhead_so_that_skipping_is_not_oversold():
    model = observed(0.0, 10e-12, [DENSE] * 50)
    assert model.seconds(DENSE) == pytest.approx(0.003, rel=0.02)
    assert model.overhead == pytest.approx(0.15 * 0.003, rel=0.1)


def test_a_stall_moves_it_little():
    model = observed(0.0005, 10e-12, [DENSE // 4, DENSE] * 100, noise=0.02)
    before = model.seconds(DENSE)
    model.observe(DENSE, 5.0)
    assert model.seconds(DENSE) < before * 1.05


def test_a_true_change_of_speed_is_followed():
    model = observed(0.0, 10e-12, [DENSE // 4, DENSE] * 100)
    for macs in [DENSE // 4, DENSE] * 200:
        model.observe(macs, 50e-12 * macs)
    assert model.seconds(DENSE) == pytest.approx(0.015, rel=0.1)


def test_the_tail_is_the_upper_quantile_of_what_the_mean_gets_wrong():
    model = observed(0.0, 10e-12, [DENSE] * 3000, noise=0.5)
    rng = random.Random(1)
    below = sum((1 + rng.uniform(-0.5, 0.5)) * 0.003 <= model.upper(DENSE) for _ in range(2000)) / 2000
    assert 0.9 <= below <= 1.0
    assert model.upper(DENSE) < 0.0048


def test_a_model_of_no_arithmetic_is_all_overhead():
    model = observed(0.002, 0.0, [0] * 10)
    assert model.seconds(0) == pytest.approx(0.002)


def test_the_variation_of_single_runs_is_measured():
    rng = random.Random(0)
    model = LatencyModel()
    for _ in range(3000):
        model.observe(DENSE, 0.004 * (rng.choice([0.7, 1.3])))
    assert model.variation == pytest.approx(0.09, rel=0.2)
    assert observed(0.001, 10e-12, [DENSE] * 200).variation < 0.01

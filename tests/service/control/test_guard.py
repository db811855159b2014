import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.control.guard import QualityGuard

HIGHEST = 0.8


def served(guard, agreement_at, samples, floor, seed=0):
    """Requests at the highest level that is allowed; `agreement_at` is its true agreement. The limits, one a sample."""
    rng, limits = random.Random(seed), []
    for _ in range(samples):
        level = min(HIGHEST, guard.limit)
        guard.record(level, float(rng.random() < agreement_at(level)), floor)
        limits.append(guard.limit)
    return limits


@pytest.mark.parametrize("seed", range(5))
def test_a_profile_that_is_right_changes_nothing(seed):
    guard = QualityGuard()
    assert set(served(guard, lambda level: 0.98, 5000, floor=0.95, seed=seed)) == {1.0}
    assert guard.reason == ""
    assert guard.agreement == pytest.approx(0.98, abs=0.03)
    assert guard.samples == 5000


def test_chance_seldom_takes_a_floor_that_is_just_kept_for_one_that_is_not():
    limits = [limit for seed in range(5) for limit in served(QualityGuard(), lambda _: 0.955, 3000, 0.95, seed)]
    assert sum(min(limit, HIGHEST) for limit in limits) / len(limits) > 0.97 * HIGHEST


def test_agreement_surely_below_the_floor_brings_the_limit_down_and_says_why():
    guard = QualityGuard()
    limits = served(guard, lambda level: 0.7, 100, floor=0.95)
    assert min(limits) < HIGHEST
    assert guard.reason.startswith("live agreement 0.")
    assert guard.reason.endswith("below the floor of 0.95")


@pytest.mark.parametrize(("true", "floor"), [(0.9, 0.95), (0.7, 0.95), (0.93, 0.95)])
def test_a_profile_that_is_wrong_is_held_near_the_level_that_keeps_the_floor(true, floor):
    """Agreement falls along a line to `true` at the highest level, where the profile promised the floor."""
    fits = HIGHEST * (1 - floor) / (1 - true)
    for seed in range(2):
        settled = served(QualityGuard(), lambda level: 1 - (1 - true) * level / HIGHEST, 4000, floor, seed)[1000:]
        mean = sum(min(limit, HIGHEST) for limit in settled) / len(settled)
        assert 0.6 * fits < mean < fits + 0.4 * (HIGHEST - fits)


def test_a_few_samples_are_no_evidence():
    guard = QualityGuard()
    for _ in range(guard.fewest - 1):
        guard.record(0.8, 0.0, floor=0.95)
    assert guard.limit == 1.0
    guard.record(0.8, 0.0, floor=0.95)
    assert guard.limit == pytest.approx(0.8 * guard.fall)


def test_it_recovers_slowly_once_the_fault_is_gone():
    guard = QualityGuard(limit=0.5, reason="of old")
    served(guard, lambda level: 1.0, 100, floor=0.95)
    assert 0.5 < guard.limit < 0.6
    assert guard.reason == "of old"
    served(guard, lambda level: 1.0, 1000, floor=0.95)
    assert (guard.limit, guard.reason) == (1.0, "")


def test_agreement_that_only_just_is_at_the_floor_does_not_raise_it():
    guard = QualityGuard(limit=0.5)
    for index in range(1000):
        guard.record(0.5, float(index % 20 != 0), floor=0.95)
    assert guard.limit < 0.53


def test_what_another_floor_allowed_is_no_evidence_against_this_one():
    guard = QualityGuard()
    served(guard, lambda level: 0.92, 200, floor=0.9)
    assert guard.limit == 1.0
    served(guard, lambda level: 1.0, 200, floor=0.99)
    assert guard.limit == 1.0


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)), max_size=100))
def test_the_limit_is_a_level(samples):
    guard = QualityGuard(fewest=2)
    for level, agreement, floor in samples:
        guard.record(level, agreement, floor)
        assert 0 <= guard.limit <= 1
        assert 0 <= guard.upper_bound() <= 1
        assert bool(guard.reason) == (guard.limit < 1)

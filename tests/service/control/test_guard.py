import random

from hypothesis import given
from hypothesis import strategies as st

from service.control.guard import QualityGuard


def test_agreement_at_the_floor_changes_nothing():
    rng = random.Random(0)
    guard = QualityGuard()
    for _ in range(2000):
        guard.record(0.8, float(rng.random() < 0.97), floor=0.95)
    assert guard.limit == 1.0
    assert guard.agreement is not None
    assert guard.agreement > 0.93


def test_agreement_surely_below_the_floor_brings_the_limit_down():
    rng = random.Random(0)
    guard = QualityGuard()
    for _ in range(100):
        guard.record(0.8, float(rng.random() < 0.7), floor=0.95)
    assert guard.limit < 0.8
    assert "live agreement 0." in guard.reason


def test_a_few_samples_are_no_evidence():
    guard = QualityGuard()
    for _ in range(guard.fewest - 1):
        guard.record(0.8, 0.0, floor=0.95)
    assert guard.limit == 1.0


def test_it_recovers_slowly():
    guard = QualityGuard(limit=0.5)
    guard.record(0.5, 1.0, floor=0.95)
    assert 0.5 < guard.limit < 0.51
    for _ in range(1000):
        guard.record(0.5, 1.0, floor=0.95)
    assert guard.limit == 1.0


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)), max_size=100))
def test_the_limit_is_a_level(samples):
    guard = QualityGuard()
    for level, agreement, floor in samples:
        guard.record(level, agreement, floor)
        assert 0 <= guard.limit <= 1
        assert 0 <= guard.upper_bound() <= 1

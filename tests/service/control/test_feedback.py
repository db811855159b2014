from hypothesis import given
from hypothesis import strategies as st

from service.control.feedback import SafetyMargin

ALLOWED = 0.01


def run(margin, start, seconds, rate, miss_every=0):
    for index in range(int(seconds * rate)):
        margin.record(start + index / rate, met=not (miss_every and index % miss_every == 0), allowed=ALLOWED)
    return margin.value


def test_more_misses_than_allowed_raise_it():
    assert run(SafetyMargin(), 0, 10, rate=200, miss_every=10) > 1.3


def test_as_many_as_allowed_leave_it_alone():
    assert run(SafetyMargin(), 0, 60, rate=200, miss_every=100) == 1.0
    raised = SafetyMargin(value=1.4)
    assert run(raised, 0, 20, rate=200, miss_every=100) >= 1.35


def test_a_single_miss_is_no_evidence():
    margin = SafetyMargin()
    margin.record(0.0, met=False, allowed=ALLOWED)
    margin.record(1.0, met=True, allowed=ALLOWED)
    assert margin.value == 1.0


def test_it_does_not_wind_up():
    """An hour of nothing but misses leaves it at its bound, and it comes down as soon as they end."""
    margin = SafetyMargin(highest=2.0)
    assert run(margin, 0, 3600, rate=10, miss_every=1) == 2.0
    run(margin, 3600, 60, rate=10)
    assert margin.value < 1.3


def test_it_relaxes_to_1_under_load_without_misses_and_when_quiet():
    margin = SafetyMargin(value=1.5)
    assert run(margin, 0, 300, rate=20) == 1.0
    quiet = SafetyMargin(value=1.5)
    quiet.record(0.0, met=True, allowed=ALLOWED)
    assert quiet.at(5.0) == 1.5
    assert quiet.at(600.0) < 1.001


@given(st.lists(st.tuples(st.floats(0, 5), st.booleans()), max_size=200), st.floats(0.0001, 1))
def test_it_stays_within_its_bounds(steps, allowed):
    margin, now = SafetyMargin(), 0.0
    for gap, met in steps:
        now += gap
        margin.record(now, met, allowed)
        assert 1.0 <= margin.at(now) <= margin.value <= margin.highest

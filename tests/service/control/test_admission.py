import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.control.admission import LONGEST_RETRY, Returns, Target, plan


def test_a_latency_that_can_be_met_is_planned_for_less_what_follows_the_run():
    assert plan(asked=0.020, alone=0.003) == Target(0.020, True)
    assert plan(asked=0.020, alone=0.003, reserve=0.001) == Target(pytest.approx(0.019), True)


def test_a_latency_that_cannot_be_met_is_said_and_not_chased():
    target = plan(asked=0.002, alone=0.003)
    assert not target.attainable
    assert target.latency >= 0.003


def test_the_first_refused_comes_back_when_its_lateness_is_worked_off():
    assert Returns().place(5.0, late_by=3, capacity_seconds=0.01, utilisation=0.0) == pytest.approx(3)
    assert Returns().place(5.0, late_by=3, capacity_seconds=0.01, utilisation=0.5) == pytest.approx(6)
    assert Returns().place(5.0, late_by=0.1, capacity_seconds=0.01, utilisation=0.5) == pytest.approx(1)


def test_the_longer_an_overload_the_longer_it_is_taken_to_last():
    returns = Returns()
    waits = [returns.place(now, late_by=0.1, capacity_seconds=0.0, utilisation=0.0) for now in (10.0, 11.0, 14.0, 30.0)]
    assert waits == pytest.approx([1, 3, 12, 1])


def test_the_refused_are_sent_back_one_after_another():
    returns = Returns()
    times = [returns.place(0.0, late_by=1.0, capacity_seconds=0.01, utilisation=0.5) for _ in range(5)]
    assert times == pytest.approx([2.0, 2.02, 2.04, 2.06, 2.08])
    assert returns.place(10.0, late_by=1.0, capacity_seconds=0.01, utilisation=0.5) == pytest.approx(2.0)


@given(
    st.lists(st.tuples(st.floats(0, 5), st.floats(0, 100), st.floats(0, 10), st.floats(0, 5)), min_size=1, max_size=50)
)
def test_the_wait_is_at_least_the_lateness_and_bounded(refusals):
    returns, now = Returns(), 0.0
    for gap, late_by, capacity, utilisation in refusals:
        now += gap
        wait = returns.place(now, late_by=late_by, capacity_seconds=capacity, utilisation=utilisation)
        assert min(late_by, LONGEST_RETRY) - 1e-6 <= wait <= LONGEST_RETRY + 1e-6

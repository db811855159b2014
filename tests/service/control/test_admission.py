import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.control.admission import ROOM, Promises, plan


def test_a_latency_that_can_be_met_is_planned_for_with_room():
    target = plan(asked=0.020, alone=0.003)
    assert target.attainable
    assert target.latency == 0.020
    assert target.planned == pytest.approx(0.020 - ROOM * 0.017)


def test_what_follows_the_run_is_taken_off():
    assert plan(asked=0.020, alone=0.003, reserve=0.001).latency == pytest.approx(0.019)


def test_one_that_just_fits_alone_is_left_all_of_its_time():
    target = plan(asked=0.003, alone=0.003)
    assert target.attainable
    assert target.planned == target.latency == 0.003


def test_a_latency_that_cannot_be_met_is_said_and_not_chased():
    target = plan(asked=0.002, alone=0.003)
    assert not target.attainable
    assert target.planned == target.latency >= 0.003


def test_the_first_refused_comes_back_after_a_second_or_when_its_lateness_is_worked_off():
    assert Promises().give(5.0, "a", 0.001) == 1
    assert Promises().give(5.0, "a", 0.001, late_by=2.1) == 3


def test_a_place_is_given_once():
    """A run of 3 ms at 60 % of the capacity takes 5 ms of the timetable."""
    promises = Promises(share=0.6, slot=0.001)
    waits = [promises.give(0.0, key, 0.003) for key in range(4)]
    assert waits == [1, 2, 3, 4]
    assert promises.give(0.003, "soon after", 0.003) == 5
    assert promises.give(0.006, "later", 0.003) == 1


@given(st.lists(st.tuples(st.floats(0, 0.01), st.floats(1e-4, 0.01)), min_size=1, max_size=60))
def test_no_window_is_promised_more_than_its_share(refusals):
    promises, now, told = Promises(), 0.0, []
    for key, (gap, seconds) in enumerate(refusals):
        now += gap
        told.append((now + promises.give(now, key, seconds), seconds))
    largest = max(seconds for _, seconds in told)
    for start, _ in told:
        for window in (0.005, 0.05, 0.5):
            inside = sum(seconds for at, seconds in told if start <= at < start + window)
            assert inside <= promises.share * (window + 2 * promises.slot) + 2 * largest


def test_who_comes_back_when_told_is_known_once():
    promises = Promises()
    wait = promises.give(0.0, "a", 0.001)
    assert not promises.claim(0.5, "a")
    assert not promises.claim(float(wait), "b")
    assert promises.claim(float(wait), "a")
    assert not promises.claim(float(wait), "a")


def test_the_same_request_may_be_promised_twice():
    promises = Promises()
    first, second = promises.give(0.0, "a", 0.001), promises.give(0.0, "a", 0.001)
    assert first < second
    assert promises.claim(float(first), "a")
    assert not promises.claim(float(first), "a")
    assert promises.claim(float(second), "a")


def test_room_is_kept_for_those_about_to_come_until_they_do():
    promises = Promises()
    wait = float(promises.give(0.0, "a", 0.001))
    assert promises.kept(0.1, 0.2) == 0
    assert promises.kept(wait - 0.01, wait + 0.01) == pytest.approx(0.001 * promises.taken)
    promises.claim(wait, "a")
    assert promises.kept(wait, wait + 0.01) == 0


def test_room_is_kept_for_as_many_as_do_come_back():
    promises = Promises()
    for key in range(1000):
        promises.give(key * 0.01, key, 0.001)
    promises.claim(60.0, "nobody")
    assert promises.taken < 0.01
    assert not promises.any
    for key in range(300):
        wait = promises.give(100 + key * 0.01, key, 0.001)
        promises.claim(100 + key * 0.01 + wait, key)
    assert promises.taken > 0.9


def test_the_first_who_stay_away_tell_most():
    """Else the first overload keeps room for many who never come."""
    promises = Promises()
    for key in range(20):
        promises.give(0.0, key, 0.001)
    promises.claim(60.0, "nobody")
    assert promises.taken < 0.1


def test_a_long_overload_is_told_the_longest_wait():
    promises = Promises(longest=3)
    assert [promises.give(0.0, key, 0.001) for key in range(4)] == [1, 2, 3, 3]


def test_the_past_is_forgotten():
    promises = Promises()
    for step in range(20_000):
        promises.give(step * 0.01, step, 0.002)
    assert len(promises._booked) < 2.5 * promises.longest / promises.slot
    promises.claim(1e4, "x")
    assert not promises.any
    assert not promises._booked

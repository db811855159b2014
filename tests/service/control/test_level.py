import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from models.gating.profile import Profile
from service.control.level import Ceiling, Demand, ceiling_of, choose_level, fits_dense
from service.control.load import Work
from tests.service.engine.fakes import linear_profile

PROFILE = linear_profile(least_macs=0.2, quality_loss=0.2)
OPEN = ceiling_of(PROFILE, 0.0)

works = st.builds(Work, st.floats(0, 0.01), st.floats(0, 0.1))
demands = st.builds(Demand, st.floats(-0.1, 1), works)
floors = st.floats(0, 1)
queues = st.lists(demands, max_size=8)


def test_at_no_load_and_a_generous_deadline_the_level_is_exactly_0():
    assert choose_level(PROFILE, OPEN, Demand(1.0, Work(0.001, 0.004))) == 0.0


def test_a_deadline_tighter_than_dense_raises_it_until_it_just_fits():
    level = choose_level(PROFILE, OPEN, Demand(0.003, Work(0.001, 0.004)))
    assert PROFILE.at(level).macs_ratio == pytest.approx(0.5)


def test_a_margin_and_the_tail_leave_room():
    assert PROFILE.at(
        choose_level(PROFILE, OPEN, Demand(0.003, Work(0.0, 0.004)), margin=1.2, tail_ratio=1.25)
    ).macs_ratio == pytest.approx(0.5)


def test_those_behind_are_given_room_and_share_the_cost():
    """Four runs of 10 ms within 20 ms: each at half of the work, not the last one alone."""
    queue = [Demand(0.020, Work(0.0, 0.010))] * 3
    level = choose_level(PROFILE, OPEN, Demand(0.020, Work(0.0, 0.010)), queue)
    assert PROFILE.at(level).macs_ratio == pytest.approx(0.5)


def test_more_executors_need_less():
    queue = [Demand(0.020, Work(0.0, 0.010))] * 3
    own = Demand(0.020, Work(0.0, 0.010))
    assert choose_level(PROFILE, OPEN, own, queue, executors=2) < choose_level(PROFILE, OPEN, own, queue)


def test_what_other_executors_still_have_to_do_counts():
    queue = [Demand(0.020, Work(0.0, 0.010))]
    own = Demand(0.020, Work(0.0, 0.010))
    assert choose_level(PROFILE, OPEN, own, queue, executors=2) == 0.0
    assert choose_level(PROFILE, OPEN, own, queue, executors=2, busy=0.015) > 0.0


def test_a_load_counts_before_it_is_queued_and_is_held_to_its_share_of_the_capacity():
    own = Demand(0.1, Work(0.0, 0.010))
    assert choose_level(PROFILE, OPEN, own, offered=Work(0.0, 0.79), utilisation=0.8) == 0.0
    level = choose_level(PROFILE, OPEN, own, offered=Work(0.1, 1.4), utilisation=0.8)
    assert PROFILE.at(level).macs_ratio == pytest.approx(0.5)
    assert choose_level(PROFILE, OPEN, own, offered=Work(0.1, 1.4), utilisation=0.8, executors=2) == 0.0
    assert choose_level(PROFILE, OPEN, own, offered=Work(9.0, 9.0), utilisation=0.8) == OPEN.level


def test_a_pinned_level_wins_over_floor_and_deadline():
    dense_only = ceiling_of(PROFILE, 1.0)
    assert choose_level(PROFILE, dense_only, Demand(-1.0, Work(0.0, 1.0)), pinned=0.7) == 0.7
    assert choose_level(PROFILE, OPEN, Demand(-1.0, Work(0.0, 1.0)), pinned=0.0) == 0.0


def test_work_that_no_level_shortens_does_not_move_it_while_it_fits():
    assert choose_level(PROFILE, OPEN, Demand(0.02, Work(0.01, 0.0)), [Demand(0.03, Work(0.01, 0.0))]) == 0.0


@given(floor=floors, own=demands, queue=queues, offered=st.none() | works, margin=st.floats(1, 2))
def test_never_past_the_floor(floor, own, queue, offered, margin):
    level = choose_level(PROFILE, ceiling_of(PROFILE, floor), own, queue, offered, utilisation=0.8, margin=margin)
    assert 0 <= level <= PROFILE.highest_level(floor)
    assert PROFILE.at(level).quality_lower >= floor - 1e-9 or level == 0


@given(own=demands, queue=queues, more=st.floats(0, 1), floor=floors)
def test_more_time_never_raises_it(own, queue, more, floor):
    ceiling = ceiling_of(PROFILE, floor)
    later = [Demand(demand.slack + more, demand.work) for demand in queue]
    assert choose_level(PROFILE, ceiling, Demand(own.slack + more, own.work), later) <= (
        choose_level(PROFILE, ceiling, own, queue) + 1e-12
    )


@given(own=demands, queue=queues, extra=demands)
def test_a_longer_queue_never_lowers_it(own, queue, extra):
    assert choose_level(PROFILE, OPEN, own, [*queue, extra]) >= choose_level(PROFILE, OPEN, own, queue)


@given(
    own=demands,
    queue=st.lists(st.builds(Demand, st.floats(0, 3), works), min_size=1, max_size=8),
    busy=st.floats(0, 0.1),
    executors=st.integers(1, 4),
    margin=st.floats(1, 2),
    tail_ratio=st.floats(1, 2.5),
)
def test_a_queue_that_fits_dense_changes_nothing(own, queue, busy, executors, margin, tail_ratio):
    whole = sum((demand.work for demand in queue), Work(busy) + own.work)
    assume(fits_dense(min(demand.slack for demand in queue), whole, margin * tail_ratio))

    def level(behind):
        return choose_level(
            PROFILE, OPEN, own, behind, executors=executors, busy=busy, margin=margin, tail_ratio=tail_ratio
        )

    assert level(queue) == level([])


@given(own=demands, queue=queues, floor=floors)
def test_what_it_chooses_meets_every_deadline_unless_it_is_the_ceiling(own, queue, floor):
    ceiling = ceiling_of(PROFILE, floor)
    level = choose_level(PROFILE, ceiling, own, queue)
    if level == ceiling.level:
        return
    share, clock = PROFILE.at(level).macs_ratio, 0.0
    for demand in [own, *queue]:
        clock += demand.work.at(share)
        assert clock <= demand.slack + 1e-9


def test_a_ceiling_says_what_sets_it():
    assert ceiling_of(PROFILE, 0.9) == Ceiling(pytest.approx(0.5), pytest.approx(0.6), "quality floor 0.9")
    assert ceiling_of(PROFILE, 0.5).level == 1.0
    assert ceiling_of(Profile.dense("a", ""), 0.5).level == 0.0
    assert "no profile" in ceiling_of(Profile.dense("a", ""), 0.5).reason
    assert ceiling_of(PROFILE, 0.5).reason == "the profile's last operating point"
    assert ceiling_of(PROFILE, 1.0).level == 0.0
    guarded = ceiling_of(PROFILE, 0.9, 0.3, "live agreement is low")
    assert (guarded.level, guarded.reason) == (0.3, "live agreement is low")
    assert ceiling_of(PROFILE, 0.9, 0.8, "live agreement is low").reason == "quality floor 0.9"

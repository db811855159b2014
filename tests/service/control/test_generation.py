from math import inf

import pytest

from service.control.generation import (
    LEAD,
    Pace,
    Turn,
    choose_levels,
    choose_turns,
    next_due,
    places,
    tokens_until,
)
from service.control.latency_model import LatencyModel
from service.control.level import Ceiling
from service.control.load import Work
from tests.service.engine.fakes import linear_profile

PROFILE = linear_profile(least_macs=0.2)
CEILING = Ceiling(1.0, 0.2, "")
OVERHEAD = 0.002


def known(overhead=OVERHEAD, per_gmac=0.1):
    """A model that has learned this exactly, without a tail."""
    model = LatencyModel(overhead=overhead, seconds_per_gmac=per_gmac)
    model.tail.value = 1.0
    return model


PACE = Pace(known(), known())


def token(slack, work=0.01, due_every=0.02, ceiling=CEILING, pinned=None):
    return Turn(slack, Work(0.0, work), ceiling, due_every, None, pinned)


def prompt(slack, part=0.1, rest=None, ceiling=CEILING):
    return Turn(slack, Work(0.0, part), ceiling, inf, Work(0.0, part if rest is None else rest))


def levels(turns, chosen=None, pace=PACE, executors=1):
    return choose_levels(PROFILE, turns, range(len(turns)) if chosen is None else chosen, pace, executors)


def test_nothing_is_dense_enough_where_there_is_time():
    assert levels([token(1.0), prompt(1.0)]) == [0.0, 0.0]
    assert choose_turns([], PACE, most=4) == []


def test_a_step_is_over_when_its_own_token_is_due():
    # 2 ms and 10 ms of work, of which the level leaves as much as fits.
    (level,) = levels([token(0.008)])
    assert OVERHEAD + 0.01 * PROFILE.at(level).macs_ratio == pytest.approx(0.008)
    assert levels([token(-0.5)]) == [1.0]


def test_each_has_the_level_that_its_own_slack_needs_though_all_are_in_one_step():
    tight, loose = levels([token(0.015), token(0.5)])
    assert OVERHEAD + 0.02 * PROFILE.at(tight).macs_ratio == pytest.approx(0.015)
    assert loose == 0.0


def test_a_pinned_level_and_a_ceiling_hold():
    floor = Ceiling(0.4, PROFILE.at(0.4).macs_ratio, "")
    assert levels([token(-1.0, pinned=0.25), token(-1.0, ceiling=floor)]) == [0.25, 0.4]


def test_what_a_margin_and_a_tail_stretch_is_kept_too():
    stretched = Pace(known(), known(), margin=1.5)
    (level,) = levels([token(0.012)], pace=stretched)
    assert 1.5 * (OVERHEAD + 0.01 * PROFILE.at(level).macs_ratio) == pytest.approx(0.012)


def test_what_a_prompt_costs_is_spread_over_its_time_and_all_tokens_until_then():
    # 0.5 s for a prompt of 0.4 s, and 25 tokens of 12 ms each: too much for dense, by a common share.
    turns = [token(0.02), prompt(0.5, part=0.02, rest=0.4)]
    (alone,) = levels(turns[:1], [0])
    first, second = levels(turns)
    assert alone == 0.0
    assert 0 < first < 1
    # The token's own rule asks for more, with the prompt's part in the same step.
    assert first > second > 0
    tokens = (0.5 - 0.02) / 0.02 + 1
    share = PROFILE.at(second).macs_ratio
    assert tokens * (OVERHEAD + 0.01 * share) + 20 * OVERHEAD + 0.4 * share == pytest.approx(0.5)


def test_two_executors_have_twice_the_time():
    turns = [prompt(0.5, rest=0.6), prompt(0.5, rest=0.6)]
    assert levels(turns, [0], executors=2)[0] < levels(turns, [0], executors=1)[0]


def test_tokens_are_taken_together_and_no_more_than_their_part():
    turns = [token(0.5), token(0.4), token(0.3)]
    assert sorted(choose_turns(turns, PACE, most=8)) == [0, 1, 2]
    assert choose_turns(turns, PACE, most=2) == [2, 1]


def test_a_turn_that_would_make_a_more_urgent_one_late_waits():
    slow = Ceiling(0.0, 1.0, "")
    turns = [token(0.013, ceiling=slow), token(0.5, ceiling=slow)]
    assert choose_turns(turns, PACE, most=8) == [0]
    # Not for one that is late already, nor when it would be late itself.
    late = [token(-0.1, ceiling=slow), token(0.5, ceiling=slow)]
    assert choose_turns(late, PACE, most=8) == [0, 1]
    both = [token(0.013, ceiling=slow), token(0.02, ceiling=slow)]
    assert choose_turns(both, PACE, most=8) == [0, 1]


def test_a_prompt_goes_before_tokens_that_have_time_for_it():
    ahead = [token(0.2), token(0.3), prompt(5.0)]
    assert sorted(choose_turns(ahead, PACE, most=8)) == [0, 1, 2]
    close = [token(0.05), token(0.3), prompt(5.0)]
    assert sorted(choose_turns(close, PACE, most=8)) == [0, 1]
    urgent = [token(0.05), token(0.3), prompt(0.03)]
    assert sorted(choose_turns(urgent, PACE, most=8)) == [0, 1, 2]
    # Tokens that are late for ever do not keep one waiting past its own time.
    late = [token(-9.0), token(-9.0), prompt(0.04)]
    assert sorted(choose_turns(late, PACE, most=8)) == [0, 1, 2]
    assert sorted(choose_turns([*late[:2], prompt(0.05)], PACE, most=8)) == [0, 1]


def test_of_two_prompts_the_more_urgent_is_in_a_step():
    assert choose_turns([prompt(2.0), prompt(1.0)], PACE, most=8) == [1]
    # The second has less time left than the first, for what is left of it.
    assert choose_turns([prompt(2.0), prompt(2.2, rest=4.0)], PACE, most=8) == [1]


def test_an_executor_that_is_free_leaves_the_other_the_prompt_or_the_tokens():
    turns = [token(0.2), prompt(5.0)]
    assert choose_turns(turns, PACE, most=8, idle=True) == [0]
    turns = [token(0.2), prompt(0.1)]
    assert choose_turns(turns, PACE, most=8, idle=True) == [1]


def test_how_many_may_run():
    work = Work(0.0, 0.01)
    assert places(1e-6, work, CEILING, PACE) == 1
    assert places(1e-6, work, CEILING, PACE, executors=2) == 2
    # Ten at the ceiling take 2 ms + 10 × 2 ms; a part of the time stays free.
    assert places(0.0251, work, CEILING, PACE) == 10
    assert places(0.0249, work, CEILING, PACE) == 9
    assert places(0.0251, work, CEILING, PACE, executors=2) == 20
    assert places(0.0251, work, CEILING, Pace(known(), known(), margin=1.5)) == 6
    assert places(1.0, Work(), CEILING, PACE) > 1000


def test_the_tokens_that_are_due_until_then():
    behind, ahead = token(-0.02, due_every=0.02), token(0.3, due_every=0.05)
    first, second, steps = tokens_until(0.1, [behind, ahead], PACE)
    assert (first.scalable, second.scalable) == (pytest.approx(7 * 0.01), 0)
    assert steps.fixed == pytest.approx(7 * OVERHEAD)
    assert tokens_until(1.0, [], PACE) == [Work()]


def test_a_lead_is_kept_but_not_without_end():
    assert next_due(due=1.0, now=0.98, token=0.1) == pytest.approx(1.1)
    assert next_due(due=1.0, now=1.5, token=0.1) == pytest.approx(1.1)
    assert next_due(due=9.0, now=1.0, token=0.1) == pytest.approx(1.0 + (LEAD + 1) * 0.1)

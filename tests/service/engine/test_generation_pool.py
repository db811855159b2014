"""The SLO of generations under load, in virtual time: quality is spent where it has to be, and only there."""

import random

import numpy as np
import pytest

from service.errors import Refused, TooSlow
from tests.service.engine.fake_generator import generation
from tests.service.engine.virtual_generations import Virtual, slo, stream

# Dense and alone, a prompt of 40 tokens takes 0.33 s and 50 tokens 0.5 s: 1.2 generations a second are all of it.


def level(ran):
    return np.mean([done.level for _, done in ran.done])


def test_no_quality_is_spent_on_a_load_that_the_dense_model_can_do():
    ran = Virtual(slo()).run(stream(rate=1.2, seconds=6))
    assert ran.attainment() == 1
    assert set(ran.levels) == {0.0}


def test_a_load_that_is_too_much_for_dense_is_served_in_time_at_a_higher_level():
    levels = []
    for rate in (1.5, 3.0, 5.0):
        ran = Virtual(slo()).run(stream(rate, seconds=5))
        assert ran.attainment() == 1
        levels.append(level(ran))
    assert 0 < levels[0] < levels[1] < levels[2] < 1


def test_what_is_too_much_at_the_floor_is_refused_and_the_others_are_in_time():
    dense = Virtual(slo(floor=1.0)).run(stream(rate=3.0, seconds=5))
    assert all(isinstance(error, Refused) and error.retry_after_seconds >= 1 for _, error in dense.lost)
    assert all(done.slo_met and done.level == 0 for _, done in dense.done)
    # Two thirds of what could be done by a server that knows the future.
    assert len(dense.done) > 5 * 1.2 * 2 / 3
    gated = Virtual(slo()).run(stream(rate=3.0, seconds=5))
    assert len(gated.done) > 2 * len(dense.done)


def test_two_executors_do_twice_as_much():
    ran = Virtual(slo(), executors=2).run(stream(rate=2.2, seconds=5))
    assert (ran.attainment(), set(ran.levels)) == (1, {0.0})
    ran = Virtual(slo(), executors=2).run(stream(rate=6.0, seconds=4))
    assert ran.attainment() == 1


def test_a_long_prompt_does_not_stall_the_tokens_of_others():
    requests = [*stream(rate=20, seconds=0.2, tokens=200), *stream(1, 1, prompt=400, first=1.0)]
    ran = Virtual(slo(first_token_ms=5000, token_ms=40)).run(requests)
    assert ran.attainment() == 1
    long = next(done for name, done in ran.done if len(name) == 400)
    assert long.tokens.first_token_seconds < 5


def test_an_slo_that_cannot_be_met_is_missed_by_little_and_not_refused():
    # At the floor a token takes 3.6 ms, and a prompt 0.074 s.
    ran = Virtual(slo(first_token_ms=5000, token_ms=2)).run(stream(rate=1, seconds=5))
    assert ran.lost == []
    assert all(not done.slo_attainable and not done.slo_met for _, done in ran.done)
    assert max(done.tokens.token_seconds for _, done in ran.done) < 0.006


def test_a_pace_that_cannot_be_kept_costs_others_nothing():
    hasty = generation("hasty", arrival=0.0, max_tokens=3000, token_ms=0.001)
    others = stream(rate=0.5, seconds=8, first=0.5)
    ran = Virtual(slo()).run([hasty, *others])
    assert ran.lost == []
    assert all(done.slo_met for name, done in ran.done if name != "hasty")
    # 3.6 ms at the floor, and it goes on while the others run.
    assert dict(ran.done)["hasty"].tokens.token_seconds < 0.005


def test_an_operator_s_pace_that_cannot_be_kept_is_no_outage():
    ran = Virtual(slo(first_token_ms=2000, token_ms=0.1)).run(stream(rate=1, seconds=8, tokens=200))
    assert ran.lost == []


def test_who_would_wait_too_long_for_an_executor_is_refused_at_once():
    pool = Virtual(slo()).pool
    with pytest.raises(Refused) as refused:
        pool.admit(0.0, generation(arrival=0.0), free_in=8.0)
    assert refused.value.retry_after_seconds == 8
    pool.admit(0.0, generation(arrival=0.0), free_in=0.2)


def behind_slow_readers(readers, **settings):
    slow = [generation(f"slow {n}", arrival=2.0 * n, max_tokens=500) for n in range(readers)]
    others = stream(rate=0.5, seconds=8, first=20.0)
    ran = Virtual(slo(), unread=[request.id for request in slow], **settings).run([*slow, *others])
    assert len([done for name, done in ran.done if not name.startswith("slow") and done.slo_met]) == len(others)
    return ran


def test_who_does_not_read_takes_no_place_from_others():
    ran = behind_slow_readers(4, generations=4)
    assert ran.lost == []
    assert ran.hosted.running == 4


def test_the_slowest_readers_end_where_there_is_no_room_for_more():
    ran = behind_slow_readers(6, generations=3)
    assert [type(error) for _, error in ran.lost] == [TooSlow]
    assert ran.hosted.running == 5


def test_those_of_a_request_are_let_in_past_the_limit_of_the_queue():
    together = [generation(f"{n}", arrival=0.0, max_tokens=10, number=n) for n in range(20)]
    assert len(Virtual(slo(), generations=2, queue_limit=4).run(together).done) == 20


def test_one_that_waits_for_others_of_its_request_is_not_the_most_urgent():
    first, second = (Virtual(slo()).pool.admit(0.0, generation(arrival=0.0, number=number)) for number in range(2))
    assert (first.slack(30.0), second.slack(30.0)) == (first.slack(0.0) - 30, second.slack(0.0))


def test_all_generations_of_a_request_are_let_in_with_its_first():
    together = [generation(f"{n:<40}", arrival=0.0, max_tokens=100, number=n) for n in range(40)]
    alone = stream(rate=1, seconds=5, first=1.0, prompt=41)
    ran = Virtual(slo(), generations=8).run([*together, *alone])
    assert [name for name, _ in ran.lost if len(name) == 40] == []
    assert len(ran.done) + len(ran.lost) == 45
    assert len([name for name, done in ran.done if len(name) == 41 and done.slo_met]) >= 1


def test_without_shedding_nothing_is_refused():
    ran = Virtual(slo(shed=False)).run(stream(rate=12, seconds=3))
    assert ran.lost == []
    assert len(ran.done) == 36


@pytest.mark.parametrize("executors", [1, 2])
def test_an_uneven_load(executors):
    chance = random.Random(5)
    at, requests = 0.0, []
    while at < 15:
        at += chance.expovariate(1.0 * executors)
        prompt = f"{len(requests):<{chance.choice([10, 40, 150])}}"
        requests.append(generation(prompt, arrival=at, max_tokens=chance.choice([10, 50, 150])))
    ran = Virtual(slo(first_token_ms=1500), executors=executors).run(requests)
    assert ran.attainment() > 0.9
    assert len(ran.done) + len(ran.lost) == len(requests)
    assert (ran.hosted.waiting, ran.hosted.running, ran.pool.busy) == (0, 0, False)

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from service.control.slo import SLO
from service.engine.dispatch import plan_entry
from service.engine.hosted import HostedModel
from service.engine.queue import Queue
from tests.service.engine.fakes import MACS, FakeModel, request

HOSTED = HostedModel(FakeModel(), SLO(20))


def entry(value=0.0, **options):
    return plan_entry(HOSTED, request(value, **options), MACS, 0.0, None)


def drained(queue):
    return [taken.request.id for taken in iter(queue.pop, None)]


def test_earliest_deadline_first_within_priority_then_first_come():
    queue = Queue()
    for id, options in {
        "late": {"slo_ms": 50},
        "early": {"slo_ms": 10},
        "early too": {"slo_ms": 10},
        "urgent": {"slo_ms": 900, "priority": 1},
        "less urgent": {"slo_ms": 1, "priority": 2},
    }.items():
        queue.push(entry(id=id, **options))
    assert drained(queue) == ["urgent", "less urgent", "early", "early too", "late"]


def test_an_entry_leaves_from_the_middle_once():
    queue = Queue()
    entries = [entry(value) for value in range(5)]
    for waiting in entries:
        queue.push(waiting)
    assert queue.remove(entries[2])
    assert not queue.remove(entries[2])
    assert list(queue) == [entries[0], entries[1], entries[3], entries[4]]
    queue.pop()
    assert not queue.remove(entries[0])


actions = st.lists(st.tuples(st.sampled_from(["push", "pop", "remove"]), st.integers(1, 50), st.integers(0, 3)))


@given(actions, st.integers(1, 60), st.integers(0, 4))
def test_the_work_ahead_is_that_of_those_that_would_be_taken_first(steps, slo_ms, priority):
    queue, inside = Queue(), []
    for action, deadline, urgency in steps:
        if action == "push":
            inside.append(entry(slo_ms=deadline, priority=urgency))
            queue.push(inside[-1])
        elif action == "pop" and (taken := queue.pop()):
            inside.remove(taken)
        elif action == "remove" and inside:
            queue.remove(inside.pop(deadline % len(inside)))
    new = entry(slo_ms=slo_ms, priority=priority)
    key = (new.request.options.urgency, new.due)
    ahead = [one for one in inside if (one.request.options.urgency, one.due) <= key]
    assert abs(queue.least_ahead(*key) - sum(one.least for one in ahead)) < 1e-9
    assert len(queue) == len(inside)
    assert queue.planned == min((one.planned for one in inside), default=inf)
    assert abs(queue.work.scalable - sum(one.work.scalable for one in inside)) < 1e-9
    demands, rest = list(queue.demands(0.0, 3)), list(queue)[3:]
    assert [demand.work for demand in demands[:3]] == [one.work for one in list(queue)[:3]]
    assert len(demands[3:]) == bool(rest)
    if rest:
        assert demands[3].slack == rest[-1].planned
        assert abs(demands[3].work.scalable - sum(one.work.scalable for one in rest)) < 1e-9

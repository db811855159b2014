import numpy as np
import pytest

from loadtest.curve import Span
from loadtest.running import Running
from loadtest.script import Script
from loadtest.trace import Trace
from loadtest.workload import Judged, Post, Reply
from service.control.slo import SLO


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Plain:
    model = "plain"
    posts = (Post("/a", {}, b""), Post("/b", {}, b""))

    def judge(self, number: int, reply: Reply) -> Judged:
        return Judged("ok" if reply.status == 200 else "error", score=float(number))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def running(clock: Clock) -> Running:
    trace = Trace("t", np.array([0.0, 1.0, 1.0, 5.0]), (Span("all", 0, 6),))
    return Running(trace, Plain(), Script(SLO(200)), delay=1.0, clock=clock)


def test_arrivals_are_given_once_and_judged_by_their_own_request(running, clock):
    assert running.now() == -1
    taken = [running.take() for _ in range(4)]
    assert [arrival.due for arrival in taken] == [0, 1, 1, 5]
    assert running.take() is None
    assert [running.post(arrival).path for arrival in taken] == ["/a", "/b", "/a", "/b"]
    clock.now += 2.1
    assert running.record(taken[1], 1.0, Reply(200, {}, b"")).score == 1
    assert running.record(taken[2], 1.0, Reply(0, {}, b"")).outcome == "error"
    assert not running.over
    # The first was due and has no answer yet; the last is not due.
    assert running.summary()["outcomes"] == {"timeout": 1, "ok": 1, "error": 1}
    assert running.summary()["attainment"] == pytest.approx(1 / 3)
    clock.now += 10
    running.record(taken[0], 0.0, Reply(200, {}, b""))
    running.record(taken[3], 5.0, Reply(200, {}, b""))
    assert running.over

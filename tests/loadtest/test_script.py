import pytest

from loadtest.script import Event, Script, parse_event
from service.control.slo import SLO, InvalidSLO


def test_the_slo_of_a_time_is_the_one_in_force_then():
    script = Script(SLO(50)).with_events([Event(20, {"latency_ms": 10}), Event(10, {"latency_ms": 5, "shed": False})])
    assert [script.at(time).latency_ms for time in (0, 9.99, 10, 19.99, 20, 1e9)] == [50, 50, 5, 5, 10, 10]
    assert script.at(30).shed is False


def test_events_as_text():
    assert parse_event("1.5:shed=false, latency_ms=7") == Event(1.5, {"shed": False, "latency_ms": 7.0})


@pytest.mark.parametrize("text", ["", "5", "x:latency_ms=1", "5:latency_ms", "5:latency_ms=x", "-1:latency_ms=1"])
def test_texts_that_are_no_event(text):
    with pytest.raises(ValueError, match="event"):
        parse_event(text)


def test_an_slo_that_cannot_be_is_said_at_once():
    with pytest.raises(InvalidSLO, match="latency_ms"):
        Script(SLO(50)).with_events([parse_event("5:latency_ms=-1")])
    with pytest.raises(InvalidSLO, match="latency"):
        Script(SLO(50)).with_events([parse_event("5:latency=1")])

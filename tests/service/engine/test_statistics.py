import pytest

from models.model import GateContext
from service.engine.snapshot import Duration
from service.engine.statistics import GatedWindow, RecentLevels, Tail, Timer


def test_a_timer_sums_nanoseconds():
    timer = Timer()
    timer.add(0.001)
    timer.add(0.0005)
    assert timer.total() == Duration(2, 1_500_000)


def test_the_tail_is_of_the_last_ten_seconds():
    tail = Tail()
    assert tail.percentiles(0.0) == {}
    tail.add(0.5, 9.0)
    for index in range(1, 101):
        tail.add(5 + index / 1000, index / 1000)
    assert tail.percentiles(6.0)["99.9"] > 8
    recent = tail.percentiles(12.0)
    assert recent["50"] == pytest.approx(0.0505)
    assert recent["99"] == pytest.approx(0.09901)
    assert tail.percentiles(100.0) == {}


def gated(first, second, macs, skipped):
    context = GateContext(0.5, macs=macs, macs_skipped=skipped)
    context.record("first", 10, 10 - first)
    context.record("second", 20, 20 - second)
    return context


def test_sums_go_on_while_the_window_forgets():
    window = GatedWindow()
    window.add(0.2, gated(10, 20, 100, 90))
    window.add(8.0, gated(5, 0, 100, 10))
    assert window.total.layers == {"first": [20, 15], "second": [40, 20]}
    assert window.recent(8.1).layers == window.total.layers
    late = window.recent(11.0)
    assert late.layers == {"first": [10, 5], "second": [20, 0]}
    assert (late.macs, late.macs_skipped) == (100, 10)
    assert late.skip_rate == pytest.approx(5 / 30)
    assert window.recent(60.0).skip_rate is None
    assert window.total.macs == 200


def test_levels_of_the_last_second():
    levels = RecentLevels()
    assert levels.mean(0.0) is None
    levels.add(0.0, 1.0)
    levels.add(0.9, 0.5)
    assert levels.mean(0.95) == 0.75
    assert levels.mean(1.5) == 0.5
    assert levels.mean(3.0) is None

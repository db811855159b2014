import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.curve import Curve, Phase, bursts, diurnal, ramp, spike, step

rates = st.floats(0, 1000).map(lambda rate: rate if rate > 1e-6 else 0.0)
phases = st.builds(Phase, st.sampled_from("ab"), st.floats(0.01, 100), rates, rates)
curves = (
    st.lists(phases, min_size=1, max_size=6).filter(lambda made: sum(p.expected for p in made) > 1e-3).map(tuple)
).map(Curve)


def expected_until(curve: Curve, time: float) -> float:
    """The integral of the rate, by the trapezium of each phase."""
    total = 0.0
    for span, phase in zip(curve.spans, curve.phases, strict=True):
        within = min(max(time - span.start, 0.0), phase.seconds)
        at = phase.first + (phase.last - phase.first) * within / phase.seconds
        total += within * (phase.first + at) / 2
    return total


@given(curves, st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_time_of_inverts_the_integral_of_the_rate(curve, shares):
    counts = np.array(sorted(shares)) * curve.expected
    times = curve.time_of(counts)
    assert (np.diff(times) >= -1e-9).all()
    assert times[0] >= 0
    assert times[-1] <= curve.seconds * (1 + 1e-9)
    for count, time in zip(counts, times, strict=True):
        assert expected_until(curve, time) == pytest.approx(count, rel=1e-6, abs=1e-6 * curve.expected)


def test_nothing_arrives_where_the_rate_is_zero():
    curve = Curve((Phase("before", 5, 0, 0), Phase("on", 2, 10, 10), Phase("after", 5, 0, 0)))
    times = curve.time_of(np.linspace(0.1, 20, 50))
    assert times.min() > 5
    assert times.max() == pytest.approx(7)


def test_bursts_take_their_share_of_the_time():
    curve = bursts(calm=60, peak=200, burst_seconds=10, share=0.2, count=2)
    assert curve.seconds == 100
    assert sum(phase.seconds for phase in curve.phases if phase.name == "burst") == 20
    assert [span.start for span in curve.spans if span.name == "burst"] == [20, 70]
    assert curve.expected == 60 * 80 + 200 * 20


def test_a_day_has_its_mean_and_its_swing():
    curve = diurnal(mean=50, seconds=240, swing=0.8)
    assert curve.expected == pytest.approx(50 * 240)
    rates_of_day = [phase.first for phase in curve.phases]
    assert rates_of_day.index(min(rates_of_day)) == 4
    assert rates_of_day.index(max(rates_of_day)) == 16
    assert (min(rates_of_day), max(rates_of_day)) == (pytest.approx(10), pytest.approx(90))


def test_ramp_and_step():
    assert ramp(10, 30, 8).expected == pytest.approx(160)
    assert [phase.first for phase in ramp(10, 30, 8).phases] == [10, 15, 20, 25]
    assert [phase.expected for phase in step((10, 30), 2).phases] == [20, 60]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Phase("x", 0, 1, 1),
        lambda: Phase("x", 1, -1, 1),
        lambda: Phase("x", 1, 1, float("nan")),
        lambda: spike(0, 0, 1, 1, 1),
        lambda: bursts(1, 2, 10, 1.0, 1),
        lambda: bursts(1, 2, 1, 0.5, 1, settle=1),
        lambda: diurnal(1, 10, 1.5),
    ],
)
def test_impossible_curves(make):
    with pytest.raises(ValueError):
        make()

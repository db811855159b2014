import numpy as np
import pytest

from loadtest.benchmarks.slo_plan import Plan, after_bursts, capacity_share, floor_below_dense, modes
from loadtest.curve import Span
from loadtest.summary import Sample
from loadtest.trace import Trace
from models.gating.profile import OperatingPoint, Profile
from service.control.slo import SLO


def profile(*points: tuple[float, float | None, float]) -> Profile:
    """(level, accuracy, lower bound of agreement) for each point."""
    return Profile(
        "m",
        1000,
        0.95,
        "",
        tuple(
            OperatingPoint(level, {"a": level}, 0.5 * level, 1 - 0.8 * level, accuracy, accuracy, lower, lower)
            for level, accuracy, lower in points
        ),
    )


TYPICAL = profile((0, 0.94, 1.0), (0.5, 0.935, 0.97), (1, 0.915, 0.9))


def test_the_floor_is_the_agreement_where_accuracy_is_the_points_below():
    floor = floor_below_dense(TYPICAL, 1.0)
    assert floor.level == pytest.approx(0.625, abs=1e-3)
    assert floor.accuracy == pytest.approx(0.93, abs=1e-4)
    assert floor.quality == pytest.approx(0.9525, abs=1e-3)
    assert TYPICAL.highest_level(floor.quality) == pytest.approx(floor.level)


@pytest.mark.parametrize(("points", "level"), [(0.0, 0.0), (0.5, 0.5), (10.0, 1.0)])
def test_floors_at_the_ends(points, level):
    floor = floor_below_dense(TYPICAL, points)
    assert floor.level == pytest.approx(level, abs=1e-3)
    assert TYPICAL.highest_level(floor.quality) >= floor.level


def test_a_dip_in_accuracy_ends_the_floor():
    dips = profile((0, 0.94, 1.0), (0.4, 0.92, 0.96), (0.6, 0.94, 0.97), (1, 0.94, 0.96))
    assert floor_below_dense(dips, 1.0).level == pytest.approx(0.2, abs=1e-3)


def test_a_dip_in_agreement_does_not_lower_the_level_that_the_floor_allows():
    dips = profile((0, 0.94, 1.0), (0.4, 0.94, 0.9), (1, 0.94, 0.95))
    floor = floor_below_dense(dips, 1.0)
    assert dips.highest_level(floor.quality) == floor.level == 1


def test_without_labels_there_is_no_floor_in_points():
    with pytest.raises(ValueError, match="accuracy"):
        floor_below_dense(profile((0, None, 1.0), (1, None, 0.9)), 1.0)


def test_the_load_is_the_one_asked_for():
    curve = Plan().curve(capacity=100, overload=2.5)
    assert {(phase.name, phase.first) for phase in curve.phases} == {("calm", 60), ("settling", 60), ("burst", 250)}
    assert sum(phase.seconds for phase in curve.phases if phase.name == "burst") == pytest.approx(0.2 * curve.seconds)
    assert Plan().trace(100, 2.0).times.tolist() == Plan().trace(100, 2.0).times.tolist()


def test_what_dense_capacity_allows():
    # 0.8 of the time at 60 % of capacity, 0.2 of it at twice capacity of which half is served: (0.48 + 0.2) / 0.88.
    assert capacity_share(Plan().curve(100, 2.0), 100) == pytest.approx(0.68 / 0.88)
    assert capacity_share(Plan().curve(100, 2.0), 1000) == 1


def test_modes():
    slo = SLO(10.0, 99.0, 0.9)
    ours, dense, admission, floored = modes(slo, 0.625)
    assert (ours.parameters, ours.slo, floored.slo) == ({}, slo, slo)
    assert (dense.parameters, dense.slo) == ({"level": 0.0}, SLO(10.0, 99.0, 1.0, shed=False))
    assert (admission.parameters, admission.slo) == ({}, SLO(10.0, 99.0, 1.0))
    assert floored.parameters == {"level": 0.625}


def test_after_bursts():
    spans = (Span("burst", 0, 2), Span("settling", 2, 3), Span("calm", 3, 9))
    samples = [Sample(time, time, time, "ok") for time in (1.0, 2.5, 3.0, 3.9, 4.0, 8.0)]
    trace = Trace("t", np.array([1.0]), spans)
    assert [sample.scheduled for sample in after_bursts(trace, samples)] == [3.0, 3.9]

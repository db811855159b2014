import numpy as np
import pytest

from models.gating.agreement import agreements, gain, mean_lower_bound, operating_point, spearman
from models.gating.profile import OperatingPoint, Profile


def run(inputs, context):
    context.macs, context.macs_skipped = 100, round(40 * context.level)
    context.record("layer", 10, 10 - round(5 * context.level))
    return {"y": inputs["x"] * (1 - 0.1 * context.level)}


def agree(outputs, dense):
    return float(outputs["y"] / dense["y"])


def test_a_point_is_the_mean_over_the_requests():
    requests = [{"x": np.float64(x)} for x in (1, 2, 3)]
    dense = [{"y": inputs["x"]} for inputs in requests]
    found = agreements(run, agree, requests, dense, 0.5)
    point = operating_point(0.5, {"layer": 0.1}, found)
    assert point.agreement == pytest.approx(0.95)
    assert point.agreement_lower == pytest.approx(0.95)
    assert point.macs_ratio == pytest.approx(0.8)
    assert point.skip_rate == pytest.approx(0.2)
    assert point.accuracy is None


def test_level_0_agrees_with_itself():
    found = agreements(run, agree, [{"x": np.float64(1)}], [{"y": np.float64(1)}], 0.0)
    assert operating_point(0.0, {}, found).agreement_lower == 1


def test_the_bound_holds_as_often_as_it_says():
    random = np.random.default_rng(0)
    bounds = [mean_lower_bound(random.uniform(0.8, 1, 50)) for _ in range(2000)]
    assert np.mean(np.array(bounds) <= 0.9) == pytest.approx(0.95, abs=0.015)
    assert mean_lower_bound(np.array([0.9])) == 0


def test_spearman_is_scipys():
    """The second has ties; the figure is scipy.stats.spearmanr's."""
    a, b = np.array([1.0, 2, 3, 4, 5]), np.array([5.0, 6, 7, 7, 6])
    assert spearman(a, b) == pytest.approx(0.5270462766947299)
    assert spearman(a, np.exp(a)) == pytest.approx(1)
    assert spearman(a, -a) == pytest.approx(-1)


def test_a_profile_gains_what_it_agrees_more_at_the_same_work():
    def profile(*agreements):
        points = [
            OperatingPoint(i / 2, {}, 0.0, 1 - i / 4, None, None, agreement, agreement)
            for i, agreement in enumerate(agreements)
        ]
        return Profile("text", 10, 0.95, "digest", tuple(points))

    good, bad = profile(1.0, 0.98, 0.96), profile(1.0, 0.96, 0.92)
    assert gain(good, bad) == pytest.approx(0.02)
    assert gain(bad, good) == pytest.approx(-0.02)
    assert gain(good, good) == 0

from itertools import pairwise

import pytest

from models.gating.greedy import allocate, spread

SAVES = {"a": 0.3, "b": 0.2, "c": 0.0}
COSTS = {"a": 0.4, "b": 0.02, "c": 0.0}


def grids(gates, *values):
    return dict.fromkeys(gates, values)


def evaluate(thresholds):
    """Each gate saves and costs in proportion to its threshold; c does nothing."""
    return (
        1 - sum(SAVES[gate] * value for gate, value in thresholds.items()),
        1 - sum(COSTS[gate] * value**2 for gate, value in thresholds.items()),
    )


def test_the_cheapest_gate_goes_first():
    path = allocate(grids("abc", 0.25, 0.5, 0.75, 1.0), evaluate, least_quality=0.8)
    assert path[0].thresholds == {"a": 0, "b": 0, "c": 0}
    assert [step.thresholds["b"] for step in path[:4]] == [0, 0.25, 0.5, 0.75]
    assert path[-1].thresholds["a"] > 0
    assert all(step.thresholds["c"] == 0 for step in path)
    for before, after in pairwise(path):
        assert after.macs_ratio < before.macs_ratio
        assert after.quality < before.quality


def test_it_ends_at_the_least_quality_or_at_the_grids_end():
    path = allocate(grids("ab", 0.5, 1.0), evaluate, least_quality=0.95)
    assert path[-1].quality < 0.95 <= path[-2].quality
    assert allocate(grids("ab", 0.5, 1.0), evaluate, least_quality=0.0)[-1].thresholds == {"a": 1, "b": 1}


def test_steps_that_save_nothing_are_taken_together_with_the_next():
    def stairs(thresholds):
        return 1 - 0.2 * (thresholds["a"] >= 0.5), 1 - 0.1 * thresholds["a"]

    path = allocate(grids("a", 0.1, 0.3, 0.5, 0.7), stairs, least_quality=0.0)
    assert [step.thresholds["a"] for step in path] == [0, 0.5]


def test_levels_are_evenly_apart_in_the_work_that_is_left():
    path = allocate(grids("ab", 0.25, 0.5, 0.75, 1.0), evaluate, least_quality=0.8)
    points = spread(path, 5)
    assert points[0] == {"a": 0, "b": 0}
    assert points[-1] == path[-1].thresholds
    work = [evaluate(point)[0] for point in points]
    steps = [a - b for a, b in pairwise(work)]
    assert steps == pytest.approx([steps[0]] * 4)


def test_levels_may_each_leave_the_same_share_of_the_work():
    path = allocate(grids("ab", 0.25, 0.5, 0.75, 1.0), evaluate, least_quality=0.8)
    work = [evaluate(point)[0] for point in spread(path, 5, geometric=True)]
    shares = [b / a for a, b in pairwise(work)]
    assert shares == pytest.approx([shares[0]] * 4)

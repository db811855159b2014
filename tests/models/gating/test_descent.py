from itertools import pairwise

import pytest

from models.gating.descent import descend

GRIDS = {"a": (0.5, 1.0), "b": (0.5, 1.0)}
PRICES = (0.05, 0.2, 0.8, 3.2)


def apart(thresholds):
    """Each gate saves in proportion to its threshold, and loses with its square; b loses less."""
    return (
        1 - 0.2 * thresholds["a"] - 0.2 * thresholds["b"],
        1 - 0.4 * thresholds["a"] ** 2 - 0.04 * thresholds["b"] ** 2,
    )


def test_at_a_price_each_gate_is_closed_as_far_as_it_pays():
    path = descend(GRIDS, apart, [0.2])
    assert [step.thresholds for step in path] == [{"a": 0, "b": 0}, {"a": 0, "b": 0.5}, {"a": 1, "b": 1}]


def test_a_path_leads_from_dense_to_all_closed_without_a_step_for_nothing():
    path = descend(GRIDS, apart, PRICES)
    assert path[0].thresholds == {"a": 0, "b": 0}
    assert path[-1].thresholds == {"a": 1, "b": 1}
    for before, after in pairwise(path):
        assert after.macs_ratio < before.macs_ratio
        assert after.quality < before.quality


def test_gates_that_lose_less_together_are_closed_together():
    def together(thresholds):
        lean = [thresholds[gate] > 0 for gate in "abc"]
        lost = 0.03 if all(lean) else 0.025 * sum(lean)
        return 1 - 0.1 * sum(lean) - 0.2 * thresholds["d"], 1 - lost - 0.1 * thresholds["d"] ** 2

    grids = {**dict.fromkeys("abc", (1.0,)), "d": (0.25, 0.5, 0.75, 1.0)}
    found = {tuple(step.thresholds.values()) for step in descend(grids, together, (0.02, 0.15, 1.0))}
    assert (1, 1, 1, 0.25) in found
    assert not any(0 < sum(setting[:3]) < 3 for setting in found)


def test_a_place_that_changes_nothing_is_passed():
    def stairs(thresholds):
        return 1 - 0.3 * (thresholds["a"] >= 1), 1 - 0.01 * (thresholds["a"] >= 1)

    assert descend({"a": (0.5, 1.0)}, stairs, [0.1])[-1].thresholds == {"a": 1}


def test_progress_ends_with_all():
    seen = []
    descend(GRIDS, apart, PRICES, seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1)


def test_dense_is_first_even_where_something_else_is_no_worse():
    path = descend({"a": (1.0,)}, lambda thresholds: (1 - 0.5 * thresholds["a"], 1.0), [0.1])
    assert [step.macs_ratio for step in path] == [1, 0.5]

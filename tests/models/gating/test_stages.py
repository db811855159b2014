from itertools import pairwise

import pytest

from models.gating.stages import allocate_in_stages

OTHERS = {"d": (0.25, 0.5, 0.75, 1.0)}
TOGETHER = dict.fromkeys("abc", (1.0,))


def evaluate(thresholds):
    """Of a, b and c any one or two lose nearly as much as all."""
    lean = sum(thresholds[gate] > 0 for gate in "abc")
    lost = 0.03 if lean == 3 else 0.025 * min(lean, 1)
    return 1 - 0.1 * lean - 0.2 * thresholds["d"], 1 - lost - 0.1 * thresholds["d"] ** 2


def paths(cheap, least_quality=0.5):
    return allocate_in_stages(OTHERS, TOGETHER, evaluate, cheap, least_quality)


@pytest.mark.parametrize(("cheap", "before"), [(0.0, 0.0), (0.13, 0.25), (0.38, 0.5), (9.0, 1.0)])
def test_others_are_closed_before_as_long_as_they_are_cheap(cheap, before):
    path = paths(cheap)
    assert path[0].thresholds == dict.fromkeys("dabc", 0.0)
    assert path[-1].thresholds == dict.fromkeys("dabc", 1.0)
    lean = [step for step in path if step.thresholds["a"] + step.thresholds["b"] + step.thresholds["c"] > 0]
    assert lean[0].thresholds["d"] == before


def test_each_step_is_less_work():
    for before, after in pairwise(paths(0.13)):
        assert after.macs_ratio < before.macs_ratio


def test_steps_say_what_their_thresholds_give():
    for step in paths(0.13):
        assert (step.macs_ratio, step.quality) == pytest.approx(evaluate(step.thresholds))


def test_it_ends_at_the_least_quality():
    path = paths(0.13, least_quality=0.95)
    assert path[-1].quality < 0.95 <= path[-2].quality


def test_progress_ends_with_all():
    seen = []
    allocate_in_stages(OTHERS, TOGETHER, evaluate, 0.13, 0.5, seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1

from itertools import count, pairwise

import pytest

from models.gating.greedy import Allocation
from models.gating.prices import allocate_at_prices

GRIDS = {"a": (0.25, 0.5, 0.75, 1.0), "b": (0.5, 1.0)}
DENSE = Allocation({"a": 0.0, "b": 0.0, "c": 0.7}, 1.0, 1.0)


def evaluate(thresholds):
    """a loses with its square. b saves as much; half of it is free, but what a has closed is dear where b is."""
    a, b = thresholds["a"], thresholds["b"]
    assert thresholds["c"] == 0.7
    return 1 - 0.3 * a - 0.3 * b, 1 - 0.1 * a**2 - 0.05 * max(0, b - 0.5) - 0.2 * a * b


def allocated(prices, base=DENSE, least_quality=0.0, tried=evaluate):
    return allocate_at_prices(base, GRIDS, tried, prices, least_quality)


def test_at_a_price_no_single_move_is_better():
    price = 0.3
    (found,) = allocated([price])
    best = price * found.macs_ratio - found.quality
    for gate, grid in GRIDS.items():
        values = (0.0, *grid)
        place = values.index(found.thresholds[gate])
        for other in values[max(0, place - 1) : place + 2]:
            macs_ratio, quality = evaluate(found.thresholds | {gate: other})
            assert price * macs_ratio - quality >= best - 1e-9


def test_a_gate_that_became_dear_is_opened_again():
    closed = {"a": 1.0, "b": 0.0, "c": 0.7}
    (found,) = allocated([0.3], Allocation(closed, 1.0, evaluate(closed)[1]))
    assert found.thresholds["a"] < 1
    assert [found] == allocated([0.3])


def test_each_step_is_less_work_and_less_quality():
    path = allocated(0.01 * 1.5**n for n in count())
    assert path[-1].thresholds == {"a": 1.0, "b": 1.0, "c": 0.7}  # which ends it
    for before, after in pairwise([DENSE, *path]):
        assert after.macs_ratio < before.macs_ratio
        assert after.quality <= before.quality
    for step in path:
        assert (step.macs_ratio, step.quality) == pytest.approx(evaluate(step.thresholds))


def test_it_ends_at_the_least_quality():
    path = allocated((0.01 * 1.2**n for n in count()), least_quality=0.95)
    assert path[-1].quality < 0.95 <= path[-2].quality


def test_nothing_is_asked_twice():
    asked = []

    def counted(thresholds):
        asked.append(tuple(thresholds.values()))
        return evaluate(thresholds)

    allocated((0.01 * 1.5**n for n in range(12)), tried=counted)
    assert len(asked) == len(set(asked))


def test_values_that_close_nothing_are_passed_over():
    def late(thresholds):
        closed = max(0.0, thresholds["a"] - 0.5)
        return 1 - 0.3 * closed, 1 - 0.01 * closed

    (found,) = allocated([0.3], tried=late)
    assert found.thresholds == {"a": 1.0, "b": 0.0, "c": 0.7}


def test_a_gate_that_is_far_too_dear_is_asked_now_and_then():
    grids, asked = {"cheap": tuple(0.01 * step for step in range(1, 101)), "dear": (1.0,)}, []

    def tried(thresholds):
        asked.append(thresholds["dear"])
        cheap, dear = thresholds["cheap"], thresholds["dear"]
        # The dear one costs 2 for all of the work, and where the cheap one is closed half of that.
        return 1 - 0.5 * cheap - 0.1 * dear, 1 - 0.25 * cheap**2 - (0.1 if cheap == 1 else 0.2) * dear

    dense = Allocation({"cheap": 0.0, "dear": 0.0}, 1.0, 1.0)
    prices = [0.05 * 1.1**n for n in range(40)]
    path = allocate_at_prices(dense, grids, tried, prices, 0.0)
    assert path[-1].thresholds == {"cheap": pytest.approx(1.0), "dear": 1.0}
    # 32 times otherwise: at each price, since the cheap one is elsewhere then.
    assert sum(asked) <= 12

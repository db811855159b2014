"""Which gate to close a little further, so that quality is spent where it buys most: greedy allocation, as in TEAL
(Liu et al. 2024), but on the quality of the whole model rather than on each block's error."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

LEAST_GAIN = 0.002
"""A step that saves less than this share of the dense work is taken together with the next."""


@dataclass(frozen=True, slots=True)
class Allocation:
    """Thresholds by gate, the share of the dense work that is done with them, and the quality."""

    thresholds: dict[str, float]
    macs_ratio: float
    quality: float


Evaluate = Callable[[Mapping[str, float]], tuple[float, float]]
"""From thresholds to the share of the dense work that is done, and the quality."""


def allocate(
    grids: Mapping[str, Sequence[float]],
    evaluate: Evaluate,
    least_quality: float,
    report: Callable[[float], None] = lambda done: None,
    most_price: float = math.inf,
) -> list[Allocation]:
    """The path from dense to `least_quality`, a step at a time: of all gates the one is raised to a next value of its
    rising grid that loses least quality for the work that it saves. Gates that are at the end of their grid stay there.
    It ends before a step that costs more than `most_price`, in quality for all of the work.

    A gate's price hardly changes while others move, so only the cheapest is asked again before it is raised (lazy
    evaluation, Minoux 1978). `report` is called with the share of the quality that is spent.
    """
    path = [Allocation(dict.fromkeys(grids, 0.0), 1.0, 1.0)]
    prices, open_gates = dict.fromkeys(grids, 0.0), list(grids)
    while open_gates and path[-1].quality >= least_quality:
        gate = min(open_gates, key=prices.__getitem__)
        step = _next(path[-1], gate, grids[gate], evaluate)
        if step is None:
            open_gates.remove(gate)
            continue
        prices[gate] = (path[-1].quality - step.quality) / (path[-1].macs_ratio - step.macs_ratio)
        if prices[gate] <= min(prices[other] for other in open_gates):
            if prices[gate] > most_price:
                break
            path.append(step)
            report(min(1.0, (1 - step.quality) / (1 - least_quality)))
    return path


def _next(now: Allocation, gate: str, grid: Sequence[float], evaluate: Evaluate) -> Allocation | None:
    """The next value of a gate that saves anything."""
    for threshold in grid:
        if threshold > now.thresholds[gate]:
            thresholds = now.thresholds | {gate: threshold}
            macs_ratio, quality = evaluate(thresholds)
            if now.macs_ratio - macs_ratio >= LEAST_GAIN:
                return Allocation(thresholds, macs_ratio, quality)
    return None


def spread(path: Sequence[Allocation], points: int, geometric: bool = False) -> list[dict[str, float]]:
    """Thresholds at `points` levels along the path, dense first, evenly apart in the work that they leave; `geometric`,
    each leaves the same share of what the one before leaves."""
    ratios = np.array([step.macs_ratio for step in path])
    space = np.geomspace if geometric else np.linspace
    wanted = space(ratios[0], ratios[-1], points)
    columns = {
        gate: np.interp(-wanted, -ratios, [step.thresholds[gate] for step in path]) for gate in path[0].thresholds
    }
    return [{gate: float(values[i]) for gate, values in columns.items()} for i in range(points)]

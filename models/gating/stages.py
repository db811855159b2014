"""Greedy allocation in stages, for gates that make up for each other.

`greedy` closes a gate by what it loses beside those that are closed already. Halves that were tuned together lose less
together than one by one, so that it takes them last, and closes all others far too much before. Here the others are
closed as long as they are cheap, then those that belong together, all of them, and then the others again, at rising
prices: after so much has changed, some of what was cheap before is not.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from models.gating.greedy import Allocation, Evaluate, allocate
from models.gating.prices import allocate_at_prices

LEAST_PRICE, MOST_PRICE, DEARER = 0.01, 3.0, 1.2
"""Prices, in quality for all of the work, are within these, and each is so many times the one before."""

Grids = Mapping[str, Sequence[float]]


def allocate_in_stages(
    others: Grids,
    together: Grids,
    evaluate: Evaluate,
    cheap: float,
    least_quality: float,
    report: Callable[[float], None] = lambda done: None,
) -> list[Allocation]:
    """The path from dense to `least_quality`, or to `MOST_PRICE`: the `others` up to a price that is `cheap`, in
    quality for all of the work, then those that are closed `together`, and the others at prices from there on, where
    one that was closed may be opened again. `report` is called with the share done."""
    open_gates = dict.fromkeys([*others, *together], 0.0)
    path = _from(Allocation(open_gates, 1.0, 1.0), others, evaluate, least_quality, cheap)
    report(1 / 3)
    path += _from(path[-1], together, evaluate, -math.inf)[1:]
    report(2 / 3)
    path += allocate_at_prices(path[-1], others, evaluate, _prices(cheap), least_quality)
    report(1.0)
    return path


def _prices(first: float) -> Iterator[float]:
    price = max(first, LEAST_PRICE)
    while price <= MOST_PRICE:
        yield price
        price *= DEARER


def _from(
    base: Allocation, grids: Grids, evaluate: Evaluate, least_quality: float, most_price: float = math.inf
) -> list[Allocation]:
    """The greedy path of some gates, from where others are closed already."""

    def closed(thresholds: Mapping[str, float]) -> dict[str, float]:
        return base.thresholds | {gate: max(value, base.thresholds[gate]) for gate, value in thresholds.items()}

    def beside(thresholds: Mapping[str, float]) -> tuple[float, float]:
        macs_ratio, quality = evaluate(closed(thresholds))
        return 1 + macs_ratio - base.macs_ratio, 1 + quality - base.quality

    open_grids = {gate: [one for one in grid if one > base.thresholds[gate]] for gate, grid in grids.items()}
    path = allocate(open_grids, beside, 1 + least_quality - base.quality, most_price=most_price)
    return [
        Allocation(closed(one.thresholds), one.macs_ratio - 1 + base.macs_ratio, one.quality - 1 + base.quality)
        for one in path
    ]

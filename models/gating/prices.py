"""Thresholds at rising prices of work: those for which quality lost plus the price times the work is least (Lagrange
multipliers, Everett 1963), found by moving one gate at a time.

`greedy` never opens a gate again. Where gates depend on each other, one that was cheap at first may have become dear by
what was closed since, and is opened here for others that cost less.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product

from models.gating.greedy import Allocation, Evaluate

LEAST_GAIN = 1e-6
"""What a move must gain, in quality: not what rounding does."""

LEAST_CHANGE = 0.002
"""A move that changes a smaller share of the dense work goes on to the next value of the grid: the first ones of a gate
may close nothing."""

LAZY = 1.5
"""A gate's price changes slowly while others move: a step that would have paid at a price further off than this is not
tried again at once."""

Places = tuple[int, ...]


def allocate_at_prices(
    base: Allocation,
    grids: Mapping[str, Sequence[float]],
    evaluate: Evaluate,
    prices: Iterable[float],
    least_quality: float,
) -> list[Allocation]:
    """The path from `base`, behind it, to `least_quality`, or until the prices end or all gates of the rising `grids`
    are closed: what is about best at each of the rising `prices`, in quality for all of the work, where that is less
    work than before. Each price begins where the one before ended."""
    gates = {gate: (0.0, *grid) for gate, grid in grids.items()}
    known: dict[Places, Allocation] = {}

    def at(places: Places) -> Allocation:
        if places not in known:
            moved = {gate: values[place] for (gate, values), place in zip(gates.items(), places, strict=True)}
            thresholds = dict(base.thresholds) | moved
            known[places] = Allocation(thresholds, *evaluate(thresholds))
        return known[places]

    def further(places: Places, gate: int, step: int) -> Places | None:
        tried = _moved(places, gate, step, ends)
        while tried and abs(at(tried).macs_ratio - at(places).macs_ratio) < LEAST_CHANGE:
            tried = _moved(tried, gate, step, ends)
        return tried

    def may_pay(gate: int, step: int, price: float) -> bool:
        """Whether a step that did not when it was last tried may now."""
        if (gate, step) not in asked:
            return True
        even, then = asked[gate, step]
        return price >= LAZY * then or (even < LAZY * price if step > 0 else even > price / LAZY)

    def pays(tried: Places, gate: int, step: int, price: float) -> bool:
        work, quality = at(places).macs_ratio - at(tried).macs_ratio, at(places).quality - at(tried).quality
        asked[gate, step] = quality / work, price
        return price * work - quality > LEAST_GAIN

    # The price at which a step costs as much as it saves, and the one at which that was found.
    asked: dict[tuple[int, int], tuple[float, float]] = {}
    ends = tuple(len(values) - 1 for values in gates.values())
    places = tuple(
        max(place for place, value in enumerate(values) if value <= base.thresholds[gate])
        for gate, values in gates.items()
    )
    path: list[Allocation] = []
    work = base.macs_ratio
    for price in prices:
        moved = True
        while moved:
            moved = False
            for gate, step in product(range(len(ends)), (1, -1)):
                while may_pay(gate, step, price) and (tried := further(places, gate, step)):
                    if not pays(tried, gate, step, price):
                        break
                    places, moved = tried, True
                    asked.pop((gate, -step), None)
        if at(places).macs_ratio < work:
            path.append(at(places))
            work = path[-1].macs_ratio
        if places == ends or at(places).quality < least_quality:
            break
    return path


def _moved(places: Places, gate: int, step: int, ends: Places) -> Places | None:
    """With one gate a step further; None past its end."""
    place = places[gate] + step
    return (*places[:gate], place, *places[gate + 1 :]) if 0 <= place <= ends[gate] else None

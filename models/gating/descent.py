"""How far to close each gate where gates make up for each other: at a price for work, coordinate descent to the
thresholds that together cost least.

`greedy` closes a gate by what it loses beside those that are closed already. Halves that were tuned together lose less
together than one by one, so that it takes them last, and joins far too much before. Here one sweep over the prices
begins at dense and one at all closed, and what either finds counts where nothing else is better.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice, pairwise

from models.gating.greedy import Allocation, Evaluate

Setting = tuple[int, ...]
"""The place of each gate in its grid; 0 is open."""

LEAST_BETTER = 1e-6


def descend(
    grids: Mapping[str, Sequence[float]],
    evaluate: Evaluate,
    prices: Sequence[float],
    report: Callable[[float], None] = lambda done: None,
) -> list[Allocation]:
    """From dense on, settings each of which is less work than the one before, and closes no gate less: those that lose
    least of the quality, plus a price times the work, at each of the rising `prices`. `report` is called with the share
    done."""
    values = {gate: (0.0, *grid) for gate, grid in grids.items()}
    asked: dict[Setting, Allocation] = {}

    def ask(setting: Setting) -> Allocation:
        if setting not in asked:
            thresholds = {gate: values[gate][place] for gate, place in zip(values, setting, strict=True)}
            asked[setting] = Allocation(thresholds, *evaluate(thresholds))
        return asked[setting]

    def cost(setting: Setting, price: float) -> float:
        return price * ask(setting).macs_ratio - ask(setting).quality

    def beside(setting: Setting, gate: int) -> Iterator[Setting]:
        """With this gate moved either way, as far as it takes to change the work."""
        for move in (1, -1):
            places = range(setting[gate] + move, ends[gate] + 1 if move > 0 else -1, move)
            others = ((*setting[:gate], place, *setting[gate + 1 :]) for place in places)
            changed = (other for other in others if ask(other).macs_ratio != ask(setting).macs_ratio)
            yield from islice(changed, 1)

    def settled(setting: Setting, price: float) -> Setting:
        least, moved = cost(setting, price), True
        while moved:
            moved = False
            for gate in range(len(setting)):
                for other in beside(setting, gate):
                    if cost(other, price) < least - LEAST_BETTER:
                        setting, least, moved = other, cost(other, price), True
                        break
        return setting

    ends = tuple(len(grid) - 1 for grid in values.values())
    dense: Setting = (0,) * len(values)
    found: list[Setting] = [ends]
    for setting, order in ((dense, list(prices)), (ends, list(prices)[::-1])):
        for price in order:
            setting = settled(setting, price)
            found.append(setting)
            report((len(found) - 1) / (2 * len(prices)))
    path = [dense]
    for setting in sorted(found, key=lambda one: (-ask(one).macs_ratio, ask(one).quality)):
        if all(ask(other).quality < ask(setting).quality for other in found if _less(ask(other), ask(setting))):
            path.append(tuple(map(max, path[-1], setting)))  # so that between two levels work is between theirs
    return [ask(dense), *(ask(b) for a, b in pairwise(path) if _less(ask(b), ask(a)))]


def _less(one: Allocation, other: Allocation) -> bool:
    """Whether it is less work."""
    return one.macs_ratio < other.macs_ratio

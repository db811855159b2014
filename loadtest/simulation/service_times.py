"""How long simulated runs take: a time for each level, and how far single runs stray from it."""

from collections.abc import Callable, Sequence
from random import Random
from time import perf_counter

from models.gating.profile import Profile
from models.model import GateContext, Model, Tensors


class ServiceTimes:
    """Seconds of a run, by its level: linear between the measured ones, in proportion to the MACs of a batch, times one
    of the `noise` factors, drawn by `seed`.

    `item_macs` are the dense model's for one item. Raises `ValueError` where the levels do not go from 0 to 1.
    """

    def __init__(
        self,
        levels: Sequence[float],
        seconds: Sequence[float],
        item_macs: int,
        noise: Sequence[float] = (1.0,),
        seed: int = 0,
    ) -> None:
        if len(levels) < 2 or levels[0] != 0 or levels[-1] != 1 or list(levels) != sorted(set(levels)):
            raise ValueError(f"service times are needed for levels that rise from 0 to 1, got {list(levels)}")
        if len(seconds) != len(levels) or not all(value > 0 for value in seconds):
            raise ValueError("service times must be above 0 s, one for each level")
        if not noise or not all(factor > 0 for factor in noise):
            raise ValueError("noise factors must be above 0")
        self.levels, self.seconds, self.noise = tuple(levels), tuple(seconds), tuple(noise)
        self._item_macs = item_macs
        self._random = Random(seed)

    @property
    def dense(self) -> float:
        """Seconds of an item at level 0, without noise."""
        return self.seconds[0]

    def __call__(self, context: GateContext) -> float:
        """The time of one run, seconds."""
        factor = self.noise[int(self._random.random() * len(self.noise))]
        return self.expected(context.level) * context.macs / self._item_macs * factor

    def expected(self, level: float) -> float:
        """Seconds of an item at a level, without noise."""
        after = 1
        while self.levels[after] < level:
            after += 1
        low, high = self.levels[after - 1], self.levels[after]
        share = (level - low) / (high - low)
        return self.seconds[after - 1] * (1 - share) + self.seconds[after] * share


def log_normal(spread: float, count: int = 1000, seed: int = 0) -> tuple[float, ...]:
    """Noise factors with a median of 1; `spread` is the standard deviation of their logarithm."""
    random = Random(seed)
    return tuple(random.lognormvariate(0.0, spread) for _ in range(count))


def from_profile(
    profile: Profile, dense: float, item_macs: int, overhead: float = 0.1, noise: float = 0.0, seed: int = 0
) -> ServiceTimes:
    """`dense` seconds at level 0, of which the share `overhead` is never saved and the rest goes by the MACs.

    `noise` is the spread of log-normal factors. Raises `ValueError` for a profile of one operating point.
    """
    full = profile.points[0].macs_ratio
    seconds = [dense * (overhead + (1 - overhead) * point.macs_ratio / full) for point in profile.points]
    return ServiceTimes([p.level for p in profile.points], seconds, item_macs, log_normal(noise, seed=seed), seed)


def measure(
    model: Model,
    inputs: Tensors,
    runs: int = 200,
    levels: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
    seed: int = 0,
    clock: Callable[[], float] = perf_counter,
) -> ServiceTimes:
    """Runs a real model, on inputs of one item each, `runs` times at each level, the levels taking turns.

    The times are medians, and every run over its level's median is a factor of the noise.
    """
    taken: list[list[float]] = [[] for _ in levels]
    model.run(inputs, GateContext(0.0))
    for _ in range(runs):
        for level, seconds in zip(levels, taken, strict=True):
            started = clock()
            model.run(inputs, GateContext(level))
            seconds.append(clock() - started)
    medians = [sorted(seconds)[len(seconds) // 2] for seconds in taken]
    noise = [value / median for median, seconds in zip(medians, taken, strict=True) for value in seconds]
    return ServiceTimes(levels, medians, model.dense_macs(inputs), noise, seed)

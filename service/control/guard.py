"""The quality guard: live agreement with the dense model, held against the floor, bounds the level."""

from collections import deque
from dataclasses import dataclass, field
from math import sqrt
from statistics import NormalDist


@dataclass(slots=True)
class QualityGuard:
    """`limit` is the highest level that live agreement allows, 1 while nothing speaks against it.

    Each shadow run gives an agreement, 0 to 1. When the upper confidence bound of their mean, over the last `window`,
    falls below the floor, quality is surely lost: the limit comes down to `fall` of the level that the samples had, and
    the window starts anew. It recovers by `recovery` a sample, and only while the mean is above the floor by its
    standard error: a fault of the profile is probed for slowly, and not while the samples leave it open.

    The bound is looked at after every sample, so by chance alone it falls below a floor that is just kept more often
    than its confidence says: hence 99 %.
    """

    window: int = 200
    fewest: int = 20
    confidence: float = 0.99
    fall: float = 0.8
    recovery: float = 0.001
    limit: float = 1.0
    samples: int = 0
    agreement: float | None = None
    """Mean over the window, None before the first sample."""
    reason: str = ""
    """What brought the limit down; empty while it is 1."""
    _floor: float | None = None
    _recent: deque[tuple[float, float]] = field(default_factory=deque)

    def record(self, level: float, agreement: float, floor: float) -> None:
        """Counts the shadow run of a request that was served at `level`, under a quality floor."""
        self.samples += 1
        if floor != self._floor:
            # What was allowed under another floor is no evidence against this one.
            self._floor = floor
            self._recent.clear()
        self._recent.append((level, agreement))
        if len(self._recent) > self.window:
            self._recent.popleft()
        self.agreement = sum(value for _, value in self._recent) / len(self._recent)
        if len(self._recent) < self.fewest:
            return
        if self.upper_bound() < floor:
            self.limit = min(self.limit, self.fall * sum(level for level, _ in self._recent) / len(self._recent))
            self.reason = f"live agreement {self.agreement:.3f} in the shadow runs, below the floor of {floor:g}"
            self._recent.clear()
        elif self.agreement - self._standard_error() >= floor:
            self.limit = min(self.limit + self.recovery, 1.0)
            if self.limit == 1.0:
                self.reason = ""

    def _standard_error(self) -> float:
        count = len(self._recent)
        mean = sum(value for _, value in self._recent) / count
        return sqrt(mean * (1 - mean) / count)

    def upper_bound(self) -> float:
        """One-sided upper confidence bound of the mean agreement (Wilson 1927, score interval)."""
        count = len(self._recent)
        if count == 0:
            return 1.0
        mean = sum(value for _, value in self._recent) / count
        z = NormalDist().inv_cdf(self.confidence)
        centre = mean + z * z / (2 * count)
        spread = z * sqrt(mean * (1 - mean) / count + z * z / (4 * count * count))
        return min((centre + spread) / (1 + z * z / count), 1.0)

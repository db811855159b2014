"""The quality guard: live agreement with the dense model, held against the floor, bounds the level."""

from collections import deque
from dataclasses import dataclass, field
from math import sqrt
from statistics import NormalDist


@dataclass(slots=True)
class QualityGuard:
    """`limit` is the highest level that live agreement allows, 1 while nothing speaks against it.

    Each shadow run gives an agreement, 0 to 1. When the upper confidence bound of their mean, over the last `window`,
    falls below the floor, quality is surely lost: the limit comes down by `fall` of the level that the samples had, and
    the window starts anew. While agreement is not surely below the floor the limit recovers by `recovery` a sample, so
    a fault in the profile is probed for slowly.
    """

    window: int = 200
    fewest: int = 20
    confidence: float = 0.95
    fall: float = 0.8
    recovery: float = 0.002
    limit: float = 1.0
    samples: int = 0
    agreement: float | None = None
    """Mean over the window, None before the first sample."""
    _recent: deque[tuple[float, float]] = field(default_factory=deque)

    def record(self, level: float, agreement: float, floor: float) -> None:
        """Counts the shadow run of a request that was served at `level`, under a quality floor."""
        self.samples += 1
        self._recent.append((level, agreement))
        if len(self._recent) > self.window:
            self._recent.popleft()
        self.agreement = sum(value for _, value in self._recent) / len(self._recent)
        if len(self._recent) >= self.fewest and self.upper_bound() < floor:
            self.limit = min(self.limit, self.fall * sum(level for level, _ in self._recent) / len(self._recent))
            self._recent.clear()
        else:
            self.limit = min(self.limit + self.recovery, 1.0)

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

    @property
    def reason(self) -> str:
        return f"live agreement {self.agreement:.3f} over the last shadow runs was below the floor"

"""What the engine counts of one model: sums since it was loaded, and what a recent window shows.

None of these take a lock: they belong to the engine's state and are used under its lock.
"""

from array import array
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from models.model import GateContext
from service.engine.snapshot import TAIL_PERCENTILES, Duration

WINDOW_SECONDS = 10


@dataclass(slots=True)
class Timer:
    """Counts events and sums their times."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.seconds += seconds

    def total(self) -> Duration:
        return Duration(self.count, round(max(self.seconds, 0.0) * 1e9))


@dataclass(slots=True)
class Tail:
    """The latencies of the last seconds, in a bucket for each second."""

    seconds: int = WINDOW_SECONDS
    _buckets: deque[tuple[int, "array[float]"]] = field(default_factory=deque)

    def add(self, now: float, latency: float) -> None:
        second = int(now)
        if not self._buckets or self._buckets[-1][0] < second:
            self._buckets.append((second, array("d")))
            self._drop(second)
        self._buckets[-1][1].append(latency)

    def percentiles(self, now: float) -> dict[str, float]:
        """Seconds at each of `TAIL_PERCENTILES`; empty when nothing was served in the window."""
        self._drop(int(now))
        if not self._buckets:
            return {}
        latencies = np.concatenate([np.frombuffer(bucket, dtype=np.float64) for _, bucket in self._buckets])
        values = np.percentile(latencies, [float(name) for name in TAIL_PERCENTILES])
        return dict(zip(TAIL_PERCENTILES, values.tolist(), strict=True))

    def _drop(self, second: int) -> None:
        while self._buckets and self._buckets[0][0] <= second - self.seconds:
            self._buckets.popleft()


@dataclass(slots=True)
class Gated:
    """Channels and multiply-accumulates, done and skipped. `layers` maps a layer to [channels, skipped]."""

    layers: dict[str, list[int]] = field(default_factory=dict)
    macs: int = 0
    macs_skipped: int = 0

    def add(self, context: GateContext) -> None:
        for layer, work in context.layers.items():
            counts = self.layers.get(layer)
            if counts is None:
                self.layers[layer] = [work.channels, work.skipped]
            else:
                counts[0] += work.channels
                counts[1] += work.skipped
        self.macs += context.macs
        self.macs_skipped += context.macs_skipped

    def copy(self) -> "Gated":
        return Gated({layer: counts.copy() for layer, counts in self.layers.items()}, self.macs, self.macs_skipped)

    def since(self, earlier: "Gated") -> "Gated":
        none = [0, 0]
        layers = {
            layer: [counts[0] - earlier.layers.get(layer, none)[0], counts[1] - earlier.layers.get(layer, none)[1]]
            for layer, counts in self.layers.items()
        }
        return Gated(layers, self.macs - earlier.macs, self.macs_skipped - earlier.macs_skipped)

    @property
    def skip_rate(self) -> float | None:
        """Skipped channels / channels; None when nothing ran."""
        return ratio(
            sum(counts[1] for counts in self.layers.values()), sum(counts[0] for counts in self.layers.values())
        )


@dataclass(slots=True)
class GatedWindow:
    """Sums since the start, with a copy each second, so that the recent part is a difference and adding is cheap."""

    total: Gated = field(default_factory=Gated)
    seconds: int = WINDOW_SECONDS
    _copies: deque[tuple[int, Gated]] = field(default_factory=deque)

    def add(self, now: float, context: GateContext) -> None:
        second = int(now)
        if not self._copies or self._copies[-1][0] < second:
            self._copies.append((second, self.total.copy()))
            self._drop(second)
        self.total.add(context)

    def recent(self, now: float) -> Gated:
        self._drop(int(now))
        return self.total.since(self._copies[0][1]) if self._copies else Gated()

    def _drop(self, second: int) -> None:
        while self._copies and self._copies[0][0] <= second - self.seconds:
            self._copies.popleft()


@dataclass(slots=True)
class RecentLevels:
    """The mean of the levels decided in the last second or so, which forgets a burst as soon as it is over."""

    seconds: float = 1.0
    _levels: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=4096))

    def add(self, now: float, level: float) -> None:
        self._levels.append((now, level))

    def mean(self, now: float) -> float | None:
        while self._levels and self._levels[0][0] < now - self.seconds:
            self._levels.popleft()
        return sum(level for _, level in self._levels) / len(self._levels) if self._levels else None


def ratio(part: int, whole: int) -> float | None:
    """0 to 1, None of nothing."""
    return part / whole if whole else None


def layer_rates(gated: Gated) -> Mapping[str, float | None]:
    """The skip rate of each layer."""
    return {layer: ratio(skipped, channels) for layer, (channels, skipped) in gated.layers.items()}

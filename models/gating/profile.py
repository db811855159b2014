"""The profile: a model's table of operating points, from dense to the most that may be skipped.

Pure arithmetic over a table; `models.gating.calibration` measures it.

>>> profile = Profile.load(path)                    # doctest: +SKIP
>>> profile.at(0.4).macs_ratio                      # doctest: +SKIP
0.37
>>> profile.highest_level(quality_floor=0.97)       # doctest: +SKIP
0.52
"""

import json
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import NormalDist
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """What to expect at a level. Ratios are 0 to 1; `accuracy` is None where the calibration data had no labels.

    `…_lower` is the one-sided lower confidence bound: the sample behind the point is finite, and a floor is held
    against the bound.
    """

    level: float
    thresholds: dict[str, float]
    skip_rate: float
    macs_ratio: float
    """Multiply-accumulates done / those of the dense model."""
    accuracy: float | None
    accuracy_lower: float | None
    agreement: float
    """With the dense model: the quality that a floor is compared with."""
    agreement_lower: float

    @property
    def quality(self) -> float:
        return self.agreement

    @property
    def quality_lower(self) -> float:
        return self.agreement_lower


@dataclass(frozen=True, slots=True)
class Profile:
    """`points` in order of level, from exactly 0 (the dense model: it agrees with itself) to 1.

    `samples` is the number of calibration items behind each point, `confidence` that of the lower bounds, and
    `weights_digest` the SHA-256 of the weights that were measured. Raises `ValueError` when the points are not such a
    table.
    """

    model: str
    samples: int
    confidence: float
    weights_digest: str
    points: tuple[OperatingPoint, ...]

    def __post_init__(self) -> None:
        levels = [point.level for point in self.points]
        if not levels or levels[0] != 0 or levels != sorted(set(levels)) or (len(levels) > 1 and levels[-1] != 1):
            raise ValueError(f"a profile's levels rise from 0 to 1; got {levels}")
        if self.points[0].agreement_lower != 1:
            raise ValueError("a profile's level 0 is the dense model, whose agreement with itself is 1")

    @classmethod
    def dense(cls, model: str, weights_digest: str) -> Self:
        """The profile of a model that nobody measured yet: dense and nothing else."""
        return cls(model, 0, 0.0, weights_digest, (OperatingPoint(0.0, {}, 0.0, 1.0, None, None, 1.0, 1.0),))

    def at(self, level: float) -> OperatingPoint:
        """The operating point at a level, linear between the table's rows. Raises `ValueError` outside 0 to 1."""
        if not 0 <= level <= 1:
            raise ValueError(f"level must be between 0 and 1, got {level}")
        after = bisect_right([point.level for point in self.points], level)
        low = self.points[after - 1]
        if low.level == level or after == len(self.points):
            return low
        high = self.points[after]
        return _between(low, high, (level - low.level) / (high.level - low.level))

    def highest_level(self, quality_floor: float) -> float:
        """The greatest level up to which the lower bound of quality stays at or above the floor; 0 where even the
        first step falls below."""
        for low, high in pairwise(self.points):
            if high.quality_lower < quality_floor:
                if low.quality_lower <= quality_floor:
                    return low.level
                share = (low.quality_lower - quality_floor) / (low.quality_lower - high.quality_lower)
                return low.level + share * (high.level - low.level)
        return self.points[-1].level

    def lowest_level(self, macs_ratio: float) -> float | None:
        """The least level that does no more than this share of the dense work; None where even level 1 does more."""
        if self.points[0].macs_ratio <= macs_ratio:
            return 0.0
        for low, high in pairwise(self.points):
            if high.macs_ratio <= macs_ratio:
                share = (low.macs_ratio - macs_ratio) / (low.macs_ratio - high.macs_ratio)
                return low.level + share * (high.level - low.level)
        return None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        return cls(**{**data, "points": tuple(OperatingPoint(**point) for point in data["points"])})

    def save(self, path: Path) -> None:
        """Writes JSON beside the file and renames it into place."""
        partial = path.with_name(path.name + ".partial")
        partial.write_text(json.dumps(self.as_dict(), indent=1) + "\n")
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        return cls.from_dict(json.loads(path.read_text()))


def lower_bound(successes: int, trials: int, confidence: float = 0.95) -> float:
    """The one-sided lower confidence bound of a proportion (Wilson 1927, score interval), 0 where there were no
    trials."""
    if trials == 0:
        return 0.0
    z = NormalDist().inv_cdf(confidence)
    share = successes / trials
    centre = share + z * z / (2 * trials)
    margin = z * ((share * (1 - share) + z * z / (4 * trials)) / trials) ** 0.5
    return float(max(0.0, (centre - margin) / (1 + z * z / trials)))


def _between(low: OperatingPoint, high: OperatingPoint, share: float) -> OperatingPoint:
    def mix(a: float, b: float) -> float:
        return a + share * (b - a)

    def mix_known(a: float | None, b: float | None) -> float | None:
        return None if a is None or b is None else mix(a, b)

    return OperatingPoint(
        level=mix(low.level, high.level),
        thresholds={layer: mix(low.thresholds[layer], high.thresholds[layer]) for layer in low.thresholds},
        skip_rate=mix(low.skip_rate, high.skip_rate),
        macs_ratio=mix(low.macs_ratio, high.macs_ratio),
        accuracy=mix_known(low.accuracy, high.accuracy),
        accuracy_lower=mix_known(low.accuracy_lower, high.accuracy_lower),
        agreement=mix(low.agreement, high.agreement),
        agreement_lower=mix(low.agreement_lower, high.agreement_lower),
    )

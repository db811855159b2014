"""Operating points of a model without labels: how far each request's outputs agree with the dense model's."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.gating.profile import OperatingPoint, Profile
from models.model import GateContext, Tensors

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Agreements:
    """Per request the agreement with dense, the share of the dense work that was done, and the skip rate."""

    agreement: NDArray[np.float64]
    macs_ratio: NDArray[np.float64]
    skip_rate: NDArray[np.float64]


def agreements(
    run: Callable[[Tensors, GateContext], Tensors],
    agree: Callable[[Tensors, Tensors], float],
    requests: Sequence[Tensors],
    dense: Sequence[Tensors],
    level: float,
) -> Agreements:
    """Runs every request at the level; `dense` are the dense model's outputs."""
    rows = []
    for inputs, wanted in zip(requests, dense, strict=True):
        context = GateContext(level)
        outputs = run(inputs, context)
        rows.append((agree(outputs, wanted), 1 - context.macs_skipped_ratio, context.skip_rate))
    agreement, macs_ratio, skip_rate = np.array(rows, np.float64).T
    return Agreements(agreement, macs_ratio, skip_rate)


def operating_point(level: float, thresholds: Mapping[str, float], measured: Agreements) -> OperatingPoint:
    """What to expect at a level."""
    dense = level == 0
    return OperatingPoint(
        level=level,
        thresholds=dict(thresholds),
        skip_rate=float(measured.skip_rate.mean()),
        macs_ratio=float(measured.macs_ratio.mean()),
        accuracy=None,
        accuracy_lower=None,
        agreement=1.0 if dense else float(measured.agreement.mean()),
        # The dense model agrees with itself: that is no sample's estimate.
        agreement_lower=1.0 if dense else mean_lower_bound(measured.agreement),
    )


def gain(profile: Profile, other: Profile) -> float:
    """How much more the one agrees with dense than the other, on average over all work that both can do."""
    least = max(one.points[-1].macs_ratio for one in (profile, other))
    ratios = np.linspace(least, 1, 33)
    agreement = [
        np.interp(
            ratios,
            [point.macs_ratio for point in reversed(one.points)],
            [point.agreement for point in reversed(one.points)],
        )
        for one in (profile, other)
    ]
    return float((agreement[0] - agreement[1]).mean())


def mean_lower_bound(values: NDArray[Any], confidence: float = CONFIDENCE) -> float:
    """The one-sided lower confidence bound of a mean, of values that are 0 to 1; normal."""
    if len(values) < 2:
        return 0.0
    margin = NormalDist().inv_cdf(confidence) * values.std(ddof=1) / np.sqrt(len(values))
    return float(max(0.0, values.mean() - margin))


def spearman(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Spearman's rank correlation; those that are equal share their mean rank."""
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[inverse]
    return ranks

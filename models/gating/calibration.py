"""Calibration: the thresholds and norm statistics that each operating point needs, found on training images in torch,
where a whole set passes through the network at once. What to expect of a point, `models.gating.measurement` finds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from models.gating.network import GatedNetwork, Statistics


@dataclass(frozen=True, slots=True)
class CalibratedPoint:
    """The thresholds and statistics, per layer, for one share of channels kept."""

    kept: float
    thresholds: tuple[float, ...]
    statistics: tuple[Statistics, ...]


def kept_shares(points: int, least: float) -> tuple[float, ...]:
    """Evenly spaced shares from 1 (dense) to the least."""
    return tuple(1 - (1 - least) * i / (points - 1) for i in range(points))


def calibrate(
    network: GatedNetwork, images: NDArray[np.uint8], kept: float, exponents: Sequence[float]
) -> CalibratedPoint:
    """Thresholds such that over `images` [n, 28, 28] layer l keeps the share kept^exponent_l of its channels on
    average, and the statistics that its norm sees then. At share 1 every channel of positive saliency is kept."""
    network.eval()
    shares = [kept**power for power in exponents]
    with torch.no_grad():
        _, traces = network(torch.tensor(images), kept, shares=shares)
    statistics = tuple(trace.statistics for trace in traces if trace.statistics is not None)
    return CalibratedPoint(kept, tuple(trace.threshold for trace in traces), statistics)

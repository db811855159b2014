"""Calibration: what thresholds each operating point needs, and what to expect of it.

Two steps on two sets of images. `calibrate` finds thresholds and norm statistics on training images, in torch, where
a whole set passes through the network at once. `measure` then runs the model as it is served, image by image, on
images held out from training.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.gating.network import GatedNetwork, Statistics
from models.gating.profile import OperatingPoint, Profile, lower_bound
from models.model import GateContext, Model

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class CalibratedPoint:
    """One dial's thresholds and statistics, per layer."""

    dial: float
    thresholds: tuple[float, ...]
    statistics: tuple[Statistics, ...]


@dataclass(frozen=True, slots=True)
class Measurement:
    """A model run on labelled images at one level. Per image: `predicted` label, `macs` done relative to dense, and
    `skip_rate`."""

    level: float
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float32]
    macs_ratio: NDArray[np.float64]
    skip_rate: NDArray[np.float64]


def dials(points: int, least: float) -> tuple[float, ...]:
    """Evenly spaced dials from 1 (dense) to the least."""
    return tuple(1 - (1 - least) * i / (points - 1) for i in range(points))


def calibrate(
    network: GatedNetwork, images: NDArray[np.uint8], dial: float, exponents: Sequence[float]
) -> CalibratedPoint:
    """Thresholds such that over `images` [n, 28, 28] layer l keeps the share dial^exponent_l of its channels on
    average, and the statistics that its norm sees then. At dial 1 every channel of positive saliency is kept."""
    network.eval()
    shares = [dial**power for power in exponents]
    with torch.no_grad():
        _, traces = network(torch.tensor(images), dial, shares=shares)
    statistics = tuple(trace.statistics for trace in traces if trace.statistics is not None)
    return CalibratedPoint(dial, tuple(trace.threshold for trace in traces), statistics)


def measure(model: Model, images: NDArray[np.uint8], level: float) -> Measurement:
    """Runs the served model on every image of [n, 28, 28] at a level."""
    predicted, confidence, macs, skipped = [], [], [], []
    for image in images:
        context = GateContext(level)
        outputs = model.run({"image": image[None]}, context)
        predicted.append(int(outputs["label"][0]))
        confidence.append(float(outputs["probabilities"][0].max()))
        macs.append(1 - context.macs_skipped_ratio)
        skipped.append(context.skip_rate)
    return Measurement(level, np.array(predicted), np.array(confidence, np.float32), np.array(macs), np.array(skipped))


def profile(
    model_name: str,
    weights_digest: str,
    measurements: Sequence[Measurement],
    labels: NDArray[np.int64],
    thresholds_at: Callable[[float], Mapping[str, float]],
) -> Profile:
    """The profile that the measurements of one set of images add up to; the first must be of level 0, the dense
    model."""
    dense = measurements[0].predicted
    points = [_point(m, m.predicted == labels, m.predicted == dense, thresholds_at(m.level)) for m in measurements]
    return Profile(model_name, len(labels), CONFIDENCE, weights_digest, tuple(points))


def _point(
    measured: Measurement, correct: NDArray[Any], agreeing: NDArray[Any], thresholds: Mapping[str, float]
) -> OperatingPoint:
    dense = measured.level == 0
    return OperatingPoint(
        level=measured.level,
        thresholds=dict(thresholds),
        skip_rate=float(measured.skip_rate.mean()),
        macs_ratio=float(measured.macs_ratio.mean()),
        accuracy=float(correct.mean()),
        accuracy_lower=lower_bound(int(correct.sum()), len(correct), CONFIDENCE),
        agreement=float(agreeing.mean()),
        # The dense model agrees with itself: that is no sample's estimate.
        agreement_lower=1.0 if dense else lower_bound(int(agreeing.sum()), len(agreeing), CONFIDENCE),
    )

"""What a served model does at a level on labelled images, and what follows from it. Runs the serving code; needs no
torch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.gating.profile import OperatingPoint, Profile, lower_bound
from models.model import GateContext, Model

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Measurement:
    """One level; per image the `predicted` label, its `confidence`, MACs done relative to dense, and skip rate."""

    level: float
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float64]
    macs_ratio: NDArray[np.float64]
    skip_rate: NDArray[np.float64]

    @property
    def fewer_macs(self) -> float:
        """How many times fewer multiply-accumulates than dense, over all images."""
        return float(1 / self.macs_ratio.mean())


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean of a − b over the same images and the half width of its 95 % confidence interval (paired, normal)."""

    mean: float
    margin: float


def measure(model: Model, images: NDArray[np.uint8], level: float) -> Measurement:
    """Runs the model on every image of [n, 28, 28], one a request."""
    rows = []
    for image in images:
        context = GateContext(level)
        outputs = model.run({"image": image[None]}, context)
        rows.append(
            (
                outputs["label"][0],
                outputs["probabilities"].max(),
                1 - context.macs_skipped_ratio,
                context.skip_rate,
            )
        )
    label, confidence, macs_ratio, skip_rate = np.array(rows, np.float64).T
    return Measurement(level, label.astype(np.int64), confidence, macs_ratio, skip_rate)


def median_seconds(
    runs: Sequence[tuple[Model, float]], images: NDArray[np.uint8], block: int = 20
) -> tuple[float, ...]:
    """The median time of one image for each (model, level), alternating in blocks so that a slow spell hits all
    alike."""
    times: list[list[float]] = [[] for _ in runs]
    for start in range(0, len(images), block):
        for (model, level), taken in zip(runs, times, strict=True):
            for image in images[start : start + block]:
                began = perf_counter()
                model.run({"image": image[None]}, GateContext(level))
                taken.append(perf_counter() - began)
    return tuple(float(np.median(taken)) for taken in times)


def profile(
    model_name: str,
    weights_digest: str,
    measurements: Sequence[Measurement],
    labels: NDArray[np.int64],
    thresholds_at: Callable[[float], Mapping[str, float]],
) -> Profile:
    """The profile that measurements of one set of images add up to; the first must be of level 0, the dense model."""
    dense = measurements[0].predicted
    points = [_point(m, m.predicted == labels, m.predicted == dense, thresholds_at(m.level)) for m in measurements]
    return Profile(model_name, len(labels), CONFIDENCE, weights_digest, tuple(points))


def work_by_difficulty(measured: Measurement, confidence: NDArray[np.float64]) -> tuple[float, ...]:
    """Mean MACs relative to dense of the images' four quarters, from the least confident to the most."""
    return tuple(float(measured.macs_ratio[quarter].mean()) for quarter in np.array_split(np.argsort(confidence), 4))


def paired_difference(a: NDArray[Any], b: NDArray[Any]) -> Difference:
    """How much better a does than b on the same images: per image right (1) or wrong (0)."""
    differences = a.astype(np.float64) - b.astype(np.float64)
    return Difference(float(differences.mean()), float(1.96 * differences.std(ddof=1) / np.sqrt(len(differences))))


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

import numpy as np
import pytest

from models.gating.measurement import (
    Measurement,
    measure,
    median_seconds,
    paired_difference,
    profile,
    work_by_difficulty,
)
from tests.models.zoo.random_fashion import random_fashion


def measurement(level: float, predicted: list[int], macs: list[float]) -> Measurement:
    n = len(predicted)
    return Measurement(level, np.array(predicted), np.ones(n), np.array(macs), np.full(n, level))


def test_a_profile_counts_what_agrees_and_what_is_right():
    labels = np.array([0, 1, 2, 3])
    dense = measurement(0.0, [0, 1, 2, 0], [1, 1, 1, 1])
    gated = measurement(1.0, [0, 1, 0, 3], [0.2, 0.4, 0.2, 0.4])
    made = profile("m", "digest", [dense, gated], labels, lambda level: {"layer": level})
    first, last = made.points
    assert (first.accuracy, first.agreement, first.agreement_lower) == (0.75, 1, 1)
    assert (last.accuracy, last.agreement) == (0.75, 0.5)
    assert 0 < last.agreement_lower < 0.5
    assert last.macs_ratio == pytest.approx(0.3)
    assert last.thresholds == {"layer": 1.0}
    assert made.samples == 4


def test_measuring_runs_every_image_alone():
    model = random_fashion()
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    measured = measure(model, images, 0.5)
    assert measured.predicted.shape == (3,)
    assert measured.fewer_macs == pytest.approx(1 / measured.macs_ratio.mean())
    assert len(set(measured.macs_ratio.tolist())) > 1


def test_times_are_told_in_the_order_of_the_runs():
    model = random_fashion()
    images = np.random.default_rng(0).integers(0, 256, (60, 28, 28), dtype=np.uint8)
    dense, gated = median_seconds([(model, 0.0), (model, 1.0)], images)
    assert 0 < gated < dense


def test_work_is_told_from_the_least_confident_quarter_to_the_most():
    measured = measurement(0.5, [0] * 8, [0.8, 0.1, 0.7, 0.2, 0.6, 0.3, 0.5, 0.4])
    confidence = np.array([0.1, 0.8, 0.2, 0.7, 0.3, 0.6, 0.4, 0.5])
    assert work_by_difficulty(measured, confidence) == pytest.approx((0.75, 0.55, 0.35, 0.15))


def test_a_paired_difference_is_tighter_than_two_separate_ones():
    a = np.array([1] * 90 + [0] * 10)
    b = np.array([1] * 85 + [0] * 15)
    difference = paired_difference(a, b)
    assert difference.mean == pytest.approx(0.05)
    assert difference.margin == pytest.approx(1.96 * np.sqrt(0.05 * 0.95 / 99), rel=1e-3)
    assert paired_difference(a, a).margin == 0

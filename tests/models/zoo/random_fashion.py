"""An image classifier with random weights: the real network class where accuracy does not matter."""

import numpy as np

from models.gating.profile import OperatingPoint, Profile
from models.zoo.fashion import FashionClassifier
from models.zoo.fashion_shape import SHAPE
from models.zoo.fashion_weights import Calibration, FashionWeights, GatedLayerWeights

POINTS = 5


def random_fashion(seed: int = 0) -> FashionClassifier:
    """Skips about as much as a trained one: saliencies between 0.2 and 1.8, thresholds from 0 to 1.2."""
    random = np.random.default_rng(seed)

    def normal(*shape: int, deviation: float = 1.0) -> np.ndarray:
        return random.normal(0, deviation, shape).astype(np.float32)

    layers = tuple(
        GatedLayerWeights(
            weight=normal(layer.outputs, layer.inputs, 3, 3, deviation=(2 / (9 * layer.inputs)) ** 0.5),
            predictor=normal(layer.outputs, layer.inputs + SHAPE.evidence, deviation=0.3 / layer.inputs**0.5),
            offset=random.uniform(0.2, 1.8, layer.outputs).astype(np.float32),
            scale=random.uniform(0.5, 1.5, layer.outputs).astype(np.float32),
            shift=normal(layer.outputs, deviation=0.2),
            scale_slope=normal(layer.outputs, deviation=0.1),
            shift_slope=normal(layer.outputs, deviation=0.1),
        )
        for layer in SHAPE.layers
    )
    weights = FashionWeights(
        layers,
        normal(SHAPE.evidence, SHAPE.grid**2, deviation=0.3),
        np.zeros(SHAPE.evidence, np.float32),
        normal(SHAPE.classes, SHAPE.layers[-1].outputs, deviation=0.2),
        np.zeros(SHAPE.classes, np.float32),
        digest="0" * 64,
    )
    thresholds = np.linspace(0, 1.2, POINTS, dtype=np.float32)
    calibration = Calibration(
        kept_shares=np.linspace(1, 0.4, POINTS, dtype=np.float32),
        thresholds=np.repeat(thresholds[:, None], len(SHAPE.layers), 1),
        means=tuple(np.zeros((POINTS, layer.outputs), np.float32) for layer in SHAPE.layers),
        variances=tuple(np.ones((POINTS, layer.outputs), np.float32) for layer in SHAPE.layers),
    )
    return FashionClassifier("fashion", weights, calibration, profile(thresholds))


def profile(thresholds: np.ndarray) -> Profile:
    """Plausible expectations: work falls and quality with it."""
    points = []
    for i, threshold in enumerate(thresholds):
        level = i / (POINTS - 1)
        points.append(
            OperatingPoint(
                level=level,
                thresholds={layer.name: float(threshold) for layer in SHAPE.layers},
                skip_rate=0.5 * level,
                macs_ratio=1 - 0.75 * level,
                accuracy=0.93 - 0.02 * level,
                accuracy_lower=0.92 - 0.02 * level,
                agreement=1 - 0.05 * level,
                agreement_lower=1 - 0.06 * level,
            )
        )
    return Profile("fashion", 1000, 0.95, "0" * 64, tuple(points))

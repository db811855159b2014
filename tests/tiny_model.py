"""A real gated classifier with random weights: small enough to build in a test, and its gates do skip."""

import numpy as np
from numpy.typing import NDArray

from models.gating.profile import OperatingPoint, Profile, lower_bound
from models.gating.shape import LayerShape, NetworkShape
from models.model import GateContext
from models.zoo.fashion import FashionClassifier
from models.zoo.fashion_weights import Calibration, FashionWeights, GatedLayerWeights

SHAPE = NetworkShape(
    layers=(
        LayerShape("conv1", 1, 16, 28, pool=True),
        LayerShape("conv2", 16, 32, 14, pool=True),
        LayerShape("conv3", 32, 64, 7),
    ),
    classes=10,
    evidence=4,
)
POINTS = 6


def random_images(count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth blobs of differing brightness, uint8 [count, 28, 28]."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((count, 7, 7)) * rng.random((count, 1, 1)) * 255
    return np.repeat(np.repeat(coarse, 4, 1), 4, 2).astype(np.uint8)


def tiny_model(name: str = "fashion") -> FashionClassifier:
    """A classifier whose profile was measured on its own random images, as calibration does."""
    weights = _weights(np.random.default_rng(1))
    # Saliencies scatter around 1, so that these thresholds go from skipping next to nothing to nearly everything.
    thresholds = np.linspace(0.0, 1.6, POINTS, dtype=np.float32)[:, None].repeat(len(SHAPE.layers), 1)
    calibration = Calibration(
        kept_shares=np.linspace(1, 0.3, POINTS, dtype=np.float32),
        thresholds=thresholds,
        means=tuple(np.zeros((POINTS, layer.outputs), np.float32) for layer in SHAPE.layers),
        variances=tuple(np.ones((POINTS, layer.outputs), np.float32) for layer in SHAPE.layers),
    )
    unmeasured = _profile(name, [_point(0.0, thresholds[0], 0, 1, 1, 1)])
    return FashionClassifier(name, weights, calibration, _measured(name, weights, calibration, unmeasured), shape=SHAPE)


def _weights(rng: np.random.Generator) -> FashionWeights:
    def normal(*shape: int, scale: float) -> NDArray[np.float32]:
        return (rng.standard_normal(shape) * scale).astype(np.float32)

    def layer(shape: LayerShape) -> GatedLayerWeights:
        outputs, features = shape.outputs, shape.inputs + SHAPE.evidence
        return GatedLayerWeights(
            weight=normal(outputs, shape.inputs, 3, 3, scale=(2 / (9 * shape.inputs)) ** 0.5),
            predictor=normal(outputs, features, scale=0.5 / features**0.5),
            offset=1 + normal(outputs, scale=0.3),
            scale=np.ones(outputs, np.float32),
            shift=normal(outputs, scale=0.1),
            scale_slope=np.zeros(outputs, np.float32),
            shift_slope=np.zeros(outputs, np.float32),
        )

    return FashionWeights(
        layers=tuple(layer(shape) for shape in SHAPE.layers),
        evidence_weight=normal(SHAPE.evidence, SHAPE.grid**2, scale=0.3),
        evidence_bias=np.zeros(SHAPE.evidence, np.float32),
        head_weight=normal(SHAPE.classes, SHAPE.layers[-1].outputs, scale=0.3),
        head_bias=np.zeros(SHAPE.classes, np.float32),
        digest="random",
    )


def _measured(name: str, weights: FashionWeights, calibration: Calibration, unmeasured: Profile) -> Profile:
    model = FashionClassifier(name, weights, calibration, unmeasured, shape=SHAPE)
    images = {"image": random_images(64, seed=2)}
    dense = model.run(images, GateContext(0.0))
    points = []
    for level, thresholds in zip(np.linspace(0, 1, POINTS).tolist(), calibration.thresholds, strict=True):
        context = GateContext(level)
        agreement = model.agreement(model.run(images, context), dense)
        lower = 1.0 if level == 0 else lower_bound(round(agreement * 64), 64)
        points.append(_point(level, thresholds, context.skip_rate, 1 - context.macs_skipped_ratio, agreement, lower))
    return _profile(name, points)


def _point(
    level: float, thresholds: NDArray[np.float32], skip_rate: float, macs_ratio: float, agreement: float, lower: float
) -> OperatingPoint:
    named = {layer.name: float(value) for layer, value in zip(SHAPE.layers, thresholds, strict=True)}
    return OperatingPoint(level, named, skip_rate, macs_ratio, None, None, agreement, lower)


def _profile(name: str, points: list[OperatingPoint]) -> Profile:
    return Profile(name, samples=64, confidence=0.95, weights_digest="random", points=tuple(points))

"""A network small enough to train in a test: 8×8 images, two gated layers."""

import numpy as np

from models.gating.shape import LayerShape, NetworkShape
from models.gating.training import Group, Recipe

SHAPE = NetworkShape(
    (LayerShape("conv1", 1, 8, 8, pool=True), LayerShape("conv2", 8, 12, 4)), classes=3, grid=4, evidence=6
)
PLAIN = Recipe(epochs=2, rate=0.05, batch=16)
GATED = Recipe(
    epochs=2,
    rate=0.05,
    groups=(Group(8, 1, 1), Group(8, 0.4, 0.6)),
    exponents=(1.0, 1.0),
    softness=0.15,
    spread=0.5,
    spread_weight=1.0,
    batch=16,
)


def toy_images(count: int = 96, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise with a bright band: at the top, in the middle or at the bottom is the class."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, count)
    images = random.integers(0, 120, (count, 8, 8))
    for image, label in zip(images, labels, strict=True):
        image[3 * label : 3 * label + 2] += 130
    return images.astype(np.uint8), labels

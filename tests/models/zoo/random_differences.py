"""Differences as tuning makes them, but random."""

import numpy as np

from models.zoo.lean_differences import LayerDifference, NormDifference, ProductDifference
from models.zoo.lean_layers import NORMS, PRODUCTS, LeanLayer, Neurons


def random_difference(layer: LeanLayer, seed: int = 0, kept: Neurons | None = None, rank: int = 2) -> LayerDifference:
    """To a layer, or one like it with other neurons."""
    random = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return random.standard_normal(shape).astype(np.float32)

    products = {}
    for name in PRODUCTS:
        outputs, inputs = layer.weights[name][0].shape
        products[name] = ProductDifference(0.1 * normal(outputs, rank), normal(rank, inputs), normal(outputs))
    hidden = len(layer.weights["norm"][0])
    norms = {name: NormDifference(normal(hidden), normal(hidden)) for name in NORMS}
    return LayerDifference(products, norms, layer.kept if kept is None else kept)

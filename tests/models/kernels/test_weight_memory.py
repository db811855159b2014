"""Packed weights lie one after another in shared pages, and each of them is given back alone."""

import numpy as np
import pytest

from models import kernels

pytestmark = pytest.mark.skipif(kernels.BACKEND != "native", reason="the reference leaves memory to torch")


def packed(value, outputs, inputs=32):
    return kernels.pack_matrix(np.full((outputs, inputs), value, np.float32))


def test_weights_begin_on_a_cache_line_and_padding_is_zero():
    for outputs in (1, 63, 64, 65):
        weights = packed(1.0, outputs, inputs=5).weights
        assert weights.__array_interface__["data"][0] % 64 == 0
        assert weights.sum() == 5 * outputs


def test_small_layers_share_a_page():
    layers = [packed(1.0, 64, inputs=16).weights for _ in range(4)]
    addresses = [layer.__array_interface__["data"][0] for layer in layers]
    gaps = np.diff(addresses)
    assert (np.abs(gaps) < 1 << 21).sum() >= len(gaps) - 1  # all but where a new stretch of memory begins


def test_weights_that_are_alive_stay_when_their_neighbours_go():
    random = np.random.default_rng(0)
    alive = {}
    for step in range(200):
        alive[step] = packed(float(step), 64 * int(random.integers(1, 20)))
        for gone in random.choice(list(alive), len(alive) // 4, replace=False):
            del alive[gone]
    for step, layer in alive.items():
        assert np.all(layer.weights == step)


def test_weights_outlive_their_layer():
    weights = packed(3.0, 640).weights
    packed(4.0, 640)
    assert np.all(weights == 3)


@pytest.mark.parametrize("datatype", ["bf16", "int8"])
def test_reduced_weights_share_pages_too(datatype):
    layers = [kernels.pack_matrix(np.full((16, 32), i, np.float32), datatype) for i in range(1, 9)]
    layers = layers[::2]
    for i, layer in zip(range(1, 9, 2), layers, strict=True):
        y = kernels.gated_matmul(np.ones((1, 32), np.float32), layer)
        np.testing.assert_allclose(y, 32.0 * i, rtol=0.01)

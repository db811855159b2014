"""Concurrent calls: each result is bit for bit the one that the call gives alone."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from models import kernels


def test_concurrent_calls_do_not_touch_each_other():
    random = np.random.default_rng(3)
    weight = random.standard_normal((96, 48, 3, 3), dtype=np.float32)
    packed = kernels.pack_convolution(weight, padding=1)

    def call(seed):
        own = np.random.default_rng(seed)
        size, share = int(own.integers(3, 15)), own.random()
        inputs = np.flatnonzero(own.random(48) < share).astype(np.int32)
        outputs = np.flatnonzero(own.random(96) < share).astype(np.int32)
        x = own.standard_normal((size, size, len(inputs)), dtype=np.float32)
        return kernels.gated_conv2d(x, packed, inputs=inputs, outputs=outputs, activation="relu")

    alone = [call(seed) for seed in range(200)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(call, range(200)))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)

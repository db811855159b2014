"""The memory that results are in: kept for the next ones, and never shared between two that are alive."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from models import kernels

pytestmark = pytest.mark.skipif(kernels.BACKEND != "native", reason="the reference leaves memory to torch")


def address(array):
    return array.__array_interface__["data"][0]


def means(rows, columns, value=0.0):
    return kernels.layer_norm(
        np.zeros((rows, columns), np.float32),
        np.ones(columns, np.float32),
        np.full(columns, value, np.float32),
        1e-6,
    )


def test_a_warm_call_takes_the_memory_of_a_result_that_is_gone():
    places = set()
    for _ in range(20):
        places.add(address(means(128, 1536)))
    assert len(places) == 1


def test_results_begin_on_a_cache_line():
    assert all(address(means(rows, columns)) % 64 == 0 for rows, columns in ((1, 1), (3, 5), (128, 384)))


def test_results_that_are_alive_lie_apart():
    random = np.random.default_rng(0)
    alive = {}
    for step in range(300):
        rows, columns = random.integers(1, 40, 2)
        alive[step] = means(int(rows), int(columns), float(step))
        for gone in random.choice(list(alive), len(alive) // 4, replace=False):
            del alive[gone]
    assert all(np.all(array == step) for step, array in alive.items())


def test_results_may_end_on_another_thread():
    with ThreadPoolExecutor(2) as pool:
        for step in range(200):
            array = pool.submit(means, 20, 30, float(step)).result()
            assert np.all(array == step)
            del array

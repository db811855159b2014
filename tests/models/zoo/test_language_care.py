"""What tells how much a position matters, fitted to sizes whose care is known."""

import numpy as np

from models.zoo.language_care import fitted_care


def drawn(count, seed):
    random = np.random.default_rng(seed)
    inputs = (random.standard_normal((count, 6)) * [1, 2, 0.5, 1, 1, 3] + 0.7).astype(np.float32)
    logarithms = inputs @ np.array([0.5, -0.2, 0.8, 0, 0, 0.1]) - 1.0
    return inputs, logarithms, np.exp(logarithms) * random.chisquare(1, count)


def test_care_is_found_in_noise():
    weights, constant = fitted_care(*drawn(20_000, 0)[::2])
    inputs, logarithms, _ = drawn(2_000, 1)
    told = inputs @ weights + constant
    assert np.corrcoef(told, logarithms)[0, 1] > 0.98
    assert abs((told - logarithms).mean()) < 0.1


def test_what_is_foretold_is_right_on_average():
    inputs, _, sizes = drawn(5_000, 2)
    weights, constant = fitted_care(inputs, sizes)
    np.testing.assert_allclose((sizes / np.exp(inputs @ weights + constant)).mean(), 1, rtol=1e-6)


def test_nothing_is_told_where_all_positions_are_alike():
    inputs, _, _ = drawn(20_000, 3)
    weights, constant = fitted_care(inputs, np.random.default_rng(4).chisquare(1, 20_000))
    assert np.abs(inputs @ weights + constant).std() < 0.05

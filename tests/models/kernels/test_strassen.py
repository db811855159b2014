"""Products in fp32 of many rows by seven products of halves in place of eight."""

import numpy as np
import pytest

from models import kernels
from tests.models.kernels.cases import ACTIVATIONS, VECTOR_SETS, Case

ROWS = 40  # from which on it is done so


def normal(*shape, seed=0):
    return np.random.default_rng((seed, *shape)).standard_normal(shape, dtype=np.float32)


def case(rows=ROWS, n_inputs=128, n_outputs=64, **changes):
    plain = {
        "x": normal(rows, n_inputs),
        "weight": normal(n_outputs, n_inputs, seed=1),
        "stride": 1,
        "padding": 0,
        "inputs": None,
        "outputs": None,
        "scale": normal(n_outputs, seed=2),
        "shift": normal(n_outputs, seed=3),
        "saliency": normal(n_outputs, seed=4),
        "residual": None,
        "activation": "none",
    }
    return Case(**plain | changes)


def product(x, weight, name=None, **more):
    return kernels.gated_matmul(x, kernels.pack_matrix(weight, "fp32", name), **more)


def usual(x, weight, name=None):
    """What a few rows at a time give, which are multiplied in the usual way."""
    packed = kernels.pack_matrix(weight, "fp32", name)
    return np.concatenate([kernels.gated_matmul(x[at : at + 8], packed) for at in range(0, len(x), 8)])


def error(y, x, weight):
    exact = x.astype(np.float64) @ weight.T.astype(np.float64)
    return np.sqrt(np.mean((y - exact) ** 2, axis=1))


@pytest.mark.parametrize("name", VECTOR_SETS)
@pytest.mark.parametrize("rows", [40, 47, 48, 49, 61, 96, 145, 290])
@pytest.mark.parametrize(("n_inputs", "n_outputs"), [(128, 64), (130, 127), (386, 128), (384, 200), (1000, 65)])
def test_every_size_is_the_reference(name, rows, n_inputs, n_outputs):
    case(rows, n_inputs, n_outputs).check(name)


@pytest.mark.parametrize("name", VECTOR_SETS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("rows", [40, 47, 48, 51])
def test_every_epilogue_is_the_reference(name, activation, rows):
    case(rows, 900, 130, activation=activation).check(name)
    case(rows, 256, 130, activation=activation, residual=normal(rows, 130, seed=5)).check(name)


@pytest.mark.parametrize("name", VECTOR_SETS)
def test_it_is_taken_for_many_rows_and_all_channels_alone(name):
    x, weight = normal(ROWS, 256), normal(128, 256, seed=1)
    assert not np.array_equal(product(x, weight, name), usual(x, weight, name))
    np.testing.assert_array_equal(product(x[1:], weight, name), usual(x[1:], weight, name))
    some = np.delete(np.arange(128, dtype=np.int32), 9)
    np.testing.assert_array_equal(product(x, weight, name, outputs=some), usual(x, weight, name)[:, some])


def test_it_loses_less_than_two_bits():
    x, weight = normal(128, 768), normal(384, 768, seed=1)
    assert np.median(error(product(x, weight), x, weight) / error(usual(x, weight), x, weight)) < 3


@pytest.mark.parametrize("rows", [40, 47, 48, 61, 150, 300])
@pytest.mark.parametrize("n_outputs", [64, 200, 256])  # an odd number of blocks, whose rows are shared, and even ones
def test_threads_change_no_bit(rows, n_outputs):
    x, weight = normal(rows, 640), normal(n_outputs, 640, seed=1)
    np.testing.assert_array_equal(product(x, weight, threads=kernels.Threads(2)), product(x, weight))


def test_rows_that_lie_apart_and_the_residuals_place_change_no_bit():
    wide, weight, residual = normal(61, 500), normal(130, 300, seed=1), normal(61, 130, seed=2)
    x = wide[:, 100:400]
    y = product(np.ascontiguousarray(x), weight, residual=residual)
    np.testing.assert_array_equal(product(x, weight, residual=residual), y)
    np.testing.assert_array_equal(product(x, weight, residual=residual, out=residual), y)


@pytest.mark.parametrize("rows", [64, 400])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_stays_in_its_row(rows, value):
    x, weight = normal(rows, 256), normal(128, 256, seed=1)
    x[3, 200] = value
    y = product(x, weight)
    assert not np.isfinite(y[3]).any()
    np.testing.assert_array_equal(np.delete(y, 3, axis=0), np.delete(usual(x, weight), 3, axis=0))


@pytest.mark.parametrize("rows", [64, 400])
def test_small_rows_keep_their_digits_beside_large_ones(rows):
    scales = np.float32(2) ** np.random.default_rng(0).integers(-30, 30, (rows, 1)).astype(np.float32)
    x, weight = normal(rows, 256) * scales, normal(128, 256, seed=1)
    np.testing.assert_array_equal(product(x, weight), usual(x, weight))


def test_small_columns_keep_their_digits_beside_large_ones():
    x, weight = normal(64, 256), normal(128, 256, seed=1)
    weight[7] *= 2.0**-20
    np.testing.assert_array_equal(product(x, weight), usual(x, weight))


def test_rows_of_a_few_sizes_are_off_by_the_larger_ones_rounding():
    x, weight = normal(64, 256), normal(128, 256, seed=1)
    x[::2] *= 16
    largest = error(usual(x, weight), x, weight).max()
    assert not np.array_equal(product(x, weight), usual(x, weight))
    assert error(product(x, weight), x, weight).max() < 4 * largest


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_weights_that_are_not_finite_are_multiplied_as_usual(value):
    x, weight = normal(64, 256), normal(128, 256, seed=1)
    weight[5, 9] = value
    np.testing.assert_array_equal(product(x, weight), usual(x, weight))


@pytest.mark.parametrize("name", VECTOR_SETS)
@pytest.mark.parametrize("larger", [2.0**4, 2.0**8, 2.0**16])
@pytest.mark.parametrize("which", [slice(128), slice(7, 8), slice(0, 256, 2)])
def test_inputs_that_are_as_much_larger_as_their_weights_are_smaller_lose_little(name, larger, which):
    scales = np.ones(256, np.float32)
    scales[which] = larger
    x, weight = normal(ROWS, 256) * scales, normal(64, 256, seed=1) / scales
    lost = error(product(x, weight, name), x, weight) / error(usual(x, weight, name), x, weight)
    assert np.median(lost) < 10


@pytest.mark.parametrize("name", VECTOR_SETS)
@pytest.mark.parametrize("value", [1e37, 5e37, 1e38, 2e38])
def test_values_near_the_largest_do_not_overflow(name, value):
    x = np.where(normal(ROWS, 256) > 0, value, -value).astype(np.float32)
    weight = normal(64, 256, seed=1)
    assert np.isfinite(product(x, 1e-6 * weight, name)).all()
    large = np.where(weight > 0, value, -value).astype(np.float32)
    assert np.isfinite(product(1e-6 * normal(ROWS, 256), large, name)).all()


@pytest.mark.parametrize("name", VECTOR_SETS)
@pytest.mark.parametrize("rows", [64, 400])
def test_a_row_that_is_uneven_in_its_last_inputs_leaves_the_residual_as_it_was(name, rows):
    x, weight, residual = normal(rows, 900), normal(64, 900, seed=1), normal(rows, 64, seed=5)
    x[3, 899] = np.inf
    wanted = usual(x, weight, name) + residual
    product(x, weight, name, residual=residual, out=residual)
    np.testing.assert_allclose(np.delete(residual, 3, 0), np.delete(wanted, 3, 0), rtol=1e-5, atol=1e-4)
    assert not np.isfinite(residual[3]).any()

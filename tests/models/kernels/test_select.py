"""Measured saliency against the float64 reference, on every instruction set of this machine."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import kernels
from models.kernels import reference
from tests.models.kernels.cases import VECTOR_SETS

every_instruction_set = pytest.mark.parametrize("instruction_set", VECTOR_SETS)
both_backends = pytest.mark.parametrize("backend", [kernels, reference])


@every_instruction_set
@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 20),
    channels=st.integers(0, 200),
    threshold=st.floats(-0.5, 3),
    with_mean=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_selection_is_the_reference(instruction_set, rows, channels, threshold, with_mean, seed):
    random = np.random.default_rng(seed)
    x = random.standard_normal((rows, channels), dtype=np.float32)
    mean = random.standard_normal(channels, dtype=np.float32) if with_mean else None
    norms = random.random(channels, dtype=np.float32) * 3
    active, taken = kernels.select_channels(x, mean, norms, threshold, instruction_set=instruction_set)
    deviation = x.astype(np.float64) - (0 if mean is None else mean)
    saliencies = np.sqrt((deviation**2).mean(0)) * norms
    exact, _ = reference.select_channels(
        x.astype(np.float64), None if mean is None else mean.astype(np.float64), norms.astype(np.float64), threshold
    )
    assert active.dtype == np.int32
    assert taken.dtype == np.float32
    assert np.all(np.diff(active) > 0)
    assert set(active) ^ set(exact) <= set(np.flatnonzero(np.abs(saliencies - threshold) < 1e-5))
    np.testing.assert_allclose(taken, deviation[:, active], rtol=1e-5, atol=1e-6)


@every_instruction_set
def test_skipped_inputs_contribute_their_mean(instruction_set):
    random = np.random.default_rng(0)
    weight, bias = random.standard_normal((40, 96), dtype=np.float32), random.standard_normal(40, dtype=np.float32)
    mean = random.standard_normal(96, dtype=np.float32)
    x = np.tile(mean, (5, 1))
    x[:, 10:30] += random.standard_normal((5, 20), dtype=np.float32)
    norms = np.linalg.norm(weight, axis=0)
    active, taken = kernels.select_channels(x, mean, norms, 0.0, instruction_set=instruction_set)
    assert active.tolist() == list(range(10, 30))
    packed = kernels.pack_matrix(weight, instruction_set=instruction_set)
    y = kernels.gated_matmul(taken, packed, inputs=active, shift=bias + weight @ mean)
    np.testing.assert_allclose(y, x @ weight.T + bias, rtol=1e-4, atol=1e-3)


@both_backends
def test_a_channel_that_is_exactly_its_mean_is_skipped_at_zero_and_kept_below(backend):
    x = np.array([[1, 2, 0]], np.float32)
    mean, norms = np.array([1, 1, 0], np.float32), np.ones(3, np.float32)
    assert backend.select_channels(x, mean, norms, 0.0)[0].tolist() == [1]
    active, taken = backend.select_channels(x, mean, norms, -1.0)
    assert (active.tolist(), taken.tolist()) == ([0, 1, 2], [[0, 1, 0]])
    active, taken = backend.select_channels(x, mean, norms, 9.0)
    assert (active.shape, taken.shape) == ((0,), (1, 0))


@both_backends
def test_what_is_no_number_is_not_hidden(backend):
    x = np.zeros((2, 20), np.float32)
    x[1, 7] = np.nan
    active, taken = backend.select_channels(x, None, np.ones(20, np.float32), 100.0)
    assert active.tolist() == [7]
    assert np.isnan(taken[1, 0])


X, VECTOR = np.zeros((3, 8), np.float32), np.zeros(8, np.float32)


@both_backends
@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"x": X[0]}, ValueError, "x must have 2 dimensions, not 1"),
        ({"x": X[:0]}, ValueError, "x must have at least one row"),
        ({"x": X.astype(np.int32)}, TypeError, "x must be float32, not int32"),
        ({"mean": VECTOR[:7].copy()}, ValueError, "mean must have one value for each of the 8 channels, not 7"),
        ({"norms": VECTOR[:7].copy()}, ValueError, "norms must have one value for each of the 8 channels, not 7"),
        ({"norms": None}, TypeError, "norms must be a float32 array, not NoneType"),
        ({"threshold": np.nan}, ValueError, "threshold must be a number"),
        ({"instruction_set": "mmx"}, ValueError, "instruction_set must be one that this processor has"),
    ],
)
def test_wrong_arguments_are_named(backend, wrong, error, message):
    with pytest.raises(error, match=message):
        backend.select_channels(**{"x": X, "mean": None, "norms": VECTOR, "threshold": 0.0} | wrong)

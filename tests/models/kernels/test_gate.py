"""The gate and the reductions around it, against the reference and against cases worked out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import kernels
from models.kernels import reference
from tests.models.kernels.cases import VECTOR_SETS

every_instruction_set = pytest.mark.parametrize("instruction_set", VECTOR_SETS)
both_backends = pytest.mark.parametrize("backend", [kernels, reference])


@both_backends
def test_the_active_channels_are_those_above_the_threshold(backend):
    raw = np.array([0.5, -1, 3, 0.5001, 0], np.float32)
    active, multipliers = backend.gate_channels(np.ones(1, np.float32), raw[None].copy(), np.zeros(5, np.float32), 0.5)
    assert active.dtype == np.int32
    assert active.tolist() == [2, 3]
    np.testing.assert_allclose(multipliers, np.array([3, 0.5001]) / (4.0001 / 5), rtol=1e-6)


@both_backends
def test_at_a_negative_threshold_only_what_is_exactly_zero_is_skipped(backend):
    bias = np.array([-2, 1e-20, 0, 4], np.float32)
    active, _ = backend.gate_channels(np.zeros(3, np.float32), np.zeros((3, 4), np.float32), bias, -np.inf)
    assert active.tolist() == [1, 3]


@both_backends
@pytest.mark.parametrize(
    ("bias", "strongest", "multiplier"), [([1, 3, 2], 1, 1.5), ([-3, -1, -2], 1, 1), ([0, 0, -1], 0, 1)]
)
def test_one_channel_is_always_left(backend, bias, strongest, multiplier):
    active, multipliers = backend.gate_channels(
        np.zeros(2, np.float32), np.zeros((2, 3), np.float32), np.array(bias, np.float32), 10
    )
    assert active.tolist() == [strongest]
    assert multipliers.tolist() == [multiplier]


@every_instruction_set
@settings(max_examples=30, deadline=None)
@given(
    features=st.integers(0, 200),
    channels=st.integers(1, 150),
    threshold=st.floats(-1, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_gate_is_the_reference(instruction_set, features, channels, threshold, seed):
    random = np.random.default_rng(seed)
    vector = random.random(features, dtype=np.float32)
    vector[random.random(features) < 0.4] = 0
    projection = random.standard_normal((features, channels), dtype=np.float32) / 8
    bias = random.standard_normal(channels, dtype=np.float32)
    active, multipliers = kernels.gate_channels(vector, projection, bias, threshold, instruction_set=instruction_set)
    raw = vector @ projection.astype(np.float64) + bias
    exact, exact_multipliers = reference.gate_channels(
        vector.astype(np.float64), projection.astype(np.float64), bias.astype(np.float64), threshold
    )
    close = np.abs(raw - threshold) < 1e-4  # rounding may decide either way
    assert set(active) ^ set(exact) <= set(np.flatnonzero(close | (np.abs(raw) < 1e-4)))
    both = np.intersect1d(active, exact)
    np.testing.assert_allclose(
        multipliers[np.isin(active, both)], exact_multipliers[np.isin(exact, both)], rtol=1e-3, atol=1e-3
    )


images = st.tuples(st.integers(2, 9), st.integers(2, 9), st.integers(0, 40), st.integers(0, 2**32 - 1)).map(
    lambda drawn: np.random.default_rng(drawn[3]).standard_normal(drawn[:3], dtype=np.float32)
)


@every_instruction_set
@settings(max_examples=30, deadline=None)
@given(x=images)
def test_max_pool_is_the_reference(instruction_set, x):
    y = kernels.max_pool2x2(x, instruction_set=instruction_set)
    np.testing.assert_array_equal(y, reference.max_pool2x2(x))


@every_instruction_set
@settings(max_examples=30, deadline=None)
@given(x=images)
def test_channel_means_are_the_reference(instruction_set, x):
    y = kernels.channel_means(x, instruction_set=instruction_set)
    np.testing.assert_allclose(y, x.astype(np.float64).mean(axis=(0, 1)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(reference.channel_means(x), y, rtol=1e-5, atol=1e-6)


@every_instruction_set
@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    channels=st.integers(1, 150),
    share=st.none() | st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_squeeze_is_the_reference(instruction_set, size, channels, share, seed):
    random = np.random.default_rng(seed)
    inputs = None
    if share is not None:
        least = 1 if channels == 1 else 0
        kept = random.choice(channels, max(least, round(share * channels)), replace=False)
        inputs = np.sort(kept).astype(np.int32)
    x = random.random((*size, channels if inputs is None else len(inputs)), dtype=np.float32)
    evidence = random.random(7, dtype=np.float32)
    features = kernels.squeeze_channels(x, channels, evidence, inputs=inputs, instruction_set=instruction_set)
    np.testing.assert_allclose(
        features, reference.squeeze_channels(x, channels, evidence, inputs=inputs), rtol=1e-5, atol=1e-6
    )


@both_backends
def test_squeezed_channels_are_relative_to_their_own_mean(backend):
    x = np.zeros((2, 1, 2), np.float32)
    x[:, 0] = [[1, 2], [3, 6]]  # means 2 and 4, and two inactive channels
    features = backend.squeeze_channels(x, 4, np.array([9], np.float32), inputs=np.array([1, 3], np.int32))
    np.testing.assert_allclose(features, [0, 2 / 1.5, 0, 4 / 1.5, 9], rtol=1e-6)


@both_backends
def test_an_image_is_squeezed_to_its_magnitude(backend):
    x = np.array([-3, 1], np.float32).reshape(2, 1, 1)
    assert backend.squeeze_channels(x, 1, np.array([5], np.float32)).tolist() == [2, 5]


def test_reductions_write_into_out():
    x = np.random.default_rng(0).standard_normal((4, 6, 5), dtype=np.float32)
    pooled, means = np.empty((2, 3, 5), np.float32), np.empty(5, np.float32)
    assert kernels.max_pool2x2(x, out=pooled) is pooled
    assert kernels.channel_means(x, out=means) is means
    np.testing.assert_array_equal(pooled, kernels.max_pool2x2(x))
    np.testing.assert_array_equal(means, kernels.channel_means(x))


@every_instruction_set
@pytest.mark.parametrize("corner", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("channels", [1, 40])
def test_max_pool_keeps_a_nan_wherever_it_is(instruction_set, corner, channels):
    x = np.zeros((2, 2, channels), np.float32)
    x[corner] = np.nan
    assert np.isnan(kernels.max_pool2x2(x, instruction_set=instruction_set)).all()


@both_backends
def test_a_mean_too_small_for_a_float_divides_nothing(backend):
    bias = np.zeros(352, np.float32)
    bias[7] = 1e-45
    active, multipliers = backend.gate_channels(np.zeros(1, np.float32), np.zeros((1, 352), np.float32), bias, 0.0)
    assert (active.tolist(), multipliers.tolist()) == ([7], [1])

"""Joining positions, against the reference and against a case worked out by hand."""

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
def test_an_even_row_joins_the_odd_one_that_it_is_most_alike(backend):
    x = np.array([[0, 1], [2, 0], [1, 0], [0, 3], [1, 1]], np.float32)
    sizes = np.array([1, 1, 3, 1, 1], np.float32)
    rows, counts = backend.merge_positions(x, sizes, 0.1)
    np.testing.assert_allclose(rows, [[0, 1], [1.25, 0], [0, 3], [1, 1]])
    assert counts.tolist() == [1, 4, 1, 1]


@both_backends
def test_several_join_the_same_row_and_the_first_joins_none(backend):
    x = np.array([[3.0], [5], [1], [-1], [2]], np.float32)
    rows, counts = backend.merge_positions(x, np.array([1, 1, 1, 1, 2], np.float32), 0.0)
    np.testing.assert_allclose(rows, [[3], [2.5], [-1]])
    assert counts.tolist() == [1, 4, 1]


@both_backends
@pytest.mark.parametrize("rows", [0, 1, 2])
def test_too_few_to_join(backend, rows):
    x, sizes = np.ones((rows, 5), np.float32), np.ones(rows, np.float32)
    merged, counts = backend.merge_positions(x, sizes, 2.0)
    assert np.array_equal(merged, x)
    assert np.array_equal(counts, sizes)


@every_instruction_set
@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 60),
    channels=st.integers(3, 90),  # of fewer, many rows are as alike as others but for rounding
    threshold=st.floats(-0.1, 1.5),
    seed=st.integers(0, 2**32 - 1),
)
def test_it_is_the_reference(instruction_set, rows, channels, threshold, seed):
    random = np.random.default_rng(seed)
    x = random.standard_normal((rows, channels), dtype=np.float32) + 0.7
    sizes = random.integers(1, 5, rows).astype(np.float32)
    exact, exact_sizes = reference.merge_positions(x.astype(np.float64), sizes.astype(np.float64), threshold)
    merged, counts = kernels.merge_positions(x, sizes, threshold, instruction_set=instruction_set)
    if len(counts) != len(exact_sizes):  # a saliency that lies on the threshold but for rounding
        near = [len(reference.merge_positions(x, sizes, threshold + d)[1]) for d in (-1e-5, 1e-5)]
        assert min(near) <= len(counts) <= max(near)
        return
    np.testing.assert_array_equal(counts, exact_sizes)
    np.testing.assert_allclose(merged, exact, atol=1e-5)
    assert counts.sum() == sizes.sum()


@both_backends
def test_arguments_are_checked(backend):
    x = np.ones((4, 3), np.float32)
    with pytest.raises(ValueError, match="sizes"):
        backend.merge_positions(x, np.ones(3, np.float32), 0.5)
    with pytest.raises(ValueError, match="threshold"):
        backend.merge_positions(x, np.ones(4, np.float32), float("nan"))
    with pytest.raises(ValueError, match="x must have 2 dimensions"):
        backend.merge_positions(x[0], np.ones(4, np.float32), 0.5)

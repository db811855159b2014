"""Joining positions, against the reference and against cases worked out by hand."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from models import kernels
from models.kernels import reference
from tests.models.kernels.cases import VECTOR_SETS

every_instruction_set = pytest.mark.parametrize("instruction_set", VECTOR_SETS)
both_backends = pytest.mark.parametrize("backend", [kernels, reference])


def directions(*degrees):
    """Rows of two channels."""
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], 1).astype(np.float32)


def saliency(degrees):
    """Of two rows so far apart, and a little more."""
    return float(1 - np.cos(np.radians(degrees)) + 1e-5)


@both_backends
def test_rows_that_are_nearly_alike_become_their_mean(backend):
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
def test_the_pair_that_is_most_alike_comes_first(backend):
    x = directions(90, 0, 10, 14)
    # The first row is none of them. 10° and 14° are a pair, so 0° joins the one that was joined; 14° itself joined.
    assert backend.match_positions(x, saliency(10)).tolist() == [0, 2, 2, 2]
    assert backend.match_positions(x, saliency(4)).tolist() == [0, 1, 2, 2]
    assert backend.match_positions(x, saliency(3)).tolist() == [0, 1, 2, 3]


@both_backends
def test_a_row_that_was_joined_joins_none(backend):
    x = directions(90, 0, 3, 10, 12)
    # 10° and 12° are a pair, and then 0° and 3°; 3° and 10° are near enough, but each has gone its way.
    assert backend.match_positions(x, saliency(7)).tolist() == [0, 1, 1, 3, 3]


@both_backends
@pytest.mark.parametrize("rows", [0, 1, 2])
def test_too_few_to_join(backend, rows):
    x, sizes = np.ones((rows, 5), np.float32), np.ones(rows, np.float32)
    merged, counts = backend.merge_positions(x, sizes, 2.0)
    assert np.array_equal(merged, x)
    assert np.array_equal(counts, sizes)
    assert backend.match_positions(x, 2.0).tolist() == list(range(rows))


@both_backends
def test_rows_of_nothing_and_of_little(backend):
    x = np.array([[1, 0], [1e-15, 0], [0, 1e-15], [0, 0], [0, 0]], np.float32)
    assert backend.match_positions(x, 0.1).tolist() == [0, 1, 2, 3, 4]
    assert backend.match_positions(x, 1.5).tolist() == [0, 1, 1, 1, 1]


@both_backends
def test_what_is_no_number_joins_none(backend):
    x = directions(90, 5, 5, 5)
    x[2] = np.nan
    assert backend.match_positions(x, 2.0).tolist() == [0, 1, 2, 1]


@every_instruction_set
@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 30),
    channels=st.integers(3, 90),  # of fewer, many rows are as alike as others but for rounding
    threshold=st.floats(-0.1, 1.5),
    seed=st.integers(0, 2**32 - 1),
)
def test_it_is_the_reference(instruction_set, rows, channels, threshold, seed):
    random = np.random.default_rng(seed)
    x = random.standard_normal((rows, channels), dtype=np.float32) + 0.7
    sizes = random.integers(1, 5, rows).astype(np.float32)
    unit = x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    saliencies = np.sort([threshold, *(1 - unit @ unit.T)[np.triu_indices(rows, 1)]])
    assume(np.diff(saliencies).min(initial=1) > 1e-6)  # nothing is equal but for rounding
    exact, exact_sizes = reference.merge_positions(x.astype(np.float64), sizes.astype(np.float64), threshold)
    merged, counts = kernels.merge_positions(x, sizes, threshold, instruction_set=instruction_set)
    np.testing.assert_array_equal(counts, exact_sizes)
    np.testing.assert_allclose(merged, exact, atol=1e-5)
    assert counts.sum() == sizes.sum()
    targets = kernels.match_positions(x, threshold, instruction_set=instruction_set)
    assert targets.dtype == np.int32
    np.testing.assert_array_equal(targets, reference.match_positions(x.astype(np.float64), threshold))


@every_instruction_set
def test_of_many_rows_as_well(instruction_set):
    random = np.random.default_rng(0)
    # Of 40 directions, which are far apart, four rows each, whose distances differ by more than rounding.
    centres = np.linalg.qr(random.standard_normal((64, 40)))[0].T.repeat(4, 0)
    x = centres + 0.02 * random.uniform(0.5, 1.5, (160, 1)) * random.standard_normal((160, 64))
    x = np.concatenate([centres[:1], x[random.permutation(160)]]).astype(np.float32)
    targets = kernels.match_positions(x, 0.5, instruction_set=instruction_set)
    assert targets[0] == 0
    near = x @ x[targets].T
    assert (near.diagonal() > 0.5).all()
    assert len(np.unique(targets)) <= 1 + 2 * 40
    np.testing.assert_array_equal(targets[targets], targets)


@both_backends
def test_arguments_are_checked(backend):
    x = np.ones((4, 3), np.float32)
    with pytest.raises(ValueError, match="sizes"):
        backend.merge_positions(x, np.ones(3, np.float32), 0.5)
    with pytest.raises(ValueError, match="threshold"):
        backend.merge_positions(x, np.ones(4, np.float32), float("nan"))
    with pytest.raises(ValueError, match="threshold"):
        backend.match_positions(x, float("nan"))
    with pytest.raises(ValueError, match="x must have 2 dimensions"):
        backend.merge_positions(x[0], np.ones(4, np.float32), 0.5)


@both_backends
def test_all_alike_become_one_beside_the_first(backend):
    x = np.ones((70, 40), np.float32)
    assert backend.match_positions(x, 0.1).tolist() == [0, *[1] * 69]
    rows, counts = backend.merge_positions(x, np.ones(70, np.float32), 0.1)
    np.testing.assert_allclose(rows, x[:2], rtol=1e-5)
    assert counts.tolist() == [1, 69]

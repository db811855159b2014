"""Rotary embedding against the float64 reference, on every instruction set of this machine."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import kernels
from models.kernels import reference
from tests.models.kernels.cases import VECTOR_SETS

every_instruction_set = pytest.mark.parametrize("instruction_set", VECTOR_SETS)
both_backends = pytest.mark.parametrize("backend", [kernels, reference])


def angles(rows, half):
    turns = np.outer(np.arange(rows), 100.0 ** (-np.arange(half) / half))
    return np.cos(turns).astype(np.float32), np.sin(turns).astype(np.float32)


@every_instruction_set
@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(0, 9),
    heads=st.integers(0, 5),
    half=st.sampled_from([1, 4, 10, 16, 32, 36]),
    seed=st.integers(0, 2**32 - 1),
)
def test_rotary_is_the_reference(instruction_set, rows, heads, half, seed):
    x = np.random.default_rng(seed).standard_normal((rows, heads * 2 * half), dtype=np.float32)
    cosines, sines = angles(rows, half)
    y = kernels.rotary(x, cosines, sines, instruction_set=instruction_set)
    exact = reference.rotary(*(array.astype(np.float64) for array in (x, cosines, sines)))
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, exact, rtol=1e-5, atol=1e-6)


@both_backends
def test_each_pair_is_turned_by_its_angle(backend):
    x = np.random.default_rng(0).standard_normal((3, 16), dtype=np.float32)
    turn = np.random.default_rng(1).random((3, 4), dtype=np.float32)
    y = backend.rotary(x, np.cos(turn), np.sin(turn)).reshape(3, 2, 2, 4)
    pairs = x.reshape(3, 2, 2, 4)
    turned = (pairs[:, :, 0] + 1j * pairs[:, :, 1]) * np.exp(1j * turn)[:, None]
    np.testing.assert_allclose(y[:, :, 0] + 1j * y[:, :, 1], turned, rtol=1e-5, atol=1e-6)


@every_instruction_set
def test_a_part_of_an_activation_is_turned_in_place(instruction_set):
    whole = np.random.default_rng(2).standard_normal((6, 3 * 64), dtype=np.float32)
    cosines, sines = angles(6, 16)
    expected = whole.copy()
    expected[:, :128] = kernels.rotary(whole[:, :128].copy(), cosines, sines, instruction_set=instruction_set)
    queries = whole[:, :128]
    assert kernels.rotary(queries, cosines, sines, out=queries, instruction_set=instruction_set) is queries
    np.testing.assert_array_equal(whole, expected)


def test_the_result_can_be_rows_of_a_cache():
    x = np.random.default_rng(3).standard_normal((2, 64), dtype=np.float32)
    cache = np.zeros((10, 64), np.float32)
    kernels.rotary(x, *angles(2, 16), out=cache[4:6])
    np.testing.assert_array_equal(cache[4:6], kernels.rotary(x, *angles(2, 16)))
    assert not cache[:4].any()
    assert not cache[6:].any()


X, ANGLES = np.zeros((3, 16), np.float32), np.zeros((3, 4), np.float32)


@both_backends
@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"x": X[0]}, ValueError, "x must have 2 dimensions, not 1"),
        ({"x": X[:, :12].copy()}, ValueError, "x must have whole heads of 8 columns, not 12 columns"),
        ({"x": X.astype(np.float16)}, TypeError, "x must be float32, not float16"),
        ({"cosines": ANGLES[:2].copy()}, ValueError, "cosines must have one row for each of the 3 rows of x"),
        ({"cosines": ANGLES[:, :0].copy()}, ValueError, "cosines must have one row for each of the 3 rows of x"),
        ({"sines": ANGLES[:2].copy()}, ValueError, r"sines must have the shape \[3, 4\], not \[2, 4\]"),
        ({"sines": None}, TypeError, "sines must be a float32 array, not None"),
        ({"out": X[:2].copy()}, ValueError, r"out must have the shape \[3, 16\], not \[2, 16\]"),
        ({"instruction_set": "mmx"}, ValueError, "instruction_set must be one that this processor has"),
    ],
)
def test_wrong_arguments_are_named(backend, wrong, error, message):
    with pytest.raises(error, match=message):
        backend.rotary(**{"x": X, "cosines": ANGLES, "sines": ANGLES} | wrong)


@pytest.mark.skipif(kernels.BACKEND != "native", reason="the reference copies what it is given")
def test_the_result_must_not_lie_over_a_part_of_an_argument():
    whole = np.zeros((4, 32), np.float32)
    for x, out in ((whole[:3, :16], whole[1:, :16]), (whole[:3, :16], whole[:3, 8:24])):
        with pytest.raises(ValueError, match="out must not overlap x"):
            kernels.rotary(x, ANGLES, ANGLES, out=out)
    with pytest.raises(ValueError, match="out must not overlap cosines"):
        kernels.rotary(X, whole.reshape(-1)[:12].reshape(3, 4), ANGLES, out=whole[:3, :16])

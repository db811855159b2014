"""Layer norm and RMS norm against the float64 reference, on every instruction set of this machine."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import kernels
from models.kernels import reference
from tests.models.kernels.cases import VECTOR_SETS

every_instruction_set = pytest.mark.parametrize("instruction_set", VECTOR_SETS)
both_backends = pytest.mark.parametrize("backend", [kernels, reference])
NORMS = ["layer_norm", "rms_norm"]


def arguments(name, channels, random):
    vectors = random.standard_normal((2, channels), dtype=np.float32)
    return (vectors[0], vectors[1]) if name == "layer_norm" else (vectors[0],)


def exact(array):
    return None if array is None else array.astype(np.float64)


@every_instruction_set
@pytest.mark.parametrize("name", NORMS)
@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(0, 9),
    channels=st.integers(1, 200),
    with_residual=st.booleans(),
    offset=st.sampled_from([0, 3, -20]),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_norm_is_the_reference(instruction_set, name, rows, channels, with_residual, offset, seed):
    random = np.random.default_rng(seed)
    x = random.standard_normal((rows, channels), dtype=np.float32) + np.float32(offset)
    residual = random.standard_normal((rows, channels), dtype=np.float32) if with_residual else None
    vectors = arguments(name, channels, random)
    y = getattr(kernels, name)(x, *vectors, 1e-3, residual=residual, instruction_set=instruction_set)
    expected = getattr(reference, name)(exact(x), *map(exact, vectors), 1e-3, residual=exact(residual))
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


def test_the_reference_is_torch():
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(0)
    x, (weight, bias) = random.standard_normal((5, 40)), random.standard_normal((2, 40))
    tensors = [torch.from_numpy(array) for array in (x, weight, bias)]
    own = torch.nn.functional.layer_norm(tensors[0], (40,), *tensors[1:], eps=1e-5)
    np.testing.assert_allclose(reference.layer_norm(x, weight, bias, 1e-5), own, rtol=1e-12)
    own = torch.nn.functional.rms_norm(tensors[0], (40,), tensors[1], eps=1e-5)
    np.testing.assert_allclose(reference.rms_norm(x, weight, 1e-5), own, rtol=1e-12)


@every_instruction_set
@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("place", ["x", "residual"])
def test_the_result_may_take_the_place_of_an_argument(instruction_set, name, place):
    random = np.random.default_rng(1)
    arrays = {key: random.standard_normal((4, 77), dtype=np.float32) for key in ("x", "residual")}
    vectors = arguments(name, 77, random)
    norm = getattr(kernels, name)
    expected = norm(arrays["x"], *vectors, 1e-6, residual=arrays["residual"], instruction_set=instruction_set)
    y = norm(
        arrays["x"],
        *vectors,
        1e-6,
        residual=arrays["residual"],
        out=arrays[place],
        instruction_set=instruction_set,
    )
    assert y is arrays[place]
    np.testing.assert_array_equal(y, expected)


X, VECTOR = np.zeros((3, 8), np.float32), np.zeros(8, np.float32)


@both_backends
@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"x": X[0]}, ValueError, "x must have 2 dimensions, not 1"),
        ({"x": X[:, :0].copy()}, ValueError, "x must have at least one channel"),
        ({"x": X.tolist()}, TypeError, "x must be a float32 array, not list"),
        ({"weight": VECTOR[:7].copy()}, ValueError, "weight must have one value for each of the 8 channels, not 7"),
        ({"weight": None}, TypeError, "weight must be a float32 array, not NoneType"),
        ({"epsilon": np.nan}, ValueError, "epsilon must be a number and not negative"),
        ({"epsilon": -1.0}, ValueError, "epsilon must be a number and not negative"),
        ({"residual": X[:2].copy()}, ValueError, r"residual must have the shape \[3, 8\], not \[2, 8\]"),
        ({"out": X[:2].copy()}, ValueError, r"out must have the shape \[3, 8\], not \[2, 8\]"),
        ({"instruction_set": "mmx"}, ValueError, "instruction_set must be one that this processor has"),
    ],
)
def test_wrong_arguments_are_named(backend, name, wrong, error, message):
    given = {"x": X, "weight": VECTOR, "epsilon": 1e-6} | ({"bias": VECTOR} if name == "layer_norm" else {}) | wrong
    with pytest.raises(error, match=message):
        getattr(backend, name)(**given)


@both_backends
def test_the_bias_is_checked(backend):
    with pytest.raises(ValueError, match="bias must have one value for each of the 8 channels, not 3"):
        backend.layer_norm(X, VECTOR, VECTOR[:3].copy(), 1e-6)


@pytest.mark.skipif(kernels.BACKEND != "native", reason="the reference copies what it is given")
def test_the_result_must_not_lie_over_a_part_of_an_argument():
    rows = np.zeros((5, 8), np.float32)
    with pytest.raises(ValueError, match="out must not overlap x"):
        kernels.rms_norm(rows[:4], VECTOR, 1e-6, out=rows[1:])
    with pytest.raises(ValueError, match="out must not overlap residual"):
        kernels.rms_norm(X, VECTOR, 1e-6, residual=rows[2:], out=rows[1:4])
    with pytest.raises(ValueError, match="out must not overlap weight"):
        kernels.rms_norm(X, rows[0], 1e-6, out=rows[:3])
    with pytest.raises(ValueError, match="out must not overlap bias"):
        kernels.layer_norm(X, VECTOR, rows[0], 1e-6, out=rows[:3])

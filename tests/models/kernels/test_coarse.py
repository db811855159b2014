"""Coarse weights: what they stand for, and products with them, on every instruction set of this machine."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import kernels
from models.kernels import reference

every_instruction_set = pytest.mark.parametrize("instruction_set", kernels.instruction_sets())
both_backends = pytest.mark.parametrize("backend", [kernels, reference])
BFLOAT16 = 2.0**-8


def weights(outputs, inputs, seed=0):
    """Of inputs and outputs that differ in size; one input is 0 throughout and one in the first unit."""
    random = np.random.default_rng(seed)
    weight = (
        random.standard_normal((outputs, inputs))
        * random.uniform(0.1, 3, inputs)
        * random.uniform(0.3, 2, (outputs, 1))
    )
    weight[:, inputs // 2] = 0
    weight[:32, inputs // 3] = 0
    return weight.astype(np.float32)


def product(backend, x, weight, **packing):
    """x · Cᵀ alone."""
    matrix = backend.pack_rows(weight, **packing).with_coarse(backend.pack_coarse(weight))
    return backend.row_matmul(np.zeros_like(x), matrix, coarse=x)


@both_backends
@pytest.mark.parametrize(("outputs", "inputs"), [(576, 96), (70, 50), (1, 1), (33, 4)])
def test_weights_are_near_what_they_were(backend, outputs, inputs):
    weight = weights(outputs, inputs)
    coarse = backend.pack_coarse(weight)
    assert (coarse.outputs, coarse.inputs) == (outputs, inputs)
    sizes = np.sqrt((weight**2).mean(1, keepdims=True)) + 1e-9
    weight, found = weight / sizes, coarse.weight / sizes
    for first in range(0, outputs, 32):
        unit, own = weight[first : first + 32], found[first : first + 32]
        # Values lie at most 0.2 of a scale apart, so that the nearest is 0.1 away, and the largest may be cut off by
        # more; scales are a quarter of the input's largest at least, or 0.
        assert (np.abs(unit - own) <= 0.2 * np.abs(unit).max(0) + 0.01 * np.abs(weight).max(0)).all()
        assert not own[:, np.abs(unit).max(0) == 0].any()
    if outputs > 500:
        assert np.linalg.norm(found - weight) < 0.09 * np.linalg.norm(weight)


@both_backends
@pytest.mark.parametrize("size", [2.0**-100, 2.0**100])
def test_outputs_of_any_size_and_of_zeros(backend, size):
    weight = weights(70, 50)
    weight[[0, 31, 40]] = 0
    found = backend.pack_coarse(np.float32(size) * weight).weight
    assert not found[[0, 31, 40]].any()
    np.testing.assert_array_equal(found, np.float32(size) * backend.pack_coarse(weight).weight)


@both_backends
def test_the_largest_and_the_least_outputs(backend):
    most, least = np.float32(2.0**127), np.float32(2.0**-130)
    signs = np.where(np.arange(20) % 3, 1, -1).astype(np.float32) * np.ones((40, 1), np.float32)
    found = backend.pack_coarse(most * signs).weight
    np.testing.assert_allclose(found, most * signs, rtol=0.01)
    assert not backend.pack_coarse(least * signs).weight.any()


@pytest.mark.parametrize(("outputs", "inputs"), [(96, 64), (70, 50), (1, 1), (33, 4)])
def test_packed_weights_are_the_references(outputs, inputs):
    weight = weights(outputs, inputs, seed=2)
    np.testing.assert_allclose(kernels.pack_coarse(weight).weight, reference.pack_coarse(weight).weight, rtol=1e-5)


def inputs_alike(count, seed=3):
    """Rows of inputs that go together: of half as many sources, and a little of their own."""
    random = np.random.default_rng(seed)
    sources = random.standard_normal((4 * count, max(1, count // 2)))
    mixed = sources @ random.standard_normal((sources.shape[1], count)) * random.uniform(0.2, 2, count)
    return mixed + 0.1 * random.standard_normal(mixed.shape)


def making_up(x):
    moments = x.T @ x / len(x)
    order = np.argsort(-moments.diagonal()).astype(np.int32)
    inverse = np.linalg.inv(moments[np.ix_(order, order)] + 0.01 * moments.diagonal().mean() * np.eye(len(order)))
    return {"order": order, "factor": np.linalg.cholesky(inverse).astype(np.float32)}


@both_backends
@pytest.mark.parametrize(("outputs", "inputs"), [(96, 64), (70, 150)])
def test_errors_are_made_up_for(backend, outputs, inputs):
    weight, x = weights(outputs, inputs, seed=4), inputs_alike(inputs)
    alone, together = backend.pack_coarse(weight), backend.pack_coarse(weight, **making_up(x))
    errors = [np.linalg.norm(x @ (packed.weight - weight).T, axis=0) for packed in (alone, together)]
    assert (errors[1] < errors[0]).mean() > 0.9
    assert np.linalg.norm(errors[1]) < 0.6 * np.linalg.norm(errors[0])
    again = backend.repack_coarse(together.words.copy(), outputs, inputs)
    np.testing.assert_array_equal(again.weight, together.weight)


def test_errors_are_made_up_for_as_the_reference_does():
    weight, given = weights(70, 50, seed=5), making_up(inputs_alike(50))
    # A value near the middle of two may be rounded to the other, and those behind make up for another error then.
    found, wanted = (backend.pack_coarse(weight, **given).weight for backend in (kernels, reference))
    same = np.isclose(found, wanted, rtol=1e-4).all(1)
    assert same.mean() > 0.8
    first = given["order"][:10]
    np.testing.assert_allclose(found[:, first], wanted[:, first], rtol=1e-4)


@both_backends
def test_what_makes_up_for_nothing(backend):
    weight = weights(40, 20)
    given = {"order": np.arange(20, dtype=np.int32), "factor": np.eye(20, dtype=np.float32)}
    # Where no inputs go together, all that differs is that scales have room to grow.
    alone, together = backend.pack_coarse(weight).weight, backend.pack_coarse(weight, **given).weight
    assert np.linalg.norm(together - weight) == pytest.approx(np.linalg.norm(alone - weight), rel=0.1)


@every_instruction_set
@settings(max_examples=30, deadline=None)
@given(
    rows=st.sampled_from([1, 2, 3, 8, 9, 21]),
    outputs=st.sampled_from([1, 16, 31, 33, 64, 96, 200]),
    inputs=st.sampled_from([1, 5, 32, 63, 100]),
    seed=st.integers(0, 2**32 - 1),
)
def test_products_are_those_of_the_weights(instruction_set, rows, outputs, inputs, seed):
    x, weight = np.random.default_rng(seed).standard_normal((rows, inputs)).astype(np.float32), weights(outputs, inputs)
    exact = kernels.pack_coarse(weight).weight.astype(np.float64)
    size = np.abs(x) @ np.abs(exact.T) + 1e-6
    found = product(kernels, x, weight, instruction_set=instruction_set)
    assert (np.abs(found - x @ exact.T) <= BFLOAT16 * size).all()
    alone = [product(kernels, row[None], weight, instruction_set=instruction_set)[0] for row in x]
    np.testing.assert_array_equal(found, np.stack(alone))


@both_backends
@pytest.mark.parametrize("rows", [2, 20])
def test_they_are_added_to_the_others(backend, rows):
    random, weight = np.random.default_rng(1), weights(70, 50)
    x, left = (random.standard_normal((rows, 50)).astype(np.float32) for _ in range(2))
    bias, residual = (
        random.standard_normal(70).astype(np.float32),
        random.standard_normal((rows, 70)).astype(np.float32),
    )
    matrix = backend.pack_rows(weight, bias=bias)
    assert matrix.coarse is None
    matrix = matrix.with_coarse(backend.pack_coarse(weight))
    wanted = x @ weight.T + bias + left @ matrix.coarse.weight.T
    np.testing.assert_allclose(
        backend.row_matmul(x, matrix, coarse=left, residual=residual), wanted + residual, rtol=0, atol=0.2
    )
    some = np.arange(0, 50, 3, dtype=np.int32)
    np.testing.assert_allclose(
        backend.row_matmul(x[:, some].copy(), matrix, inputs=some, coarse=left),
        x[:, some] @ weight[:, some].T + bias + left @ matrix.coarse.weight.T,
        rtol=0,
        atol=0.2,
    )
    silu = wanted / (1 + np.exp(-wanted.astype(np.float64)))
    np.testing.assert_allclose(backend.row_matmul(x, matrix, coarse=left, activation="silu"), silu, rtol=0, atol=0.2)


@both_backends
def test_packed_again(backend):
    x, weight = np.random.default_rng(1).standard_normal((2, 50)).astype(np.float32), weights(70, 50)
    made = backend.pack_coarse(weight)
    again = backend.repack_coarse(made.words.copy(), 70, 50)
    assert (again.outputs, again.inputs, again.nbytes) == (70, 50, made.nbytes)
    np.testing.assert_array_equal(again.weight, made.weight)
    matrix = backend.pack_rows(weight, "int8")
    products = [backend.row_matmul(x, matrix.with_coarse(coarse), coarse=x) for coarse in (made, again)]
    np.testing.assert_array_equal(*products)


def test_half_of_the_bytes_of_int8():
    weight = weights(576, 576)
    whole = kernels.pack_rows(weight, "int8").nbytes
    assert kernels.pack_coarse(weight).nbytes == pytest.approx(whole * 33 / 64, rel=0.02)


@both_backends
def test_what_does_not_fit_is_rejected(backend):
    weight = weights(70, 50)
    made, x = backend.pack_coarse(weight), np.ones((1, 50), np.float32)
    plain, narrow = backend.pack_rows(weight, by="outputs"), backend.pack_rows(weight[:, :40].copy())
    for wrong, message in (
        (lambda: backend.pack_coarse(weights(3, 2), order=np.arange(2, dtype=np.int32)), "given together"),
        (lambda: backend.pack_coarse(weights(3, 2), factor=np.eye(2, dtype=np.float32)), "given together"),
        (
            lambda: backend.pack_coarse(weights(3, 2), order=np.zeros(2, np.int32), factor=np.eye(2, dtype=np.float32)),
            "order must have each input once",
        ),
        (
            lambda: backend.pack_coarse(weights(3, 2), order=np.array([0, 2], np.int32), factor=np.eye(2, dtype="f4")),
            "order must have each input once",
        ),
        (
            lambda: backend.pack_coarse(weights(3, 2), order=np.arange(2, dtype="i4"), factor=np.eye(3, dtype="f4")),
            "factor must have the shape",
        ),
        (
            lambda: backend.pack_coarse(
                weights(3, 2), order=np.arange(2, dtype=np.int32), factor=np.zeros((2, 2), np.float32)
            ),
            "above 0 on its diagonal",
        ),
        (lambda: backend.pack_coarse(np.full((3, 4), np.inf, np.float32)), "weight must be finite"),
        (lambda: backend.pack_coarse(np.ones((0, 5), np.float32)), "at least one output and one input"),
        (lambda: backend.repack_coarse(made.words[:-1], 70, 50), "words must have the shape"),
        (lambda: backend.repack_coarse(made.words, 2**20, 2**20), "words must have the shape"),
        (lambda: narrow.with_coarse(made), "coarse must have as many outputs and inputs"),
        (lambda: backend.row_matmul(x, plain, coarse=x), "coarse must be None for a matrix without"),
        (
            lambda: backend.row_matmul(x, plain.with_coarse(made), coarse=x, outputs=np.arange(3, dtype=np.int32)),
            "coarse must be None where there are outputs",
        ),
        (lambda: backend.row_matmul(x, plain.with_coarse(made), coarse=x[:, :9].copy()), "coarse"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()

"""Both products of a feed-forward block in one call, against two of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import kernels
from models.kernels import reference
from models.kernels.reference.datatypes import DATATYPES
from tests.models.kernels.cases import ACTIVATIONS, SIZES

EVERY = [(datatype, name) for datatype in DATATYPES for name in kernels.instruction_sets(datatype)]
every_block = pytest.mark.parametrize(("datatype", "instruction_set"), EVERY)
both_backends = pytest.mark.parametrize("backend", [kernels, reference])


def normal(random, *shape):
    return random.standard_normal(shape, dtype=np.float32)


def block(random, inputs, neurons, outputs, datatype, instruction_set=None, backend=kernels):
    weights = normal(random, neurons, inputs) * inputs**-0.5, normal(random, outputs, neurons) * neurons**-0.5
    return [backend.pack_matrix(weight.astype(np.float32), datatype, instruction_set) for weight in weights]


def in_two_calls(x, up, down, neurons, shift, activation, bias, residual):
    values = kernels.gated_matmul(x, up, outputs=neurons, shift=shift, activation=activation)
    return kernels.gated_matmul(values, down, inputs=neurons, shift=bias, residual=residual)


@every_block
@settings(max_examples=40, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_it_is_both_products(datatype, instruction_set, data, seed):
    random = np.random.default_rng(seed)
    rows, inputs, neurons, outputs = (data.draw(SIZES) for _ in range(4))
    up, down = block(random, inputs, neurons, outputs, datatype, instruction_set)
    kind = data.draw(st.sampled_from(["all", "some", "neighbours"]))
    active = {
        "all": None,
        "some": np.flatnonzero(random.random(neurons) < random.random()).astype(np.int32),
        "neighbours": np.arange(random.integers(0, neurons + 1), dtype=np.int32),
    }[kind]
    x, shift = normal(random, rows, inputs), normal(random, neurons) if data.draw(st.booleans()) else None
    bias = normal(random, outputs) if data.draw(st.booleans()) else None
    residual = normal(random, rows, outputs) if data.draw(st.booleans()) else None
    activation = data.draw(st.sampled_from(ACTIVATIONS))
    options = {"shift": shift, "activation": activation, "bias": bias, "residual": residual}
    y = kernels.feed_forward(x, up, down, neurons=active, **options)
    # Which tiles a product of few rows reads differs, and with it the order of sums.
    np.testing.assert_allclose(y, in_two_calls(x, up, down, active, **options), rtol=1e-4, atol=1e-4)


@every_block
@pytest.mark.parametrize("neurons", [None, np.arange(0, 300, 3, dtype=np.int32), np.arange(100, dtype=np.int32)])
def test_rows_beyond_those_that_are_together(datatype, instruction_set, neurons):
    random = np.random.default_rng(1)
    up, down = block(random, 70, 300, 50, datatype, instruction_set)
    x, shift, bias, residual = (normal(random, *shape) for shape in ((530, 70), (300,), (50,), (530, 50)))
    options = {"shift": shift, "activation": "gelu", "bias": bias, "residual": residual}
    y = kernels.feed_forward(x, up, down, neurons=neurons, **options)
    np.testing.assert_allclose(y, in_two_calls(x, up, down, neurons, **options), rtol=1e-4, atol=1e-4)
    shared = kernels.feed_forward(x, up, down, neurons=neurons, threads=kernels.Threads(2), **options)
    np.testing.assert_array_equal(shared, y)
    over = kernels.feed_forward(x, up, down, neurons=neurons, **options | {"out": residual})
    assert over is residual
    np.testing.assert_array_equal(over, y)


@every_block
def test_weights_of_skipped_neurons_take_no_part(datatype, instruction_set):
    random = np.random.default_rng(2)
    weights = normal(random, 96, 64), normal(random, 64, 96)
    poisoned = weights[0].copy(), weights[1].copy()
    neurons = np.r_[:20, 64:96].astype(np.int32)
    skipped = np.setdiff1d(np.arange(96), neurons)
    poisoned[0][skipped], poisoned[1][:, skipped] = 1e4, 1e4
    # Scales of int8 are of all inputs of an output.
    if datatype == "int8":
        poisoned = poisoned[0], weights[1]
    x = normal(random, 40, 64)
    plain, other = (
        kernels.feed_forward(
            x, *(kernels.pack_matrix(w, datatype, instruction_set) for w in pair), neurons=neurons, activation="relu"
        )
        for pair in (weights, poisoned)
    )
    np.testing.assert_array_equal(plain, other)


def test_the_reference_is_two_products():
    random = np.random.default_rng(3)
    x, shift, bias, residual = (normal(random, *shape) for shape in ((9, 20), (30,), (10,), (9, 10)))
    neurons = np.array([0, 3, 4, 29], np.int32)
    options = {"neurons": neurons, "shift": shift, "activation": "gelu", "bias": bias, "residual": residual}
    y, expected = (
        backend.feed_forward(x, *block(np.random.default_rng(4), 20, 30, 10, "bf16", backend=backend), **options)
        for backend in (kernels, reference)
    )
    np.testing.assert_allclose(y, expected, rtol=1e-2, atol=1e-2)


@both_backends
@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"x": np.zeros((5, 7), np.float32)}, ValueError, "x must have 8 channels"),
        ({"neurons": np.array([40], np.int32)}, ValueError, "neurons must"),
        ({"shift": np.zeros(8, np.float32)}, ValueError, "shift must have"),
        ({"bias": np.zeros(40, np.float32)}, ValueError, "bias must have"),
        ({"residual": np.zeros((5, 40), np.float32)}, ValueError, "residual must have the shape"),
        ({"activation": "tanh"}, ValueError, "activation must be"),
        ({"down": (6, 39)}, ValueError, "down must have 40 inputs, the neurons of up, not 39"),
    ],
)
def test_wrong_arguments_are_named(backend, wrong, error, message):
    arguments = {"x": np.zeros((5, 8), np.float32), "up": (40, 8), "down": (6, 40)} | wrong
    for name in ("up", "down"):
        arguments[name] = backend.pack_matrix(np.zeros(arguments[name], np.float32), "bf16")
    with pytest.raises(error, match=message):
        backend.feed_forward(**arguments)

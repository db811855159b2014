"""The halves of an encoder's layer, beside the functions that they are made of."""

import os

import numpy as np
import pytest

from models import kernels
from models.kernels import reference

both_backends = pytest.mark.parametrize("backend", [kernels, reference])
HEADS, HIDDEN, NEURONS = 3, 48, 130
EPSILON, SCALE = 1e-6, 0.2


def normal(random, *shape):
    return random.standard_normal(shape, dtype=np.float32)


def linear(backend, random, outputs, inputs, datatype="fp32"):
    weight = normal(random, outputs, inputs) * np.float32(inputs**-0.5)
    return backend.pack_matrix(weight, datatype), normal(random, outputs)


def attention(backend=kernels, head_size=8, datatype="fp32", **changed):
    random = np.random.default_rng(0)
    given = {
        "qkv": linear(backend, random, 2 * HEADS * head_size + HIDDEN, HIDDEN, datatype),
        "output": linear(backend, random, HIDDEN, HIDDEN, datatype),
        "norm": tuple(normal(random, 2, HIDDEN)),
        "heads": HEADS,
        "head_size": head_size,
        "scale": SCALE,
        "epsilon": EPSILON,
        "datatype": datatype,
    } | changed
    return given, backend.encoder_attention(**given)


def feed_forward(backend=kernels, datatype="fp32", **changed):
    random = np.random.default_rng(1)
    given = {
        "up": linear(backend, random, NEURONS, HIDDEN, datatype),
        "down": linear(backend, random, HIDDEN, NEURONS, datatype),
        "norm": tuple(normal(random, 2, HIDDEN)),
        "epsilon": EPSILON,
    } | changed
    return given, backend.encoder_feed_forward(**given)


def product(x, given):
    return kernels.gated_matmul(x, given[0], shift=given[1])


@pytest.mark.parametrize("datatype", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("head_size", [8, 16])
@pytest.mark.parametrize("positions", [1, 16, 60])
def test_the_first_half_is_its_steps(datatype, head_size, positions):
    given, half = attention(head_size=head_size, datatype=datatype)
    random = np.random.default_rng(2)
    x, scored = normal(random, positions, HIDDEN), HEADS * head_size
    for bias in (None, normal(random, positions), normal(random, HEADS, positions, positions)):
        qkv = product(x, given["qkv"])
        q, k, v = qkv[:, :scored], qkv[:, scored : 2 * scored], qkv[:, 2 * scored :]
        heads = kernels.attention(q, k, v, head_size, bias=bias, scale=SCALE, datatype=datatype)
        wanted = kernels.layer_norm(product(heads, given["output"]), *given["norm"], EPSILON, residual=x)
        np.testing.assert_array_equal(kernels.attend_half(half, x, bias=bias), wanted)
        np.testing.assert_array_equal(kernels.attend_half(half, x, qkv, bias), wanted)


@pytest.mark.parametrize("datatype", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("active", [[1], [0, 2], [0, 1, 2]])
@pytest.mark.parametrize("positions", [1, 16, 60])
def test_some_heads_are_the_steps_of_those(datatype, active, positions):
    given, half = attention(datatype=datatype)
    random, heads = np.random.default_rng(2), np.array(active, np.int32)
    x, shift = normal(random, positions, HIDDEN), normal(random, HIDDEN)
    scored, values = (np.arange(HEADS * size).reshape(HEADS, size)[heads].ravel() for size in (8, HIDDEN // HEADS))
    columns = np.concatenate([scored, scored + HEADS * 8, values + 2 * HEADS * 8]).astype(np.int32)
    (qkv, bias), (output, _) = given["qkv"], given["output"]
    made = kernels.gated_matmul(x, qkv, outputs=columns, shift=bias)
    q, k, v = np.split(made, [len(scored), 2 * len(scored)], 1)
    for scores in (None, normal(random, positions), normal(random, len(heads), positions, positions)):
        mixed = kernels.attention(q, k, v, 8, bias=scores, scale=SCALE, datatype=datatype)
        summed = kernels.gated_matmul(mixed, output, inputs=values.astype(np.int32), shift=shift)
        wanted = kernels.layer_norm(summed, *given["norm"], EPSILON, residual=x)
        found = kernels.attend_half(half, x, bias=scores, heads=heads, heads_bias=shift)
        np.testing.assert_array_equal(found, wanted)
        known = kernels.attend_half(half, x, product(x, given["qkv"]), scores, heads, shift)
        np.testing.assert_allclose(known, wanted, rtol=1e-4, atol=1e-4)


@both_backends
def test_without_a_head_there_is_what_stands_for_them(backend):
    given, half = attention(backend)
    x, shift = normal(np.random.default_rng(2), 5, HIDDEN), np.arange(HIDDEN, dtype=np.float32)
    found = backend.attend_half(half, x, heads=np.empty(0, np.int32), heads_bias=shift)
    wanted = kernels.layer_norm(x + shift, *given["norm"], EPSILON)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("datatype", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("positions", [0, 1, 16, 60, 300])
def test_the_second_half_is_its_steps(datatype, positions):
    given, half = feed_forward(datatype=datatype)
    x, ((up, shift), (down, bias)) = normal(np.random.default_rng(2), positions, HIDDEN), (given["up"], given["down"])
    summed = kernels.feed_forward(x, up, down, shift=shift, activation="gelu", bias=bias)
    wanted = kernels.layer_norm(summed, *given["norm"], EPSILON, residual=x)
    np.testing.assert_array_equal(kernels.feed_forward_half(half, x), wanted)


@pytest.mark.parametrize(("datatype", "tolerance"), [("fp32", 1e-4), ("bf16", 0.05), ("int8", 0.05)])
def test_halves_are_those_of_the_reference(datatype, tolerance):
    random = np.random.default_rng(2)
    x, qkv, bias = (normal(random, *shape) for shape in ((11, HIDDEN), (11, 96), (11,)))
    first, own_first = (attention(backend, datatype=datatype)[1] for backend in (kernels, reference))
    some = np.array([0, 2], np.int32), normal(random, HIDDEN)
    for given in ((), (qkv,), (None, bias), (None, None, *some), (qkv, bias, *some)):
        found, wanted = kernels.attend_half(first, x, *given), reference.attend_half(own_first, x, *given)
        np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)
    second, own_second = (feed_forward(backend, datatype)[1] for backend in (kernels, reference))
    found, wanted = kernels.feed_forward_half(second, x), reference.feed_forward_half(own_second, x)
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="this process may use one processor")
def test_threads_change_no_bit():
    x, threads = normal(np.random.default_rng(2), 1500, HIDDEN), kernels.Threads(2)  # enough work to be shared
    first, second = attention()[1], feed_forward()[1]
    np.testing.assert_array_equal(kernels.attend_half(first, x, threads=threads), kernels.attend_half(first, x))
    np.testing.assert_array_equal(
        kernels.feed_forward_half(second, x, threads=threads), kernels.feed_forward_half(second, x)
    )


@both_backends
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"heads": 0}, "heads must divide the inputs of qkv"),
        ({"heads": 5}, "heads must divide the inputs of qkv"),
        ({"scale": np.nan}, "scale must be a number"),
        ({"epsilon": np.nan}, "epsilon must be a number and not negative"),
        ({"norm": (np.ones(48, np.float32), np.ones(47, np.float32))}, r"norm must have the shape \[48\], not \[47\]"),
    ],
)
def test_wrong_first_halves_are_named(backend, changed, message):
    with pytest.raises(ValueError, match=message):
        attention(backend, **changed)


@both_backends
def test_wrong_products_are_named(backend):
    random = np.random.default_rng(0)
    narrow, short = linear(backend, random, HIDDEN, 40), (linear(backend, random, HIDDEN, HIDDEN)[0], np.ones(3, "f4"))
    with pytest.raises(ValueError, match="qkv must have 96 outputs and 48 inputs, not 90 and 48"):
        attention(backend, qkv=linear(backend, random, 90, HIDDEN))
    with pytest.raises(ValueError, match="output must have 48 outputs and 48 inputs, not 48 and 40"):
        attention(backend, output=narrow)
    with pytest.raises(ValueError, match=r"output must have the shape \[48\], not \[3\]"):
        attention(backend, output=short)
    with pytest.raises(ValueError, match="down must have 48 outputs and 130 inputs, not 48 and 40"):
        feed_forward(backend, down=narrow)
    with pytest.raises(ValueError, match="epsilon must be a number and not negative"):
        feed_forward(backend, epsilon=-1.0)


@both_backends
def test_wrong_inputs_are_named(backend):
    first, second = attention(backend)[1], feed_forward(backend)[1]
    x = np.ones((5, HIDDEN), np.float32)

    def some_heads(heads, shift=x[0], bias=None):
        backend.attend_half(first, x, bias=bias, heads=np.array(heads, np.int32), heads_bias=shift)

    for wrong, message in (
        (lambda: backend.attend_half(first, x[:, :40].copy()), "x must have 48 channels, not 40"),
        (lambda: backend.attend_half(first, x[:0]), "x must have at least one row"),
        (lambda: backend.attend_half(first, x, x), r"qkv must have the shape \[5, 96\], not \[5, 48\]"),
        (lambda: backend.attend_half(first, x, bias=x[0, :4].copy()), r"bias must have the shape \[5\], not \[4\]"),
        (
            lambda: backend.attend_half(first, x, heads=np.array([0], np.int32)),
            "heads and heads_bias must both",
        ),
        (lambda: backend.attend_half(first, x, heads_bias=x[0]), "heads and heads_bias must both"),
        (lambda: some_heads([3]), "heads must hold channels from 0 to 2"),
        (lambda: some_heads([1, 1]), "heads must be strictly ascending"),
        (lambda: some_heads([1], x[0, :4].copy()), r"heads_bias must have the shape \[48\], not \[4\]"),
        (
            lambda: some_heads([1], bias=np.ones((3, 5, 5), "f4")),
            r"bias must have the shape \[1, 5, 5\], not \[3, 5, 5\]",
        ),
        (lambda: backend.feed_forward_half(second, x[:, :40].copy()), "x must have 48 channels, not 40"),
        (lambda: backend.feed_forward_half(second, x[0]), "x must have 2 dimensions, not 1"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()

"""Products whose rows go through a layer norm first, against the norm and then the product."""

import numpy as np
import pytest

from models import kernels
from models.kernels import reference
from models.kernels.reference.datatypes import DATATYPES

EVERY = [(datatype, name) for datatype in DATATYPES for name in kernels.instruction_sets(datatype)]
every_product = pytest.mark.parametrize(("datatype", "instruction_set"), EVERY)
both_backends = pytest.mark.parametrize("backend", [kernels, reference])


def normal(random, *shape):
    return random.standard_normal(shape, dtype=np.float32)


@every_product
@pytest.mark.parametrize("rows", [0, 1, 5, 40, 300])
@pytest.mark.parametrize("inputs", [None, np.r_[0:20, 33, 64:70].astype(np.int32)])
def test_it_is_the_norm_and_the_product(datatype, instruction_set, rows, inputs):
    random = np.random.default_rng(rows)
    packed = kernels.pack_matrix(normal(random, 50, 70), datatype, instruction_set)
    channels = 70 if inputs is None else len(inputs)
    apart = normal(random, rows, 2 * channels)[:, :channels]
    norm = normal(random, channels), normal(random, channels), 1e-5
    options = {"inputs": inputs, "shift": normal(random, 50), "activation": "gelu"}
    for x in (np.ascontiguousarray(apart), apart):
        expected = kernels.gated_matmul(kernels.layer_norm(np.ascontiguousarray(x), *norm), packed, **options)
        y = kernels.gated_matmul(x, packed, norm=norm, **options)
        np.testing.assert_array_equal(y, expected)
        shared = kernels.gated_matmul(x, packed, norm=norm, threads=kernels.Threads(2), **options)
        np.testing.assert_array_equal(shared, expected)


@every_product
@pytest.mark.parametrize("rows", [1, 63, 64, 530])
def test_of_a_feed_forward_block_the_result_may_take_the_place_of_x(datatype, instruction_set, rows):
    random = np.random.default_rng(rows)
    up, down = (
        kernels.pack_matrix(normal(random, *shape), datatype, instruction_set) for shape in ((300, 70), (70, 300))
    )
    x, norm = normal(random, rows, 70), (normal(random, 70), normal(random, 70), 1e-5)
    options = {"shift": normal(random, 300), "activation": "gelu", "bias": normal(random, 70)}
    expected = kernels.feed_forward(kernels.layer_norm(x, *norm), up, down, residual=x, **options)
    for threads in (None, kernels.Threads(2)):
        over = x.copy()
        y = kernels.feed_forward(over, up, down, norm=norm, residual=over, out=over, threads=threads, **options)
        assert y is over
        np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("datatype", DATATYPES)
def test_the_reference_is_the_core(datatype):
    random = np.random.default_rng(0)
    weights = normal(random, 30, 20), normal(random, 20, 30)
    x, norm = normal(random, 9, 20), (normal(random, 20), normal(random, 20), 1e-5)
    for call in ("gated_matmul", "feed_forward"):
        y, expected = (
            getattr(backend, call)(
                x, *(backend.pack_matrix(w, datatype) for w in weights[: 1 + (call == "feed_forward")]), norm=norm
            )
            for backend in (kernels, reference)
        )
        np.testing.assert_allclose(y, expected, rtol=2e-2, atol=2e-2 * np.abs(expected).max())


@both_backends
@pytest.mark.parametrize("call", ["gated_matmul", "feed_forward"])
@pytest.mark.parametrize(
    ("norm", "message"),
    [
        ((np.zeros(7, np.float32), np.zeros(8, np.float32), 1e-5), "weight must have"),
        ((np.zeros(8, np.float32), np.zeros(7, np.float32), 1e-5), "bias must have"),
        ((np.zeros(8, np.float32), np.zeros(8, np.float32), -1.0), "epsilon must be"),
    ],
)
def test_wrong_norms_are_named(backend, call, norm, message):
    square = backend.pack_matrix(np.zeros((8, 8), np.float32), "bf16")
    x = np.zeros((5, 8), np.float32)
    with pytest.raises(ValueError, match=message):
        getattr(backend, call)(x, *[square] * (1 + (call == "feed_forward")), norm=norm)


def test_x_without_a_norm_is_not_written_over():
    square = kernels.pack_matrix(np.zeros((8, 8), np.float32), "bf16")
    x = np.zeros((5, 8), np.float32)
    with pytest.raises(ValueError, match="x"):
        kernels.feed_forward(x, square, square, out=x)

"""Products in bf16 and int8, on every instruction set here, against the reference, which rounds as they do."""

import numpy as np
import pytest
from hypothesis import given, settings

from models import kernels
from models.kernels import reference
from tests.models.kernels.cases import convolutions, products

EVERY = [(datatype, name) for datatype in ("bf16", "int8") for name in kernels.instruction_sets(datatype)]
every_product = pytest.mark.parametrize(("datatype", "instruction_set"), EVERY)
both_backends = pytest.mark.parametrize("backend", [kernels, reference])


def normal(*shape, seed=5):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@every_product
@settings(max_examples=30, deadline=None)
@given(case=products())
def test_matrix_product_is_the_reference(datatype, instruction_set, case):
    case.check(instruction_set, datatype)


@pytest.mark.parametrize("instruction_set", kernels.instruction_sets("bf16"))
@settings(max_examples=30, deadline=None)
@given(case=convolutions())
def test_convolution_is_the_reference(instruction_set, case):
    case.check(instruction_set, "bf16")


@every_product
@pytest.mark.parametrize("rows", [1, 16, 17, 33, 200])
def test_lists_of_neighbours_and_of_every_other_channel(datatype, instruction_set, rows):
    """Few rows read the weights where they lie, many have them packed; both give what the dense product gives."""
    weight = normal(200, 300)
    packed = kernels.pack_matrix(weight, datatype, instruction_set)
    for step in (1, 2, 7):
        read, kept = np.arange(0, 150 * step, step)[:40].astype(np.int32), np.arange(0, 200, step, dtype=np.int32)
        x = normal(rows, len(read))
        dense = np.zeros((rows, 300), np.float32)
        dense[:, read] = x
        np.testing.assert_allclose(
            kernels.gated_matmul(x, packed, inputs=read, outputs=kept),
            kernels.gated_matmul(dense, packed)[:, kept],
            rtol=1e-5,
            atol=1e-4,
        )


@every_product
def test_many_rows_are_what_each_is_alone(datatype, instruction_set):
    x, residual, shift = normal(530, 100), normal(530, 70), normal(70)
    packed = kernels.pack_matrix(normal(70, 100), datatype, instruction_set)
    together = kernels.gated_matmul(x, packed, shift=shift, activation="gelu", residual=residual)
    for row in (0, 255, 256, 511, 512, 529):
        own = slice(row, row + 1)
        alone = kernels.gated_matmul(x[own], packed, shift=shift, activation="gelu", residual=residual[own])
        np.testing.assert_allclose(together[own], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("instruction_set", kernels.instruction_sets("bf16"))
def test_gelu_in_bf16_is_exact_to_a_part_of_its_argument(instruction_set):
    """Arguments that bf16 has are not rounded, so that all that is off is the activation."""
    bits = np.concatenate([np.arange(0x3000, 0x4180), np.arange(0xB000, 0xC180), [0x0000, 0x7F00, 0xFF00]])
    x = (bits.astype(np.uint32) << 16).view(np.float32)[:, None]
    y = kernels.gated_matmul(
        x, kernels.pack_matrix(np.ones((20, 1), np.float32), "bf16", instruction_set), activation="gelu"
    )
    exact = reference.gated_matmul(x.astype(np.float64), reference.pack_matrix(np.ones((20, 1))), activation="gelu")
    assert np.all(np.abs(y - exact) <= 3e-6 * np.abs(x).clip(max=5) + 1e-6 * np.abs(exact))


@pytest.mark.parametrize("instruction_set", kernels.instruction_sets("bf16"))
def test_gelu_in_bf16_of_what_is_not_finite_is_its_limit(instruction_set):
    x = np.array([[np.nan], [-np.inf], [np.inf]], np.float32)
    packed = kernels.pack_matrix(np.ones((20, 1), np.float32), "bf16", instruction_set)
    y = kernels.gated_matmul(x, packed, activation="gelu")
    np.testing.assert_allclose(y, np.repeat([[np.nan], [0], [np.inf]], 20, axis=1), atol=1e-6)


@pytest.mark.parametrize("instruction_set", kernels.instruction_sets("int8"))
def test_int8_sums_are_exact(instruction_set):
    """Whole numbers whose scale is 1 come back as the integers' product, far beyond what float32 could add up."""
    random = np.random.default_rng(1)
    x, weight = (random.integers(-127, 128, shape).astype(np.float32) for shape in ((5, 4000), (24, 4000)))
    x[:, 0] = weight[:, 0] = 127
    exact = x.astype(np.int64) @ weight.astype(np.int64).T
    y = kernels.gated_matmul(x, kernels.pack_matrix(weight, "int8", instruction_set))
    np.testing.assert_array_equal(y, exact.astype(np.float32))


@both_backends
@pytest.mark.parametrize(("datatype", "cosine"), [("bf16", 0.9999), ("int8", 0.999)])
def test_the_result_is_close_to_that_of_float32(backend, datatype, cosine):
    x, weight = normal(16, 384), normal(100, 384, seed=6)
    y, exact = backend.gated_matmul(x, backend.pack_matrix(weight, datatype)), x @ weight.T
    assert (y * exact).sum() / np.linalg.norm(y) / np.linalg.norm(exact) > cosine


@every_product
def test_rows_of_zeros_and_rows_that_are_not_finite(datatype, instruction_set):
    x = normal(5, 40)
    x[1] = 0
    x[2, 3] = np.nan
    x[3] = 1e-44  # less than any scale of int8
    packed = kernels.pack_matrix(normal(20, 40), datatype, instruction_set)
    y = kernels.gated_matmul(x, packed)
    assert np.all(y[1] == 0)
    assert np.all(np.isnan(y[2]))
    np.testing.assert_allclose(y[3], 0, atol=1e-40)
    np.testing.assert_array_equal(y[[0, 4]], kernels.gated_matmul(x[[0, 4]], packed))


@pytest.mark.parametrize("instruction_set", kernels.instruction_sets("bf16"))
def test_a_nan_of_an_image_reaches_the_outputs_that_see_it(instruction_set):
    x = np.zeros((7, 7, 70), np.float32)
    x[3, 6, 5] = np.nan  # at the border, where the next row begins
    packed = kernels.pack_convolution(normal(40, 70, 3, 3), 1, 1, "bf16", instruction_set)
    seen = np.zeros((7, 7), bool)
    seen[2:5, 5:] = True
    y = kernels.gated_conv2d(x, packed)
    assert np.all(np.isnan(y[seen]))
    assert np.all(y[~seen] == 0)


@pytest.mark.parametrize(("datatype", "item"), [("bf16", 2), ("int8", 1)])
def test_a_layer_knows_its_datatype_and_its_memory(datatype, item):
    packed = kernels.pack_matrix(normal(1536, 384), datatype)
    scales = 4 * 1536 if datatype == "int8" else 0
    assert (packed.datatype, packed.nbytes) == (datatype, item * 1536 * 384 + scales)
    assert packed.instruction_set == kernels.instruction_set(datatype)
    with pytest.raises(ValueError, match="only the weights of an fp32 layer are an array"):
        _ = packed.weights
    assert kernels.pack_matrix(normal(1536, 384)).nbytes == 4 * 1536 * 384


@both_backends
def test_wrong_datatypes_and_weights(backend):
    weight, image_weight = normal(4, 3), normal(4, 3, 3, 3)
    with pytest.raises(ValueError, match="datatype must be fp32, bf16 or int8, not 'fp16'"):
        backend.pack_matrix(weight, "fp16")
    with pytest.raises(ValueError, match="datatype must be fp32, bf16 or int8, not 'fp16'"):
        backend.instruction_sets("fp16")
    with pytest.raises(ValueError, match="datatype of a convolution must be fp32 or bf16, not 'int8'"):
        backend.pack_convolution(image_weight, datatype="int8")
    with pytest.raises(ValueError, match="instruction_set must be one that this processor has"):
        backend.pack_matrix(weight, "bf16", "none")
    weight[1, 2] = np.inf
    with pytest.raises(ValueError, match="weight must be finite for int8"):
        backend.pack_matrix(weight, "int8")


@both_backends
@pytest.mark.parametrize("datatype", ["bf16", "int8"])
def test_arguments_are_checked_as_in_float32(backend, datatype):
    packed = backend.pack_matrix(normal(6, 4), datatype)
    with pytest.raises(ValueError, match="x must have 4 channels"):
        backend.gated_matmul(normal(2, 3), packed)
    with pytest.raises(ValueError, match="outputs must be strictly ascending"):
        backend.gated_matmul(normal(2, 4), packed, outputs=np.array([3, 2], np.int32))


@pytest.mark.parametrize("instruction_set", kernels.instruction_sets("int8"))
def test_a_weight_next_to_the_middle_of_two_numbers_is_rounded_alike(instruction_set):
    """Its quotient depends on the last bit of the scale's inverse: 127 / largest in one rounding."""
    random = np.random.default_rng(248)
    columns, outputs, rows = (int(random.integers(1, most)) for most in (130, 130, 9))
    x, weight = (random.standard_normal(shape, dtype=np.float32) for shape in ((rows, columns), (outputs, columns)))
    ours, theirs = (
        backend.gated_matmul(x, backend.pack_matrix(weight, "int8", name))
        for backend, name in ((kernels, instruction_set), (reference, None))
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-4)

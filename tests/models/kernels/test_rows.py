"""Matrices for a few rows against the reference, on every instruction set of this machine."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import kernels
from models.kernels import reference

every_instruction_set = pytest.mark.parametrize("instruction_set", kernels.instruction_sets())
both_backends = pytest.mark.parametrize("backend", [kernels, reference])
BFLOAT16 = 2.0**-8


def arrays(rows, outputs, inputs, seed):
    random = np.random.default_rng(seed)
    return [
        random.standard_normal(shape).astype(np.float32) for shape in ((rows, inputs), (outputs, inputs), (outputs,))
    ]


@every_instruction_set
@settings(max_examples=30, deadline=None)
@given(
    rows=st.sampled_from([1, 2, 3, 4, 5, 8, 9, 33]),
    outputs=st.sampled_from([1, 31, 32, 64, 200, 330, 576, 700]),
    inputs=st.sampled_from([1, 5, 32, 63, 97, 160]),
    datatype=st.sampled_from(["fp32", "bf16", "int8"]),
    by=st.sampled_from(["inputs", "outputs"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_products_are_the_references(instruction_set, rows, outputs, inputs, datatype, by, seed):
    x, weight, bias = arrays(rows, outputs, inputs, seed)
    packed = kernels.pack_rows(weight, datatype, by, bias=bias, instruction_set=instruction_set)
    exact = reference.pack_rows(weight, datatype, by, bias=bias).weight.double().numpy()
    wanted = x.astype(np.float64) @ exact.T + bias
    size = np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(exact, axis=1) + 1
    many = rows > 8 and datatype != "fp32"  # then activations are rounded too
    assert (np.abs(kernels.row_matmul(x, packed) - wanted) <= (BFLOAT16 if many else 1e-5) * size).all()
    np.testing.assert_allclose(packed.norms, np.linalg.norm(weight, axis=0), rtol=1e-5)


@both_backends
@pytest.mark.parametrize("rows", [2, 20])
def test_what_is_added_and_what_follows(backend, rows):
    x, weight, bias = arrays(rows, 40, 24, 0)
    residual = np.random.default_rng(1).standard_normal((rows, 40)).astype(np.float32)
    packed = backend.pack_rows(weight, bias=bias)
    plain = x @ weight.T + bias
    np.testing.assert_allclose(backend.row_matmul(x, packed, residual=residual), plain + residual, rtol=1e-4, atol=1e-4)
    silu = backend.row_matmul(x, packed, activation="silu")
    np.testing.assert_allclose(silu, plain / (1 + np.exp(-plain)), rtol=1e-4, atol=1e-4)
    out = residual.copy()
    assert backend.row_matmul(x, packed, residual=out, out=out) is out
    np.testing.assert_allclose(out, plain + residual, rtol=1e-4, atol=1e-4)


@both_backends
def test_a_row_does_not_depend_on_the_others(backend):
    x, weight, _ = arrays(7, 90, 70, 2)
    for by in ("inputs", "outputs"):
        packed = backend.pack_rows(weight, by=by)
        together = backend.row_matmul(x, packed)
        for i in range(7):
            np.testing.assert_allclose(
                backend.row_matmul(x[i : i + 1], packed), together[i : i + 1], rtol=1e-5, atol=1e-5
            )


@both_backends
@pytest.mark.parametrize("datatype", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("rows", [1, 3, 11])
def test_inactive_inputs_take_no_part(backend, datatype, rows):
    x, weight, bias = arrays(rows, 70, 33, 3)
    read = np.array([0, 1, 7, 8, 20, 32], np.int32)
    packed = backend.pack_rows(weight, datatype, bias=bias)
    others = np.setdiff1d(np.arange(33), read)
    zeroed = x.copy()
    zeroed[:, others] = 0
    own = np.ascontiguousarray(x[:, read])
    wanted = np.concatenate([backend.row_matmul(zeroed[i : i + 1], packed) for i in range(rows)])
    tolerance = 0.1 if rows > 8 and datatype != "fp32" else 1e-5  # many rows are a product in bf16
    np.testing.assert_allclose(backend.row_matmul(own, packed, inputs=read), wanted, rtol=1e-5, atol=tolerance)
    poisoned = weight.copy()
    poisoned[:, others] = 1e30 if datatype == "fp32" else weight[:, others]
    result = backend.row_matmul(own, backend.pack_rows(poisoned, datatype, bias=bias), inputs=read)
    np.testing.assert_allclose(result, wanted, rtol=1e-5, atol=tolerance)
    with pytest.raises(ValueError, match="inputs must be None unless"):
        backend.row_matmul(own, backend.pack_rows(weight, datatype, "outputs"), inputs=read)


@every_instruction_set
@pytest.mark.parametrize("datatype", ["fp32", "bf16", "int8"])
def test_any_number_of_active_inputs(instruction_set, datatype):
    x, weight, _ = arrays(1, 130, 83, 4)
    exact = reference.pack_rows(weight, datatype).weight.double().numpy()
    for count in (*range(24), 31, 32, 33, 83):
        ids = np.arange(83 - count, 83, dtype=np.int32)
        kept = np.ascontiguousarray(weight[:, ids])
        packed = kernels.pack_rows(weight, datatype, instruction_set=instruction_set)
        size = np.linalg.norm(x) * np.linalg.norm(exact, axis=1) + 1
        listed = kernels.row_matmul(np.ascontiguousarray(x[:, ids]), packed, inputs=ids)
        assert (np.abs(listed - x[:, ids].astype(np.float64) @ exact[:, ids].T) <= 1e-5 * size).all()
        if datatype == "fp32" and count:  # where all of fewer are active, the sums are the same to the bit
            whole = kernels.pack_rows(kept, datatype, instruction_set=instruction_set)
            np.testing.assert_array_equal(kernels.row_matmul(np.ascontiguousarray(x[:, ids]), whole), listed)


@both_backends
def test_wrong_arguments_are_named(backend):
    x, weight, bias = arrays(2, 40, 24, 0)
    packed = backend.pack_rows(weight)
    assert (packed.outputs, packed.inputs, packed.datatype, packed.by) == (40, 24, "fp32", "inputs")
    for call, message in (
        (lambda: backend.pack_rows(weight, "fp16"), "datatype"),
        (lambda: backend.pack_rows(weight, by="rows"), "by must be"),
        (lambda: backend.pack_rows(weight, bias=bias[1:]), "bias"),
        (lambda: backend.pack_rows(weight * np.float32(np.inf), "int8"), "weight must be finite"),
        (lambda: backend.pack_rows(weight[:0]), "weight must have at least one"),
        (lambda: backend.row_matmul(x[:, 1:].copy(), packed), "x must have 24 channels"),
        (lambda: backend.row_matmul(x, packed, activation="gelu"), "activation"),
        (lambda: backend.row_matmul(x, packed, residual=x), "residual"),
        (lambda: backend.row_matmul(x, packed, inputs=np.arange(3, dtype=np.int32)), "x must have 3 channels"),
        (
            lambda: backend.row_matmul(x[:, :3].copy(), packed, inputs=np.arange(3, dtype=np.int32), residual=bias),
            "inputs",
        ),
        (lambda: packed.with_means(bias), "means"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@every_instruction_set
def test_few_rows_use_the_vectors_that_there_are(instruction_set):
    used = kernels.pack_rows(np.ones((4, 4), np.float32), instruction_set=instruction_set).instruction_set
    assert used == {"amx": "avx512", "neon": "portable"}.get(instruction_set, instruction_set)


@both_backends
@pytest.mark.parametrize("datatype", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("by", ["inputs", "outputs"])
def test_packed_rows_are_those_that_were_packed_before(backend, datatype, by):
    x, weight, bias = arrays(3, 70, 33, 5)
    packed = backend.pack_rows(weight, datatype, by, bias=bias)
    given = {"norms": packed.norms, "scales": packed.scales, "bias": bias}
    again = backend.repack_rows(packed.words, 70, 33, datatype, by, **given)
    np.testing.assert_array_equal(backend.row_matmul(x, again), backend.row_matmul(x, packed))
    np.testing.assert_array_equal(again.with_means(x[0]).words, packed.words)
    np.testing.assert_array_equal(again.norms, packed.norms)
    with pytest.raises(ValueError, match="words"):
        backend.repack_rows(packed.words[:-1].copy(), 70, 33, datatype, by, **given)
    with pytest.raises(ValueError, match="scales"):
        wrong = None if datatype == "int8" else bias
        backend.repack_rows(packed.words, 70, 33, datatype, by, **(given | {"scales": wrong}))
    with pytest.raises(ValueError, match="norms"):
        backend.repack_rows(packed.words, 70, 33, datatype, by, **(given | {"norms": packed.norms[1:].copy()}))


@both_backends
@pytest.mark.parametrize("rows", [1, 3, 8, 19])
@pytest.mark.parametrize("datatype", ["fp32", "bf16", "int8"])
def test_only_the_active_outputs(backend, rows, datatype):
    x, weight, bias = arrays(rows, 300, 70, 2)
    packed = backend.pack_rows(weight, datatype, "outputs", bias=bias)
    exact = x @ reference.pack_rows(weight, datatype, "outputs").weight.numpy().T + bias
    for share in (0.0, 0.1, 0.9, 1.0):
        active = np.flatnonzero(np.random.default_rng(3).random(300) < share).astype(np.int32)
        some = backend.row_matmul(x, packed, outputs=active)
        assert some.shape == (rows, len(active))
        tolerance = 0.2 if rows > 8 and datatype != "fp32" else 1e-4  # many rows are a product in bf16
        np.testing.assert_allclose(some, exact[:, active], rtol=0, atol=tolerance)


@both_backends
def test_active_outputs_need_a_matrix_by_outputs(backend):
    x, weight, _ = arrays(1, 6, 4, 0)
    active = np.array([1, 3], np.int32)
    with pytest.raises(ValueError, match="outputs must be None unless the matrix is packed by outputs"):
        backend.row_matmul(x, backend.pack_rows(weight), outputs=active)
    packed = backend.pack_rows(weight, by="outputs")
    with pytest.raises(ValueError, match="outputs must be None where there is an activation or a residual"):
        backend.row_matmul(x, packed, outputs=active, activation="silu")
    with pytest.raises(ValueError, match="outputs must hold channels from 0 to 5"):
        backend.row_matmul(x, packed, outputs=np.array([6], np.int32))

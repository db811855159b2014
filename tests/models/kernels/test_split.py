"""Products in fp32 of many rows on the tile unit, which sees every number in three parts."""

import numpy as np
import pytest

from models import kernels
from tests.models.kernels.cases import Case

pytestmark = pytest.mark.skipif("amx" not in kernels.instruction_sets(), reason="this processor has no tile unit")

ROWS = 75  # 5 tiles, of which the last stands alone


def case(rows=ROWS, n_inputs=70, n_outputs=130, **changes):
    random = np.random.default_rng(rows + n_inputs + n_outputs)
    counts = [
        len(changes[name]) if changes.get(name) is not None else count for name, count in sizes(n_inputs, n_outputs)
    ]
    plain = {
        "x": random.standard_normal((rows, counts[0]), dtype=np.float32),
        "weight": random.standard_normal((n_outputs, n_inputs), dtype=np.float32),
        "stride": 1,
        "padding": 0,
        "inputs": None,
        "outputs": None,
        "scale": random.standard_normal(n_outputs, dtype=np.float32),
        "shift": random.standard_normal(n_outputs, dtype=np.float32),
        "saliency": random.standard_normal(counts[1], dtype=np.float32),
        "residual": random.standard_normal((rows, counts[1]), dtype=np.float32),
        "activation": "gelu",
    }
    return Case(**plain | changes)


def sizes(n_inputs, n_outputs):
    return ("inputs", n_inputs), ("outputs", n_outputs)


def chosen(count, of):
    return np.sort(np.random.default_rng(count).choice(of, count, replace=False)).astype(np.int32)


@pytest.mark.parametrize("rows", [72, 75, 128])
@pytest.mark.parametrize(
    ("n_inputs", "n_outputs"), [(1, 1), (31, 17), (33, 64), (64, 65), (384, 96), (385, 200), (800, 70)]
)
def test_every_size_is_the_reference(rows, n_inputs, n_outputs):
    case(rows, n_inputs, n_outputs).check("amx")


@pytest.mark.parametrize("n_inputs", [70, 900])
@pytest.mark.parametrize("inputs", [None, 1, 35, 69])
@pytest.mark.parametrize("outputs", [None, 1, 40, 129])
def test_active_channels_are_the_reference(n_inputs, inputs, outputs):
    lists = {
        "inputs": None if inputs is None else chosen(inputs * n_inputs // 70, n_inputs),
        "outputs": None if outputs is None else chosen(outputs, 130),
    }
    case(n_inputs=n_inputs, **lists).check("amx")


def test_whole_blocks_beside_parts_of_blocks_are_the_reference():
    outputs = np.array([*range(64), *range(70, 120, 3), *range(128, 192), 200], np.int32)
    case(n_outputs=256, outputs=outputs, inputs=chosen(33, 70)).check("amx")


@pytest.mark.parametrize("activation", ["none", "relu", "relu6", "silu"])
def test_every_activation_is_the_reference(activation):
    case(activation=activation).check("amx")


@pytest.mark.parametrize("rows", [72, 75, 128])
@pytest.mark.parametrize(
    ("n_inputs", "n_outputs"), [(1, 1), (31, 17), (33, 64), (64, 65), (384, 96), (385, 200), (800, 70)]
)
def test_parts_that_are_kept_are_those_that_a_call_makes(rows, n_inputs, n_outputs):
    random = np.random.default_rng(rows + n_inputs)
    x, weight = (random.standard_normal((size, n_inputs), dtype=np.float32) for size in (rows, n_outputs))
    made, kept = (kernels.pack_matrix(weight, "fp32", "amx", split=split) for split in (False, True))
    assert kept.nbytes >= 2.5 * made.nbytes
    lists = {
        "all": {},
        "some inputs": {"inputs": chosen((n_inputs + 1) // 2, n_inputs)},
        "some outputs": {"outputs": chosen((n_outputs + 1) // 2, n_outputs)},
        "whole blocks and others": {"outputs": np.delete(np.arange(n_outputs, dtype=np.int32), n_outputs // 4)},
    }
    for name, some in lists.items():
        given = np.ascontiguousarray(x[:, some["inputs"]]) if "inputs" in some else x
        for threads in (None, kernels.Threads(2)):
            one, other = (kernels.gated_matmul(given, packed, threads=threads, **some) for packed in (made, kept))
            np.testing.assert_array_equal(one, other, err_msg=name)


def test_vector_units_keep_no_parts():
    weight = np.ones((70, 64), np.float32)
    packed = [kernels.pack_matrix(weight, "fp32", "avx512", split=split) for split in (False, True)]
    assert packed[0].nbytes == packed[1].nbytes
    weight[3, 5] = np.inf
    assert kernels.pack_matrix(weight, "fp32", "amx", split=True).nbytes == packed[0].nbytes


def test_it_is_as_exact_as_the_vector_units():
    random = np.random.default_rng(0)
    weight, x = (random.standard_normal((size, 700), dtype=np.float32) for size in (200, 128))
    exact = x.astype(np.float64) @ weight.T.astype(np.float64)
    errors = {
        name: np.sqrt(np.mean((kernels.gated_matmul(x, kernels.pack_matrix(weight, "fp32", name)) - exact) ** 2))
        for name in ("amx", "avx512")
    }
    assert errors["amx"] < 1.2 * errors["avx512"]


def test_numbers_of_all_magnitudes_keep_their_digits():
    random = np.random.default_rng(0)
    scales = np.float32(2) ** random.integers(-40, 40, (96, 1)).astype(np.float32)
    x = random.standard_normal((96, 64), dtype=np.float32) * scales
    weight = random.standard_normal((64, 64), dtype=np.float32)
    y = kernels.gated_matmul(x, kernels.pack_matrix(weight, "fp32", "amx"))
    np.testing.assert_allclose(y / scales, (x / scales) @ weight.T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_activations_that_are_not_finite_are_what_the_vector_units_make_of_them(value):
    random = np.random.default_rng(0)
    x, weight = (random.standard_normal((size, 800), dtype=np.float32) for size in (ROWS, 70))
    x[40, 799] = value
    results = []
    for name in ("amx", "avx512"):
        out = random.standard_normal((ROWS, 70), dtype=np.float32)
        out[:] = 1.0
        kernels.gated_matmul(x, kernels.pack_matrix(weight, "fp32", name), residual=out, out=out)
        results.append(out)
    np.testing.assert_array_equal(*results)


def test_weights_that_are_not_finite_take_the_vector_units():
    weight = np.ones((70, 64), np.float32)
    weight[3, 5] = np.inf
    packed = kernels.pack_matrix(weight, "fp32", "amx")
    assert packed.instruction_set != "amx"
    y = kernels.gated_matmul(np.ones((ROWS, 64), np.float32), packed)
    assert np.all(np.isinf(y[:, 3]))
    assert np.all(np.delete(y, 3, axis=1) == 64)


def test_a_row_does_not_depend_on_its_neighbours():
    random = np.random.default_rng(0)
    x, weight = (random.standard_normal((size, 390), dtype=np.float32) for size in (80, 70))
    packed = kernels.pack_matrix(weight, "fp32", "amx")
    whole = kernels.gated_matmul(x, packed)
    x[1:] = random.standard_normal((79, 390), dtype=np.float32)
    np.testing.assert_array_equal(kernels.gated_matmul(x, packed)[0], whole[0])

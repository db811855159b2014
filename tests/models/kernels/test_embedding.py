"""Embeddings of tokens and products that are looked up, against the float64 reference, on every instruction set."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import kernels
from models.kernels import reference
from tests.models.kernels.cases import VECTOR_SETS

every_instruction_set = pytest.mark.parametrize("instruction_set", VECTOR_SETS)
both_backends = pytest.mark.parametrize("backend", [kernels, reference])


def rows_of(random, tokens, limit):
    return random.integers(0, limit, tokens).astype(np.int32)


def normal(random, *shape):
    return random.standard_normal(shape, dtype=np.float32)


def exact(*arrays):
    return [array.astype(np.float64) for array in arrays]


@every_instruction_set
@settings(max_examples=25, deadline=None)
@given(tokens=st.integers(0, 9), channels=st.integers(1, 200), seed=st.integers(0, 2**32 - 1))
def test_embeddings_are_those_of_the_reference(instruction_set, tokens, channels, seed):
    random = np.random.default_rng(seed)
    words, positions, norm = normal(random, 11, channels), normal(random, 7, channels), normal(random, 2, channels)
    ids, places = rows_of(random, tokens, 11), rows_of(random, tokens, 7)
    states, factors = kernels.embed(words, positions, ids, places, *norm, 1e-3, instruction_set=instruction_set)
    wanted, wanted_factors = reference.embed(*exact(words, positions), ids, places, *exact(*norm), 1e-3)
    assert states.dtype == factors.dtype == np.float32
    np.testing.assert_allclose(states, wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(factors, wanted_factors, rtol=1e-5)
    summed = kernels.layer_norm(words[ids] + positions[places], *norm, 1e-3, instruction_set=instruction_set)
    np.testing.assert_array_equal(states, summed)


@every_instruction_set
@pytest.mark.parametrize("datatype", ["fp32", "bf16"])
@settings(max_examples=25, deadline=None)
@given(tokens=st.integers(0, 9), width=st.integers(1, 200), seed=st.integers(0, 2**32 - 1))
def test_what_is_looked_up_is_the_references(instruction_set, datatype, tokens, width, seed):
    random = np.random.default_rng(seed)
    values, added, bias = normal(random, 11, width), normal(random, 7, width), normal(random, width)
    factors = normal(random, tokens)
    ids, places = rows_of(random, tokens, 11), rows_of(random, tokens, 7)
    tables = kernels.LookupTable(11, width, datatype), reference.LookupTable(11, width, datatype)
    for table in tables:
        table.fill(4, values[4:])
        table.fill(0, values[:4])
    y = kernels.look_up(tables[0], added, ids, places, factors, bias, instruction_set=instruction_set)
    wanted = reference.look_up(tables[1], *exact(added), ids, places, *exact(factors, bias))
    assert y.shape == (tokens, width)
    np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-5)


@both_backends
@pytest.mark.parametrize(("datatype", "bytes_of_one"), [("fp32", 4), ("bf16", 2)])
def test_a_table_begins_with_zeros_and_says_what_it_is(backend, datatype, bytes_of_one):
    table = backend.LookupTable(3, 5, datatype)
    assert (table.rows, table.width, table.datatype, table.nbytes) == (3, 5, datatype, 15 * bytes_of_one)
    one, zero = np.ones(1, np.float32), np.zeros(1, np.int32)
    y = backend.look_up(table, np.zeros((1, 5), np.float32), zero + 2, zero, one, np.arange(5, dtype=np.float32))
    assert y.tolist() == [[0, 1, 2, 3, 4]]


@pytest.mark.parametrize("datatype", ["fp32", "bf16"])
def test_what_is_not_finite_stays_so(datatype):
    values = np.array([[0x7FFFFFFF, 0xFFFFFFFF, 0x7F800000, 0xFF7FFFFF]], np.uint32).view(np.float32)
    table, zero = kernels.LookupTable(1, 4, datatype), np.zeros(1, np.int32)
    table.fill(0, values)
    (y,) = kernels.look_up(table, np.zeros_like(values), zero, zero, np.ones(1, np.float32), np.zeros(4, np.float32))
    wanted = [np.nan, np.nan, np.inf, -np.inf if datatype == "bf16" else values[0, 3]]
    np.testing.assert_array_equal(y, wanted)


WORDS, POSITIONS, VECTOR = np.zeros((4, 8), np.float32), np.zeros((6, 8), np.float32), np.zeros(8, np.float32)
IDS = np.array([0, 3], np.int32)
WRONG_ROWS = [
    ({"ids": IDS.astype(np.int64)}, TypeError, "ids must be int32"),
    ({"ids": IDS[None]}, ValueError, "ids must have 1 dimension, not 2"),
    ({"ids": IDS + 1}, ValueError, "ids must hold rows below 4"),
    ({"ids": IDS - 1}, ValueError, "ids must hold rows below 4"),
    ({"places": IDS[:1]}, ValueError, "places must have one value for each of the 2 tokens, not 1"),
    ({"places": IDS + 3}, ValueError, "places must hold rows below 6"),
]


@both_backends
@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        *WRONG_ROWS,
        ({"words": WORDS.tolist()}, TypeError, "words must be a float32 array, not list"),
        ({"words": WORDS[:, :0].copy()}, ValueError, "words must have at least one channel"),
        ({"positions": POSITIONS[:, :7].copy()}, ValueError, "positions must have 8 channels, not 7"),
        ({"weight": VECTOR[:7].copy()}, ValueError, "weight must have one value for each of the 8 channels, not 7"),
        ({"bias": VECTOR[:7].copy()}, ValueError, "bias must have one value for each of the 8 channels, not 7"),
        ({"epsilon": np.nan}, ValueError, "epsilon must be a number and not negative"),
        ({"instruction_set": "mmx"}, ValueError, "instruction_set must be one that this processor has"),
    ],
)
def test_wrong_arguments_of_an_embedding_are_named(backend, wrong, error, message):
    given = {"words": WORDS, "positions": POSITIONS, "ids": IDS, "places": IDS, "weight": VECTOR, "bias": VECTOR}
    with pytest.raises(error, match=message):
        backend.embed(**given | {"epsilon": 1e-6} | wrong)


@both_backends
@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        *WRONG_ROWS,
        ({"added": POSITIONS[:, :7].copy()}, ValueError, "added must have 8 channels, not 7"),
        ({"factors": VECTOR}, ValueError, r"factors must have the shape \[2\], not \[8\]"),
        ({"bias": VECTOR[:7].copy()}, ValueError, "bias must have one value for each of the 8 channels, not 7"),
        ({"instruction_set": "mmx"}, ValueError, "instruction_set must be one that this processor has"),
    ],
)
def test_wrong_arguments_of_a_look_up_are_named(backend, wrong, error, message):
    given = {"added": POSITIONS, "ids": IDS, "places": IDS, "factors": VECTOR[:2], "bias": VECTOR}
    with pytest.raises(error, match=message):
        backend.look_up(backend.LookupTable(4, 8), **given | wrong)


@both_backends
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rows": 2**24 + 1}, r"rows must be at most 2\^24"),
        ({"width": 0}, r"width must be from 1 to 2\^24"),
        ({"datatype": "int8"}, "datatype must be fp32 or bf16, not 'int8'"),
        ({"datatype": "fp16"}, "datatype must be fp32, bf16 or int8, not 'fp16'"),
    ],
)
def test_wrong_tables_are_named(backend, wrong, message):
    with pytest.raises(ValueError, match=message):
        backend.LookupTable(**{"rows": 4, "width": 8} | wrong)


@both_backends
@pytest.mark.parametrize(
    ("first", "values", "message"),
    [
        (1, WORDS, "values must end at row 4 of the table at most"),
        (0, WORDS[:, :7].copy(), "values must have 8 channels, not 7"),
        (0, VECTOR, "values must have 2 dimensions, not 1"),
    ],
)
def test_wrong_rows_of_a_table_are_named(backend, first, values, message):
    with pytest.raises(ValueError, match=message):
        backend.LookupTable(4, 8).fill(first, values)

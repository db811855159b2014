"""Attention against the float64 reference, on every instruction set of this machine."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import kernels
from models.kernels import reference

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1

every_instruction_set = pytest.mark.parametrize("instruction_set", kernels.instruction_sets())
every_datatype = pytest.mark.parametrize("datatype", ["fp32", "bf16"])
both_backends = pytest.mark.parametrize("backend", [kernels, reference])

# On both sides of a tile, a block of queries of either way, and one and two blocks of keys.
SIZES = [47, 48, 49, 59, 60, 61, 63, 64, 65, 120, 121, 127, 128, 129, 200, 300]
LENGTHS = st.one_of(st.integers(1, 20), st.sampled_from(SIZES))


def normal(random, *shape):
    return random.standard_normal(shape, dtype=np.float32)


def exact(*arrays):
    return [array.astype(np.float64) for array in arrays]


@every_instruction_set
@settings(max_examples=30, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_attention_is_the_reference(instruction_set, data, seed):
    random = np.random.default_rng(seed)
    head_size = data.draw(st.sampled_from([1, 8, 20, 32, 64, 72, 128]))
    causal = data.draw(st.booleans())
    keys = data.draw(LENGTHS)
    queries = data.draw(st.integers(0, min(keys, 10)) | st.just(keys)) if causal else data.draw(LENGTHS)
    key_heads = data.draw(st.integers(1, 3))
    read = None
    heads = key_heads * data.draw(st.integers(0, 3))
    if data.draw(st.booleans()):
        heads = data.draw(st.integers(1, 5))
        read = random.integers(0, key_heads, heads, dtype=np.int32)
    q = normal(random, queries, heads * head_size)
    value_size = data.draw(st.sampled_from([head_size, 1, 12, 32, 80]))
    k, v = normal(random, keys, key_heads * head_size), normal(random, keys, key_heads * value_size)
    shape = data.draw(st.sampled_from([None, (keys,), (heads, queries, keys)]))
    bias = None if shape is None else normal(random, *shape)
    scale = data.draw(st.sampled_from([None, 0.3, 2.0]))
    options = {"key_heads": read, "causal": causal, "scale": scale}
    y = kernels.attention(q, k, v, head_size, bias=bias, instruction_set=instruction_set, **options)
    expected = reference.attention(
        *exact(q, k, v), head_size, bias=None if bias is None else bias.astype(np.float64), **options
    )
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, expected, rtol=1e-3, atol=2e-5 * (scale or 1) * head_size**0.5 + 1e-5)


@every_instruction_set
@pytest.mark.parametrize("together", [1, 2, 3, 8, 48, 49])
@pytest.mark.parametrize("keys", [1, 127, 300])
def test_heads_of_one_query_read_the_same_keys_together(instruction_set, together, keys):
    random = np.random.default_rng(together)
    q, k, v = normal(random, 1, 2 * together * 24), normal(random, keys, 2 * 24), normal(random, keys, 2 * 20)
    bias = normal(random, 2 * together, 1, keys)
    y = kernels.attention(q, k, v, 24, bias=bias, causal=True, instruction_set=instruction_set)
    expected = reference.attention(*exact(q, k, v), 24, bias=bias.astype(np.float64), causal=True)
    np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-4)
    threads = kernels.Threads(2)
    shared = kernels.attention(q, k, v, 24, bias=bias, causal=True, instruction_set=instruction_set, threads=threads)
    np.testing.assert_array_equal(shared, y)


@every_instruction_set
@pytest.mark.parametrize(("queries", "keys", "causal"), [(17, 130, False), (200, 333, False), (150, 150, True)])
def test_attention_in_parts_is_as_exact_as_float32(instruction_set, queries, keys, causal):
    random = np.random.default_rng(5)
    q, k, v = normal(random, queries, 3 * 64), normal(random, keys, 3 * 64), normal(random, keys, 3 * 64)
    y = kernels.attention(q, k, v, 64, causal=causal, instruction_set=instruction_set)
    expected = reference.attention(*exact(q, k, v), 64, causal=causal)
    terms = reference.attention(*exact(q, k, np.abs(v)), 64, causal=causal)
    assert (np.abs(y - expected) <= 2e-6 * terms).all()


@every_datatype
@every_instruction_set
@pytest.mark.parametrize("which", [0, 1, 2])
def test_what_is_not_a_number_makes_none(instruction_set, datatype, which):
    arrays = [normal(np.random.default_rng(6), 40, 32) for _ in range(3)]
    arrays[which][7, 5] = np.nan
    y = kernels.attention(*arrays, 32, datatype=datatype, instruction_set=instruction_set)
    expected = [np.arange(40) == 7, np.full(40, True), np.full(40, True)][which]
    np.testing.assert_array_equal(np.isnan(y).any(1), expected)


@every_datatype
@every_instruction_set
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_a_key_that_is_not_a_number_is_one_of_its_own_head(instruction_set, datatype, value):
    q, k, v = normal(np.random.default_rng(6), 3, 40, 3 * 32)
    options = {"datatype": datatype, "instruction_set": instruction_set}
    finite = kernels.attention(q, k, v, 32, **options)
    k[7, 40] = value
    y = kernels.attention(q, k, v, 32, **options)
    others = np.r_[:32, 64:96]
    np.testing.assert_allclose(y[:, others], finite[:, others], atol=1e-5 if datatype == "fp32" else 0.05)
    np.testing.assert_array_equal(np.isnan(y[:, 32:64]).any(1), ~(q[:, 40] * value == -np.inf))


@pytest.mark.skipif("amx" not in kernels.instruction_sets(), reason="there is no tile unit")
@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_what_has_no_parts_is_left_to_the_vector_units(which, value):
    arrays = [normal(np.random.default_rng(6), 40, 64) for _ in range(3)]
    arrays[which][7, 5] = value
    y, expected = (kernels.attention(*arrays, 32, instruction_set=name) for name in ("amx", "avx512"))
    np.testing.assert_array_equal(y, expected)


@every_datatype
@every_instruction_set
def test_scores_that_grow_from_block_to_block_of_keys_are_followed(instruction_set, datatype):
    random = np.random.default_rng(7)
    q = np.abs(normal(random, 40, 64))
    k = np.linspace(-9, 9, 400, dtype=np.float32)[:, None] * np.ones(64, np.float32)
    v = normal(random, 400, 64)
    y = kernels.attention(q, k, v, 64, datatype=datatype, instruction_set=instruction_set)
    expected = reference.attention(*exact(q, k, v), 64)
    np.testing.assert_allclose(y, expected, atol=1e-4 if datatype == "fp32" else 0.1)


@every_datatype
@every_instruction_set
@pytest.mark.parametrize("causal", [False, True])
def test_a_query_does_not_depend_on_how_many_others_there_are(instruction_set, datatype, causal):
    random = np.random.default_rng(8)
    q, k, v = normal(random, 3, 170, 2 * 32)
    options = {"causal": causal, "datatype": datatype, "instruction_set": instruction_set}
    whole = kernels.attention(q, k, v, 32, **options)
    for count in (17, 47, 101):
        y = kernels.attention(q[-count:], k, v, 32, **options)
        np.testing.assert_array_equal(y, whole[-count:])


@every_instruction_set
@settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_rounded_attention_is_off_by_no_more_than_its_rounding(instruction_set, data, seed):
    random = np.random.default_rng(seed)
    head_size = data.draw(st.sampled_from([1, 8, 16, 20, 32, 48, 64, 72, 128]))
    causal = data.draw(st.booleans())
    keys = data.draw(LENGTHS)
    queries = data.draw(st.integers(0, min(keys, 40)) | st.just(keys)) if causal else data.draw(LENGTHS)
    key_heads = data.draw(st.integers(1, 3))
    heads = key_heads * data.draw(st.integers(0, 2))
    read = random.integers(0, key_heads, heads, dtype=np.int32) if data.draw(st.booleans()) else None
    q = normal(random, queries, heads * head_size)
    value_size = data.draw(st.sampled_from([head_size, 1, 12, 32, 80]))
    k, v = normal(random, keys, key_heads * head_size), normal(random, keys, key_heads * value_size)
    shape = data.draw(st.sampled_from([None, (keys,), (heads, queries, keys)]))
    bias = None if shape is None else normal(random, *shape)
    scale = data.draw(st.sampled_from([head_size**-0.5, 0.3, -0.3]))
    options = {"key_heads": read, "causal": causal, "scale": scale}
    y = kernels.attention(q, k, v, head_size, bias=bias, datatype="bf16", instruction_set=instruction_set, **options)
    options["bias"] = None if bias is None else bias.astype(np.float64)
    expected = reference.attention(*exact(q, k, v), head_size, **options)
    # Both factors of a score are off by 2^-9 of themselves, which is a factor of e^error on each power and on their
    # sum; a power and a value once more.
    scores = abs(scale) * np.abs(q).reshape(queries, heads, head_size).max((0, 1, 2), initial=0)
    error = 2**-8 * scores * np.abs(k).reshape(-1, head_size).sum(1).max()
    terms = reference.attention(*exact(q, k, np.abs(v)), head_size, **options)
    assert (np.abs(y - expected) <= (np.expm1(2 * error) + 1.1 * 2**-8) * terms + 1e-5).all()


def test_the_reference_is_torch():
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(0)
    q, k, v = (random.standard_normal((7, heads * 8)) for heads in (6, 2, 2))
    bias = random.standard_normal((6, 7, 7))
    heads = [torch.from_numpy(array).reshape(7, -1, 8).transpose(0, 1) for array in (q, k, v)]
    own = torch.nn.functional.scaled_dot_product_attention(*heads, attn_mask=torch.from_numpy(bias), enable_gqa=True)
    np.testing.assert_allclose(
        reference.attention(q, k, v, 8, bias=bias), own.transpose(0, 1).reshape(7, -1), rtol=1e-9
    )
    own = torch.nn.functional.scaled_dot_product_attention(*heads, is_causal=True, enable_gqa=True)
    np.testing.assert_allclose(
        reference.attention(q, k, v, 8, causal=True), own.transpose(0, 1).reshape(7, -1), rtol=1e-9
    )


@every_datatype
@every_instruction_set
@pytest.mark.parametrize("rows", [1, 5])
def test_slices_of_one_activation_are_taken_as_they_are(instruction_set, rows, datatype):
    qkv = normal(np.random.default_rng(1), 70, 3 * 4 * 32)
    q, k, v = qkv[70 - rows :, :128], qkv[:, 128:256], qkv[:, 256:]
    options = {"causal": True, "datatype": datatype, "instruction_set": instruction_set}
    y = kernels.attention(q, k, v, 32, **options)
    apart = kernels.attention(q.copy(), k.copy(), v.copy(), 32, **options)
    np.testing.assert_array_equal(y, apart)


@every_datatype
@every_instruction_set
def test_a_head_does_not_depend_on_which_others_are_active(instruction_set, datatype):
    random = np.random.default_rng(2)
    q, k, v = normal(random, 3, 50, 6 * 32)
    options = {"datatype": datatype, "instruction_set": instruction_set}
    dense = kernels.attention(q, k, v, 32, **options)
    columns = np.concatenate([np.arange(head * 32, head * 32 + 32) for head in (1, 4, 5)])
    compact = [np.ascontiguousarray(array[:, columns]) for array in (q, k, v)]
    y = kernels.attention(*compact, 32, **options)
    np.testing.assert_array_equal(y, dense[:, columns])


@every_instruction_set
def test_one_query_at_a_time_over_a_cache_is_the_causal_whole(instruction_set):
    random = np.random.default_rng(3)
    q, k, v = normal(random, 150, 9 * 64), *normal(random, 2, 150, 3 * 64)
    whole = kernels.attention(q, k, v, 64, causal=True, instruction_set=instruction_set)
    for last in (1, 2, 64, 65, 128, 129, 150):
        y = kernels.attention(q[last - 1 : last], k[:last], v[:last], 64, instruction_set=instruction_set)
        np.testing.assert_allclose(y[0], whole[last - 1], rtol=1e-4, atol=1e-5)


@every_datatype
@every_instruction_set
def test_hidden_keys_count_for_nothing(instruction_set, datatype):
    random = np.random.default_rng(4)
    q, k, v = normal(random, 3, 200, 32)
    bias = np.zeros((1, 200, 200), np.float32)
    bias[..., :150] = -np.inf  # a whole block of keys, and a part of the next
    options = {"datatype": datatype, "instruction_set": instruction_set}
    y = kernels.attention(q, k, v, 32, bias=bias, **options)
    # Powers are rounded relative to the largest, which is the same of both.
    np.testing.assert_allclose(y, kernels.attention(q, k[150:], v[150:], 32, **options), rtol=1e-4, atol=1e-5)


@every_datatype
@every_instruction_set
@pytest.mark.parametrize("of_one", [True, False])
def test_a_bias_that_is_no_number_makes_none(instruction_set, datatype, of_one):
    q, k, v = normal(np.random.default_rng(7), 3, 40, 2 * 32)
    bias = np.zeros(40 if of_one else (2, 40, 40), np.float32)
    bias[..., 7] = np.nan
    y = kernels.attention(q, k, v, 32, bias=bias, datatype=datatype, instruction_set=instruction_set)
    assert np.isnan(y).all()


@every_datatype
@every_instruction_set
@pytest.mark.parametrize("of_one", [True, False])
@pytest.mark.parametrize("lowest", [np.finfo(np.float32).min, -2e38, -1e36])
def test_keys_that_all_have_the_lowest_bias_count_alike(instruction_set, datatype, of_one, lowest):
    q, k, v = normal(np.random.default_rng(8), 3, 40, 2 * 32)
    bias = np.full(40 if of_one else (2, 40, 40), lowest, np.float32)
    y = kernels.attention(q, k, v, 32, bias=bias, datatype=datatype, instruction_set=instruction_set)
    np.testing.assert_allclose(y, np.tile(v.mean(0), (40, 1)), atol=2e-2 if datatype == "bf16" else 1e-5)


@pytest.mark.skipif(not kernels.instruction_sets("bf16") or CORES < 3, reason="two threads share four queries evenly")
def test_a_part_of_one_query_sees_no_later_key():
    q, k, v = (normal(np.random.default_rng(9), n, 64) for n in (4, 9000, 9000))
    options = {"causal": True, "datatype": "bf16"}
    y = kernels.attention(q, k, v, 64, threads=kernels.Threads(3), **options)
    np.testing.assert_array_equal(y, kernels.attention(q, k, v, 64, **options))


@every_instruction_set
def test_a_key_that_counts_twice_is_one_that_is_there_twice(instruction_set):
    random = np.random.default_rng(6)
    q, k, v = normal(random, 3, 40, 64)
    counts = random.integers(1, 4, 40)
    twice = [np.repeat(array, counts, axis=0) for array in (k, v)]
    y = kernels.attention(q, k, v, 32, bias=np.log(counts).astype(np.float32), instruction_set=instruction_set)
    np.testing.assert_allclose(
        y, kernels.attention(q, *twice, 32, instruction_set=instruction_set), rtol=1e-4, atol=1e-5
    )


@every_instruction_set
def test_large_scores_do_not_overflow(instruction_set):
    random = np.random.default_rng(5)
    q, k, v = normal(random, 3, 40, 64)
    y = kernels.attention(q * 100, k * 100, v, 64, instruction_set=instruction_set)
    np.testing.assert_allclose(y, reference.attention(*exact(q * 100, k * 100, v), 64), rtol=1e-2, atol=2e-2)


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux's account of memory")
def test_nothing_of_the_size_of_all_scores_is_allocated():
    q = np.zeros((4096, 32), np.float32)
    before = resident()
    kernels.attention(q, q, q, 32)
    assert resident() - before < 4096 * 4096  # a quarter of what they would take


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


Q, K = np.zeros((5, 48), np.float32), np.zeros((6, 24), np.float32)


@both_backends
@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"q": Q[0]}, ValueError, "q must have 2 dimensions, not 1"),
        ({"q": Q.astype(np.float16)}, TypeError, "q must be float32, not float16"),
        ({"k": None}, TypeError, "k must be a float32 array, not NoneType"),
        ({"head_size": 0}, ValueError, "head_size must be at least 1"),
        ({"head_size": 9}, ValueError, "q must have whole heads of 9 columns, not 48 columns"),
        ({"head_size": 16}, ValueError, "k must have whole heads of 16 columns, not 24 columns"),
        ({"v": K[:5].copy()}, ValueError, "v must have as many rows as k"),
        ({"v": K[:, :23].copy()}, ValueError, "v must have the 3 heads of k"),
        ({"v": K[:, :0].copy()}, ValueError, "v must have the 3 heads of k"),
        ({"k": K[:0], "v": K[:0]}, ValueError, "k must have at least one row"),
        ({"k": K[:4], "v": K[:4], "causal": True}, ValueError, "k must have at least as many rows as q"),
        ({"scale": np.nan}, ValueError, "scale must be a number"),
        ({"q": Q[:, :32].copy()}, ValueError, "q must have a multiple of the 3 heads of k, not 4"),
        ({"key_heads": np.zeros(5, np.int32)}, ValueError, r"key_heads must have the shape \[6\], not \[5\]"),
        ({"key_heads": np.full(6, 3, np.int32)}, ValueError, "key_heads must hold heads from 0 to 2"),
        ({"key_heads": np.full(6, -1, np.int32)}, ValueError, "key_heads must hold heads from 0 to 2"),
        ({"key_heads": np.zeros(6, np.int64)}, TypeError, "key_heads must be int32"),
        ({"bias": np.zeros((6, 5, 5), np.float32)}, ValueError, "bias must have the shape"),
        ({"bias": np.zeros(5, np.float32)}, ValueError, r"bias must have the shape \[6\], not \[5\]"),
        ({"out": np.zeros((5, 24), np.float32)}, ValueError, "out must have the shape"),
        ({"datatype": "fp16"}, ValueError, "datatype must be fp32, bf16 or int8, not 'fp16'"),
        ({"instruction_set": "mmx"}, ValueError, "instruction_set must be one that this processor has"),
    ],
)
def test_wrong_arguments_are_named(backend, wrong, error, message):
    with pytest.raises(error, match=message):
        backend.attention(**{"q": Q, "k": K, "v": K, "head_size": 8} | wrong)


@pytest.mark.skipif(kernels.BACKEND != "native", reason="the reference copies what it is given")
def test_layouts_that_are_refused():
    with pytest.raises(ValueError, match="q must have contiguous rows that do not overlap"):
        kernels.attention(Q[::-1], K, K, 8)
    with pytest.raises(ValueError, match="k must have contiguous rows that do not overlap"):
        kernels.attention(Q, np.zeros((24, 6), np.float32).T, K, 8)
    row = np.zeros(100, np.float32)
    overlapping = np.lib.stride_tricks.as_strided(row, (6, 24), (8, 4))
    with pytest.raises(ValueError, match="v must have contiguous rows that do not overlap"):
        kernels.attention(Q, K, overlapping, 8)
    both = np.zeros((6, 144), np.float32)
    with pytest.raises(ValueError, match="out must not overlap k"):
        kernels.attention(
            Q,
            both[:5, :48],
            np.zeros((5, 48), np.float32),
            8,
            out=both.reshape(-1)[144 * 2 : 144 * 2 + 240].reshape(5, 48),
        )

"""Threads that share a call: the result is that of one thread to the bit, and what is skipped is no part of a share."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from models import kernels

PROCESSORS = len(os.sched_getaffinity(0))
THREADS = min(PROCESSORS, 3)

several = pytest.mark.skipif(PROCESSORS < 2, reason="this process may use one processor")


@pytest.fixture(scope="module")
def threads():
    return kernels.Threads(THREADS)


def chosen(random, count, share):
    return None if share == 1 else np.flatnonzero(random.random(count) < share).astype(np.int32)


@several
@settings(max_examples=60, deadline=None)
@given(
    datatype=st.sampled_from(["fp32", "bf16", "int8"]),
    rows=st.sampled_from([1, 3, 16, 40, 100]),
    inputs=st.integers(1, 300),
    outputs=st.integers(1, 600),
    shares=st.tuples(st.sampled_from([0.0, 0.3, 1.0]), st.sampled_from([0.0, 0.1, 0.5, 1.0])),
    rest=st.sampled_from(["none", "relu", "gelu"]),
    seed=st.integers(0, 1000),
)
@example("bf16", 40, 49, 17, (0.3, 0.5), "none", 0)  # fewer outputs alone would have their inputs packed
def test_products_are_those_of_one_thread(threads, datatype, rows, inputs, outputs, shares, rest, seed):
    random = np.random.default_rng(seed)
    packed = kernels.pack_matrix(random.standard_normal((outputs, inputs), dtype=np.float32), datatype)
    read, kept = chosen(random, inputs, shares[0]), chosen(random, outputs, shares[1])
    width = outputs if kept is None else len(kept)
    x = random.standard_normal((rows, inputs if read is None else len(read)), dtype=np.float32)
    given = {
        "inputs": read,
        "outputs": kept,
        "scale": random.random(outputs, dtype=np.float32),
        "shift": random.random(outputs, dtype=np.float32),
        "saliency": random.random(width, dtype=np.float32),
        "residual": random.random((rows, width), dtype=np.float32),
        "activation": rest,
    }
    alone = kernels.gated_matmul(x, packed, **given)
    np.testing.assert_array_equal(kernels.gated_matmul(x, packed, threads=threads, **given), alone)


@several
@pytest.mark.parametrize("datatype", ["fp32", "bf16"])
@pytest.mark.parametrize("instruction_set", kernels.instruction_sets())
@pytest.mark.parametrize(
    ("heads", "queries", "keys", "causal", "bias"),
    [(5, 101, 300, False, None), (2, 333, 333, True, None), (3, 150, 200, False, 1), (3, 150, 200, False, 3)],
)
def test_attention_is_that_of_one_thread(threads, datatype, instruction_set, heads, queries, keys, causal, bias):
    random = np.random.default_rng(heads)
    q, k, v = (random.standard_normal((rows, heads * 64), dtype=np.float32) for rows in (queries, keys, keys))
    k[3, 70] = np.inf if bias == 3 else 0.0  # of one head: no thread goes another way for it
    given = {"causal": causal, "datatype": datatype, "instruction_set": instruction_set}
    if bias:
        given["bias"] = random.standard_normal((heads, queries, keys)[3 - bias :], dtype=np.float32)
    alone = kernels.attention(q, k, v, 64, **given)
    np.testing.assert_array_equal(kernels.attention(q, k, v, 64, threads=threads, **given), alone)


@several
@settings(max_examples=30, deadline=None)
@given(
    datatype=st.sampled_from(["fp32", "bf16"]),
    size=st.integers(3, 14),
    channels=st.tuples(st.integers(1, 70), st.integers(1, 300)),
    share=st.sampled_from([0.2, 0.6, 1.0]),
    seed=st.integers(0, 1000),
)
def test_convolutions_are_those_of_one_thread(threads, datatype, size, channels, share, seed):
    random, (inputs, outputs) = np.random.default_rng(seed), channels
    weight = random.standard_normal((outputs, inputs, 3, 3), dtype=np.float32)
    packed = kernels.pack_convolution(weight, padding=1, datatype=datatype)
    x = random.standard_normal((size, size, inputs), dtype=np.float32)
    given = {"outputs": chosen(random, outputs, share), "activation": "relu"}
    alone = kernels.gated_conv2d(x, packed, **given)
    np.testing.assert_array_equal(kernels.gated_conv2d(x, packed, threads=threads, **given), alone)


@several
def test_a_call_that_finds_them_taken_does_its_work_alone(threads):
    random = np.random.default_rng(0)
    packed = kernels.pack_matrix(random.standard_normal((512, 256), dtype=np.float32))
    x = random.standard_normal((64, 256), dtype=np.float32)
    alone = kernels.gated_matmul(x, packed)
    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(lambda _: kernels.gated_matmul(x, packed, threads=threads), range(200)):
            np.testing.assert_array_equal(result, alone)


@several
def test_shares_are_even_in_what_is_active():
    threads = kernels.Threads(2)
    dense = np.arange(384, dtype=np.int32)
    assert threads.shares(dense) == [192, 192]
    few = np.flatnonzero(np.arange(1536) % 64 < 5).astype(np.int32)
    assert threads.shares(few) == [60, 60]
    # Most of the active ones are among the first: those are shared out, not the blocks that there are.
    uneven = np.concatenate([np.arange(512), np.arange(512, 1536, 64)]).astype(np.int32)
    first, second = threads.shares(uneven)
    assert first + second == len(uneven)
    assert abs(first - second) <= 64
    assert threads.shares(np.arange(20, dtype=np.int32)) in ([16, 4], [20])
    assert threads.shares(np.empty(0, np.int32)) == []


def test_there_are_no_more_than_processors():
    assert kernels.Threads(1).count == 1
    for count in (0, PROCESSORS + 1):
        with pytest.raises(ValueError, match="count must be 1 to"):
            kernels.Threads(count)

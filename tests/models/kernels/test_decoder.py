"""A step of a decoder against the reference, on every instruction set of this machine."""

import numpy as np
import pytest

from models import kernels
from models.kernels import reference

HIDDEN, HEADS, KEY_HEADS, HEAD_SIZE, NEURONS, VOCABULARY, LAYERS, CAPACITY = 40, 4, 2, 8, 90, 77, 2, 12
GATES = 6 * LAYERS + 1
every_instruction_set = pytest.mark.parametrize("instruction_set", kernels.instruction_sets())


def made(backend, seed=0, datatype="fp32", extras=True, window=0, margin=None, turned=False, coarse=False, **packing):
    """A decoder with random weights, means and norms."""
    random = np.random.default_rng(seed)

    def floats(*shape, scale=1.0):
        return (random.standard_normal(shape) * scale).astype(np.float32)

    def matrix(outputs, inputs, by="inputs"):
        weight, bias = floats(outputs, inputs, scale=1.2 * inputs**-0.5), floats(outputs, scale=0.2)
        means = floats(inputs, scale=0.1)
        packed = backend.pack_rows(weight, datatype, by, bias=bias if extras else None, **packing)
        if coarse and outputs != VOCABULARY:
            packed = packed.with_coarse(backend.pack_coarse(weight))
        return packed.with_means(means) if extras else packed

    def norm(size):
        return random.uniform(0.5, 1.5, size).astype(np.float32)

    layers = [
        backend.decoder_layer(
            attention_norm=norm(HIDDEN),
            qkv=matrix((HEADS + 2 * KEY_HEADS) * HEAD_SIZE, HIDDEN),
            query_norm=norm(HEAD_SIZE) if extras else None,
            key_norm=norm(HEAD_SIZE) if extras else None,
            output=matrix(HIDDEN, HEADS * HEAD_SIZE),
            norm=norm(HIDDEN),
            gate=matrix(NEURONS, HIDDEN),
            up=matrix(NEURONS, HIDDEN, "outputs"),
            down=matrix(HIDDEN, NEURONS),
            neuron_norms=norm(NEURONS),
            care=floats(HIDDEN, scale=0.1) if extras else None,
            window=window,
        )
        for _ in range(LAYERS)
    ]
    shape = {"heads": HEADS, "key_heads": KEY_HEADS, "head_size": HEAD_SIZE, "epsilon": 1e-5}
    if margin is not None:
        head, bias = floats(VOCABULARY, HIDDEN, scale=HIDDEN**-0.5), floats(VOCABULARY, scale=0.2)
        both = {by: backend.pack_rows(head, datatype, by, bias=bias, **packing) for by in ("inputs", "outputs")}
        turn = np.linalg.qr(floats(HIDDEN, HIDDEN))[0].astype(np.float32) if turned else None
        if turn is not None:
            both["inputs"] = backend.pack_rows(head @ turn, datatype, bias=bias, **packing)
            turn = backend.pack_rows(np.ascontiguousarray(turn.T), "fp32", "outputs", **packing)
        last = {"words": both["outputs"], "margin": margin, "turn": turn}
        return backend.decoder(layers, norm(HIDDEN), both["inputs"], **shape, **last)
    return backend.decoder(layers, norm(HIDDEN), matrix(VOCABULARY, HIDDEN), **shape)


def inputs(rows, level, seed=1, capacity=CAPACITY):
    random = np.random.default_rng(seed)
    x = random.standard_normal((rows, HIDDEN)).astype(np.float32)
    caches = [
        random.standard_normal((LAYERS, 2, capacity, KEY_HEADS * HEAD_SIZE)).astype(np.float32) for _ in range(rows)
    ]
    far_shares = [np.full((LAYERS, KEY_HEADS), np.inf, np.float32) for _ in range(rows)]
    lengths = [(5 * i) % (CAPACITY - 1) for i in range(rows)]
    angles = random.random((rows, HEAD_SIZE // 2)).astype(np.float32)
    thresholds = random.uniform(level, 2 * level, (rows, GATES)).astype(np.float32)
    active = np.empty((rows, GATES + 1), np.int32)
    return [x, caches, far_shares, lengths, np.cos(angles), np.sin(angles), thresholds, active]


def step(backend, decoder, arguments):
    """The logits, last hidden states and active counts; the caches are written."""
    logits = backend.decode_step(decoder, *arguments)
    return logits, arguments[0], arguments[-1]


@every_instruction_set
@pytest.mark.parametrize("extras", [True, False])
@pytest.mark.parametrize(("rows", "level"), [(1, 0.0), (1, 0.3), (3, 0.0), (3, 0.3), (11, 0.5)])
def test_a_step_is_the_references(instruction_set, rows, level, extras):
    ours, exact = inputs(rows, level), inputs(rows, level)
    logits, states, active = step(kernels, made(kernels, extras=extras, instruction_set=instruction_set), ours)
    wanted, wanted_states, wanted_active = step(reference, made(reference, extras=extras), exact)
    np.testing.assert_array_equal(active, wanted_active)
    np.testing.assert_allclose(logits, wanted, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(states, wanted_states, rtol=1e-3, atol=1e-4)
    for cache, wanted_cache in zip(ours[1], exact[1], strict=True):
        np.testing.assert_allclose(cache, wanted_cache, rtol=1e-3, atol=1e-4)
    assert (active[:, -1] == 0).all()
    channels = [HIDDEN, KEY_HEADS, HEADS * HEAD_SIZE, HIDDEN, NEURONS, NEURONS] * LAYERS + [HIDDEN]
    fewer = active[:, :-1].mean(0) < channels
    assert fewer[np.array(channels) != KEY_HEADS].all() == (level > 0)


@every_instruction_set
@pytest.mark.parametrize("extras", [True, False])
@pytest.mark.parametrize(("rows", "level"), [(1, 0.0), (1, 0.9), (3, 0.9), (11, 0.9), (11, 3.0)])
def test_what_is_inactive_is_read_coarsely(instruction_set, rows, level, extras):
    ours, exact, skipped = (inputs(rows, level) for _ in range(3))
    for arguments in (ours, exact, skipped):
        arguments[6][1::3] = 0  # of several rows some are dense
        arguments[6][:, -1] = 0
        arguments[6][2::3] /= 3  # and some have so many active channels at some gates that they are dense there
    decoder = made(kernels, extras=extras, coarse=True, instruction_set=instruction_set)
    logits, _, active = step(kernels, decoder, ours)
    wanted, _, wanted_active = step(reference, made(reference, extras=extras, coarse=True), exact)
    # Products in bf16 may move a saliency over a threshold that is near.
    same = (active == wanted_active).all(1)
    assert same.mean() > 0.8
    np.testing.assert_allclose(logits[same], wanted[same], rtol=2e-2, atol=5e-2)
    shares = active[:, : 6 * LAYERS] / ([HIDDEN, KEY_HEADS, HEADS * HEAD_SIZE, HIDDEN, NEURONS, NEURONS] * LAYERS)
    assert ((shares == 1) | (shares <= kernels.SHARE_BESIDE_COARSE)).all()
    assert (shares[::3] < 1).any() == (level > 0)
    for r in range(rows):
        alone = [[part[r]] if isinstance(part, list) else part[r : r + 1].copy() for part in inputs(rows, level)]
        alone[6] = ours[6][r : r + 1].copy()
        own, _, own_active = step(kernels, decoder, alone)
        np.testing.assert_array_equal(own[0], logits[r])
        np.testing.assert_array_equal(own_active[0], active[r])
    if level:
        without, _, _ = step(kernels, made(kernels, extras=extras, instruction_set=instruction_set), skipped)
        dense = inputs(rows, 0.0)
        whole, _, _ = step(kernels, decoder, dense)
        assert np.linalg.norm((logits - whole)[::3]) < 0.5 * np.linalg.norm((without - whole)[::3])


@every_instruction_set
@pytest.mark.parametrize(("datatype", "turned"), [("fp32", False), ("fp32", True), ("int8", False)])
@pytest.mark.parametrize("rows", [1, 3, 11])
def test_likely_logits_are_computed_again(instruction_set, datatype, rows, turned):
    ours, exact, whole = inputs(rows, 0.3), inputs(rows, 0.3), inputs(rows, 0.3)
    gated = slice(max(1, rows - 1))  # of several rows the last one's head is dense
    for arguments in (ours, exact, whole):
        arguments[6][gated.stop :, -1] = 0
        arguments[6][:, :-1] = 0
    logits, _, active = step(
        kernels, made(kernels, datatype=datatype, margin=1, turned=turned, instruction_set=instruction_set), ours
    )
    wanted, _, wanted_active = step(reference, made(reference, datatype=datatype, margin=1, turned=turned), exact)
    np.testing.assert_array_equal(active, wanted_active)
    np.testing.assert_allclose(logits, wanted, rtol=2e-3, atol=2e-3)
    assert (active[gated.stop :, -1] == 0).all()
    assert ((active[gated, -1] > 0) & (active[gated, -1] < VOCABULARY)).all()
    whole[6][:] = 0
    dense, _, _ = step(
        kernels, made(kernels, datatype=datatype, margin=1, turned=turned, instruction_set=instruction_set), whole
    )
    near = np.isclose(logits, dense, rtol=1e-4, atol=1e-4)
    assert (near.sum(1)[gated] >= active[gated, -1]).all()
    assert not near[gated].all(1).any()


@pytest.mark.parametrize("datatype", ["bf16", "int8"])
def test_smaller_numbers(datatype):
    ours, exact = inputs(3, 0.0), inputs(3, 0.0)
    logits, _, _ = step(kernels, made(kernels, datatype=datatype), ours)
    wanted, _, _ = step(reference, made(reference, datatype=datatype), exact)
    np.testing.assert_allclose(logits, wanted, rtol=2e-3, atol=2e-3)


HEAD_GATES = [6 * layer + 1 for layer in range(LAYERS)]


def long_inputs(rows, length, threshold):
    """Sequences of a length and a few more, whose gates are open but for those on heads."""
    arguments = inputs(rows, 0.0, capacity=length + rows)
    arguments[3] = [length + i for i in range(rows)]
    arguments[6][:, HEAD_GATES] = threshold
    return arguments


@every_instruction_set
@pytest.mark.parametrize("known", [np.inf, 0.0])
@pytest.mark.parametrize(("rows", "length"), [(1, 383), (3, 382), (1, 700), (5, 771)])
def test_heads_that_did_not_attend_far_read_no_far_positions(instruction_set, known, rows, length):
    ours, exact = long_inputs(rows, length, 0.3), long_inputs(rows, length, 0.3)
    for arguments in (ours, exact):
        for shares in arguments[2]:
            shares[:] = known
    logits, _, active = step(kernels, made(kernels, instruction_set=instruction_set), ours)
    wanted, _, wanted_active = step(reference, made(reference), exact)
    np.testing.assert_array_equal(active, wanted_active)
    np.testing.assert_allclose(logits, wanted, rtol=1e-3, atol=1e-4)
    for own, shares in zip(ours[2], exact[2], strict=True):
        np.testing.assert_allclose(own, shares, rtol=1e-4)
    has_far = [place for place in ours[3] if place >= 383]  # 384 positions with the new one
    looked = sum((place + layer + head) % 8 == 0 for place in has_far for layer in range(2) for head in range(2))
    everything = 2 * LAYERS * rows
    asked = 2 * LAYERS * (rows - len(has_far)) + looked
    assert active[:, HEAD_GATES].sum() == (everything if known else asked)
    dense, _, _ = step(kernels, made(kernels, instruction_set=instruction_set), long_inputs(rows, length, 0.0))
    assert np.array_equal(logits, dense) == (active[:, HEAD_GATES].sum() == everything)


def test_far_shares_are_those_of_the_attention():
    ours = long_inputs(1, 600, 0.3)
    decoder = made(kernels)
    step(kernels, decoder, ours)
    assert ((ours[2][0] > 0) & (ours[2][0] < 1)).all()
    assert ours[2][0].mean() == pytest.approx(256 / 601, abs=0.15)  # random keys are attended to alike
    shares, again = [ours[2][0].copy()], long_inputs(1, 600, 0.0)
    again[2] = shares
    step(kernels, decoder, again)
    np.testing.assert_array_equal(shares[0], ours[2][0])  # an open gate does not ask


@pytest.mark.parametrize("backend", [kernels, reference])
def test_a_window_has_no_far_positions(backend):
    ours = long_inputs(1, 600, 0.3)
    ours[2][0][:] = 0
    _, _, active = step(backend, made(backend, window=500), ours)
    assert (active[:, HEAD_GATES] == KEY_HEADS).all()


@pytest.mark.parametrize("backend", [kernels, reference])
def test_the_largest_share_of_many_queries_counts(backend):
    """More queries read one head of keys than are computed together."""
    random, heads, size = np.random.default_rng(3), 60, 2

    def matrix(outputs, inputs, by="inputs"):
        return backend.pack_rows(random.standard_normal((outputs, inputs)).astype(np.float32), by=by)

    ones = np.ones(HIDDEN, np.float32)
    layer = backend.decoder_layer(
        attention_norm=ones,
        qkv=matrix((heads + 2) * size, HIDDEN),
        output=matrix(HIDDEN, heads * size),
        norm=ones,
        gate=matrix(8, HIDDEN),
        up=matrix(8, HIDDEN, "outputs"),
        down=matrix(HIDDEN, 8),
    )
    decoder = backend.decoder(
        [layer], ones, matrix(VOCABULARY, HIDDEN), heads=heads, key_heads=1, head_size=size, epsilon=1e-5
    )
    cache, x = (random.standard_normal(shape).astype(np.float32) for shape in ((1, 2, 601, size), (1, HIDDEN)))
    turn, shares = [np.ones((1, 1), np.float32), np.zeros((1, 1), np.float32)], np.full((1, 1), np.inf, np.float32)
    thresholds = np.zeros((1, 7), np.float32)
    thresholds[0, 1] = 0.1
    backend.decode_step(decoder, x, [cache], [shares], [600], *turn, thresholds, np.empty((1, 8), np.int32))
    assert shares[0, 0] == pytest.approx(0.9887, abs=0.02)


@pytest.mark.parametrize("backend", [kernels, reference])
def test_with_more_care_more_is_active(backend):
    def active(care):
        random = np.random.default_rng(3)
        hidden = random.standard_normal((HIDDEN, HIDDEN)).astype(np.float32)
        by_inputs, by_outputs = backend.pack_rows(hidden), backend.pack_rows(hidden, by="outputs")
        qkv = backend.pack_rows(random.standard_normal((3 * HIDDEN, HIDDEN)).astype(np.float32))
        ones, same = np.ones(HIDDEN, np.float32), {"output": by_inputs, "gate": by_inputs, "down": by_inputs}
        layer = backend.decoder_layer(
            attention_norm=ones, qkv=qkv, norm=ones, up=by_outputs, neuron_norms=ones, care=care, **same
        )
        decoder = backend.decoder([layer], ones, by_inputs, heads=5, key_heads=5, head_size=HEAD_SIZE, epsilon=1e-5)
        counts = np.empty((1, 8), np.int32)
        turn = np.ones((1, HEAD_SIZE // 2), np.float32)
        caches = [np.zeros((1, 2, CAPACITY, HIDDEN), np.float32)]
        far_shares, thresholds = [np.ones((1, 5), np.float32)], np.full((1, 7), 11, np.float32)
        backend.decode_step(decoder, ones[None].copy(), caches, far_shares, [0], turn, turn, thresholds, counts)
        return counts[0, :-1]

    usual, more = active(None), active(np.full(HIDDEN, 0.05, np.float32))
    assert usual[0] < more[0]
    assert usual[2] < more[2]
    np.testing.assert_array_equal(active(np.zeros(HIDDEN, np.float32)), usual)


def test_a_window_hides_what_lies_before_it():
    for window in (1, 3, CAPACITY):
        ours, exact = inputs(2, 0.2), inputs(2, 0.2)
        logits, _, _ = step(kernels, made(kernels, window=window), ours)
        wanted, _, _ = step(reference, made(reference, window=window), exact)
        np.testing.assert_allclose(logits, wanted, rtol=1e-3, atol=1e-4)


def test_a_row_does_not_depend_on_the_others():
    decoder, together = made(kernels), inputs(6, 0.3)
    together[6][2] = 0  # one of them is dense
    alone = [inputs(6, 0.3) for _ in range(6)]
    logits, _, active = step(kernels, decoder, together)
    for i, arguments in enumerate(alone):
        arguments[6][2] = 0
        own = [arguments[j][i : i + 1] for j in range(8)]
        own[7] = np.empty((1, GATES + 1), np.int32)
        np.testing.assert_array_equal(step(kernels, decoder, own)[0][0], logits[i])
        np.testing.assert_array_equal(own[7][0], active[i])


@pytest.mark.parametrize("backend", [kernels, reference])
def test_a_cache_needs_room(backend):
    arguments = inputs(1, 0.0)
    arguments[3] = [CAPACITY]
    with pytest.raises(ValueError, match="room for one more"):
        step(backend, made(backend), arguments)


def test_wrong_arguments_are_named():
    decoder = made(kernels)
    for place, value, message in (
        (0, np.zeros((1, 3), np.float32), "out|x"),
        (2, [], "far_shares must be one for each cache"),
        (2, [np.zeros((LAYERS, 3), np.float32)], "far_shares must have the shape"),
        (3, [], "lengths"),
        (4, np.zeros((1, 3), np.float32), "cosines"),
        (6, np.zeros((1, 3), np.float32), "thresholds"),
        (7, np.zeros((1, 3), np.int32), "active"),
    ):
        arguments = inputs(1, 0.0)
        arguments[place] = value
        with pytest.raises(ValueError, match=message):
            step(kernels, decoder, arguments)
    twice = inputs(2, 0.0)
    twice[1] = [twice[1][0], twice[1][0]]
    with pytest.raises(ValueError, match="different"):
        step(kernels, decoder, twice)

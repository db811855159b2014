"""Tokens through a decoder that hears, against the reference."""

import numpy as np
import pytest

from models import kernels
from models.kernels import reference

HIDDEN, HEAD_SIZE, NEURONS, LAYERS, CAPACITY, POSITIONS = 48, 16, 100, 2, 24, 30
both_backends = pytest.mark.parametrize("backend", [kernels, reference])


def made(backend, datatype="fp32", gated=True, seed=0):
    """A decoder with random weights."""
    random = np.random.default_rng(seed)

    def floats(*shape, scale=1.0):
        return (random.standard_normal(shape) * scale).astype(np.float32)

    def norm():
        return random.uniform(0.5, 1.5, HIDDEN).astype(np.float32), floats(HIDDEN, scale=0.2)

    def linear(outputs, inputs):
        weight = floats(outputs, inputs, scale=1.2 * inputs**-0.5)
        return backend.pack_matrix(weight, datatype), floats(outputs, scale=0.2)

    layers = [
        backend.speech_layer(
            norm=norm(),
            qkv=linear(3 * HIDDEN, HIDDEN),
            output=linear(HIDDEN, HIDDEN),
            heard_norm=norm(),
            heard_query=linear(HIDDEN, HIDDEN),
            heard_output=linear(HIDDEN, HIDDEN),
            neurons_norm=norm(),
            up=linear(NEURONS, HIDDEN),
            down=linear(HIDDEN, NEURONS),
            gate=(floats(NEURONS, scale=0.1), random.uniform(0.5, 1.5, NEURONS).astype(np.float32), floats(HIDDEN))
            if gated
            else None,
        )
        for _ in range(LAYERS)
    ]
    return backend.speech_decoder(layers, norm(), head_size=HEAD_SIZE, epsilon=1e-5)


def text(heads=((0, 1, 2),) * (2 * LAYERS), threshold=0.0, biased=True, seed=1):
    """What `said` takes: a text's own, with these heads of each attention."""
    random = np.random.default_rng(seed)

    def floats(*shape):
        return random.standard_normal(shape).astype(np.float32)

    def channels(active):
        ids = [head * HEAD_SIZE + i for head in active for i in range(HEAD_SIZE)]
        return None if len(active) == HIDDEN // HEAD_SIZE else np.array(ids, np.int32)

    return {
        "cache": floats(LAYERS, 2, CAPACITY, HIDDEN),
        "heads": [(channels(active), floats(HIDDEN)) for active in heads],
        "heard": [floats(POSITIONS, 2 * len(active) * HEAD_SIZE) for active in heads[1::2]],
        "bias": floats(POSITIONS) if biased else None,
        "thresholds": np.full(LAYERS, threshold, np.float32),
    }


def said(backend, decoder, tokens, cache, length=0, **given):
    """The states of tokens, what they became, how many neurons were active, and what was seen."""
    x = np.random.default_rng(length).standard_normal((tokens, HIDDEN)).astype(np.float32)
    active = np.empty(LAYERS, np.int32)
    seen = np.zeros((LAYERS, tokens, 2 * HIDDEN + NEURONS), np.float32)
    states = backend.speak(decoder, x, cache, length, **given, active=active, seen=seen)
    return states, x, active, seen


@pytest.mark.parametrize(
    "heads", [((0, 1, 2),) * 4, ((0, 2), (1,), (2,), (0, 1, 2)), ((), (0, 1), (1, 2), ()), ((), (), (), ())]
)
@pytest.mark.parametrize(("tokens", "threshold"), [(1, 0.0), (1, 0.4), (2, 0.4), (7, 0.0), (20, 0.4)])
def test_tokens_are_the_references(tokens, threshold, heads):
    ours, exact = text(heads, threshold), text(heads, threshold)
    for length in (0, 3):
        found = said(kernels, made(kernels), tokens, length=length, **ours)
        wanted = said(reference, made(reference), tokens, length=length, **exact)
        np.testing.assert_array_equal(found[2], wanted[2])
        for one, other in zip((*found, ours["cache"]), (*wanted, exact["cache"]), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
    assert (found[2] < tokens * NEURONS).all() == (threshold > 0)


@both_backends
@pytest.mark.parametrize(("threshold", "biased"), [(0.4, False), (0.0, True)])
def test_one_after_another_they_are_the_same(backend, threshold, biased):
    decoder = made(backend, gated=threshold > 0)
    together, alone = (text(threshold=threshold, biased=biased) for _ in range(2))
    x = np.random.default_rng(0).standard_normal((5, HIDDEN)).astype(np.float32)
    active = np.empty(LAYERS, np.int32)
    wanted = backend.speak(decoder, x.copy(), together.pop("cache"), 0, **together, active=active)
    cache = alone.pop("cache")
    for i in range(5):
        state = backend.speak(decoder, x[i : i + 1].copy(), cache, i, **alone, active=active)
        np.testing.assert_allclose(state[0], wanted[i], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("datatype", ["bf16", "int8"])
def test_smaller_numbers(datatype):
    found = said(kernels, made(kernels, datatype), 3, **text(threshold=0.3))
    wanted = said(reference, made(reference, datatype), 3, **text(threshold=0.3))
    assert np.linalg.norm(found[0] - wanted[0]) < 0.02 * np.linalg.norm(wanted[0])


@both_backends
def test_wrong_arguments_are_named(backend):
    decoder = made(backend)
    for name, value, message in (
        ("length", CAPACITY, "cache must have room"),
        ("heads", text()["heads"][:3], "heads must be of two attentions"),
        ("heard", text()["heard"][:1], "heard must be of each layer"),
    ):
        with pytest.raises(ValueError, match=message):
            said(backend, decoder, 1, **text() | {name: value})
    with pytest.raises(ValueError, match="layers must hold"):
        backend.speech_decoder([], (np.ones(4, np.float32),) * 2, head_size=2, epsilon=1e-5)


def test_wrong_shapes_are_named():
    decoder = made(kernels)
    for name, value, message in (
        ("cache", np.zeros((LAYERS, 2, CAPACITY, 4), np.float32), "out|cache"),
        ("heads", [(np.arange(5, dtype=np.int32), np.zeros(HIDDEN, np.float32))] * 4, "heads must be whole"),
        ("heard", [np.zeros((POSITIONS, 7), np.float32)] * LAYERS, "heard must have the shape"),
        ("bias", np.zeros(3, np.float32), "bias must have the shape"),
        ("thresholds", np.zeros(9, np.float32), "thresholds must have the shape"),
    ):
        with pytest.raises(ValueError, match=message):
            said(kernels, decoder, 1, **text() | {name: value})

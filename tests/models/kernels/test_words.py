"""The gate on words against the reference, on every instruction set of this machine."""

import numpy as np
import pytest

from models import kernels
from models.kernels import reference

HIDDEN, SEEN, WORDS = 40, 12, 333
both_backends = pytest.mark.parametrize("backend", [kernels, reference])


def likely(backend, threshold=1e-2, most=WORDS, impossible=(), words="fp32", by=("inputs", "outputs"), **packing):
    random = np.random.default_rng(0)
    weight = (random.standard_normal((WORDS, HIDDEN)) * 0.4).astype(np.float32)
    state = random.standard_normal((1, HIDDEN)).astype(np.float32)
    possible = np.zeros(WORDS, np.float32)
    possible[list(impossible)] = -np.inf
    preview = backend.pack_rows(np.ascontiguousarray(weight[:, :SEEN]), "fp32", by[0], **packing)
    packed = backend.pack_rows(weight, words, by[1], **packing)
    seen = np.ascontiguousarray(state[:, :SEEN])
    found = backend.likely_words(state, seen, preview, packed, possible=possible, threshold=threshold, most=most)
    return *found, (weight @ state[0]) + possible, (weight[:, :SEEN] @ seen[0]) + possible


@pytest.mark.parametrize("instruction_set", [name for name in kernels.instruction_sets() if name != "neon"])
@pytest.mark.parametrize(("threshold", "most"), [(1e-2, WORDS), (1e-4, 20), (1.0, WORDS), (1e-9, WORDS), (1e-9, 1)])
@pytest.mark.parametrize("words", ["fp32", "bf16", "int8"])
def test_words_are_the_references(instruction_set, threshold, most, words):
    ids, logits, exact, _ = likely(kernels, threshold, most, words=words, instruction_set=instruction_set)
    wanted, wanted_logits, _, _ = likely(reference, threshold, most, words=words)
    np.testing.assert_array_equal(ids, wanted)
    np.testing.assert_allclose(logits, wanted_logits, rtol=1e-4, atol=1e-4)
    assert 1 <= len(ids) <= most
    if words == "fp32":
        np.testing.assert_allclose(logits, exact[ids], rtol=1e-4, atol=1e-4)


@both_backends
def test_what_cannot_be_next_is_not_likely(backend):
    first = int(likely(backend, 1.0)[0][0])
    ids, logits, exact, preview = likely(backend, 1e-3, impossible=[first])
    assert first not in ids
    np.testing.assert_array_equal(ids, np.flatnonzero(preview >= preview.max() + np.log(1e-3)))
    np.testing.assert_allclose(logits, exact[ids], rtol=1e-4, atol=1e-4)


@both_backends
def test_where_nothing_can_be_next_nothing_is_likely(backend):
    _, logits, _, _ = likely(backend, impossible=range(WORDS))
    assert np.isneginf(logits).all()


@both_backends
def test_wrong_arguments_are_named(backend):
    for given, message in (
        ({"threshold": 0.0}, "threshold must be above 0"),
        ({"threshold": 1.5}, "threshold must be above 0"),
        ({"most": 0}, "most must be at least 1"),
        ({"by": ("outputs", "outputs")}, "preview must be packed by inputs"),
        ({"by": ("inputs", "inputs")}, "words must be packed by outputs"),
    ):
        with pytest.raises(ValueError, match=message):
            likely(backend, **given)

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="the extra `text` is not installed")

from models import kernels
from models.model import GateContext
from models.zoo import bert_shape
from models.zoo.bert import Bert, product
from models.zoo.token_products import AT_ONCE, Embedded, TokenProducts
from tests.models.zoo.random_bert import HIDDEN, LAYERS, POSITIONS, write_random_bert

IDS = np.array([2, 5, 9, 5, 3])


@pytest.mark.parametrize(("datatype", "tolerance"), [("fp32", 1e-6), ("bf16", 4e-3), ("int8", 4e-3)])
def test_they_are_the_products_of_the_embeddings(datatype, tolerance):
    random = np.random.default_rng(0)
    words, positions = random.standard_normal((AT_ONCE + 3, 40)) + 2, random.standard_normal((6, 40))
    norm, weight, bias = random.standard_normal((2, 40)), random.standard_normal((70, 40)), random.standard_normal(70)
    arrays = (array.astype(np.float32) for array in (words, positions, *norm, weight, bias))
    words, positions, scale, shift, weight, bias = arrays
    ids, places = np.array([0, AT_ONCE, AT_ONCE + 2, 7], np.int32), np.array([5, 1, 1, 0], np.int32)
    states, factors = kernels.embed(words, positions, ids, places, scale, shift, 1e-12)
    products = TokenProducts(words, positions, (scale, shift), weight, bias, datatype)
    found, wanted = products(Embedded(states, ids, places, factors)), states @ weight.T + bias
    assert np.linalg.norm(found - wanted) <= tolerance * np.linalg.norm(wanted)


@pytest.fixture
def multiplying(tmp_path, monkeypatch):
    """The same encoder whose vocabulary is too large for tables."""
    monkeypatch.setattr(bert_shape, "MOST_LOOKED_UP", 0)
    return Bert(write_random_bert(tmp_path))


@pytest.mark.parametrize("types", [None, np.array([0, 0, 1, 1, 1])])
def test_the_encoder_gives_the_same_without_multiplying(multiplying, tmp_path, monkeypatch, types):
    assert not multiplying.shape.looks_up
    contexts = GateContext(0.0), GateContext(0.0)
    wanted = multiplying(IDS, contexts[0], types=types)
    monkeypatch.undo()
    encoder = Bert(write_random_bert(tmp_path))
    assert encoder.shape.looks_up
    found = encoder(IDS, contexts[1], types=types)
    assert np.abs(found.states - wanted.states).max() <= 1e-5 * np.abs(wanted.states).max()
    saved = contexts[0].macs - contexts[1].macs
    assert saved == encoder.shape.looked_up_macs(len(IDS)) == len(IDS) * 3 * HIDDEN**2
    assert [context.macs_skipped for context in contexts] == [0, 0]


def test_nothing_but_the_first_layers_product_is_looked_up(tmp_path, monkeypatch):
    given, attend_half = [], kernels.attend_half

    def watched(half, x, qkv, *rest):
        given.append(qkv)
        return attend_half(half, x, qkv, *rest)

    monkeypatch.setattr(kernels, "attend_half", watched)
    encoder = Bert(write_random_bert(tmp_path))
    encoder(IDS, GateContext(0.0))
    wanted = product(encoder.embed(IDS), encoder.layers[0].attention.qkv)
    np.testing.assert_allclose(given[0], wanted, rtol=1e-4, atol=1e-4)
    assert given[1:] == [None] * (LAYERS - 1)


def test_more_tokens_than_positions_are_refused(tmp_path):
    encoder = Bert(write_random_bert(tmp_path))
    with pytest.raises(ValueError, match=f"at most {POSITIONS} tokens, got {POSITIONS + 1}"):
        encoder.embed(np.zeros(POSITIONS + 1, np.int64))


def test_a_large_vocabulary_is_not_looked_up(multiplying):
    shape = replace(multiplying.shape, hidden=768, vocabulary=250_002)
    assert shape.vocabulary * 3 * shape.hidden * 4 > bert_shape.MOST_LOOKED_UP
    assert shape.macs(5) == LAYERS * (
        shape.attention_macs(5, 5, shape.head_size, shape.heads) + shape.feed_forward_macs(5, shape.feed_forward)
    )

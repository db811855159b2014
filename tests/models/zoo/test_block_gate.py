import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="the extra `text` is not installed")

from models.model import GateContext
from models.zoo.bert import Bert
from models.zoo.block_fitting import fit_blocks
from models.zoo.block_gate import BlockGate
from models.zoo.text_reader import Tokens
from models.zoo.tuned_parts import BLOCK
from tests.models.zoo.random_bert import FEED_FORWARD, HIDDEN, WORDS, write_random_bert


def test_predictors_tell_what_blocks_really_add(tmp_path):
    encoder = Bert(write_random_bert(tmp_path))
    random = np.random.default_rng(0)
    sequences = [Tokens(random.integers(4, 4 + len(WORDS), random.integers(6, 22))) for _ in range(60)]
    fitted = fit_blocks(encoder, sequences)[0]
    assert sorted(fitted.order) == list(range(FEED_FORWARD))
    down = encoder.dense_weights(0)["down"][0]
    seen = []
    encoder(sequences[0].ids, GateContext(0.0), watch=lambda i, x, h: seen.append((x, h)) if i == 0 else None)
    all_neurons = []
    for tokens in sequences:
        encoder(tokens.ids, GateContext(0.0), watch=lambda i, x, h: all_neurons.append(h.mean(0)) if i == 0 else None)
    ((x, neurons),) = seen
    added = np.square(neurons - np.mean(all_neurons, 0)).mean(0) * np.square(down).sum(0)
    wanted = [np.sqrt(added[fitted.order][at : at + BLOCK].sum()) for at in range(0, FEED_FORWARD, BLOCK)]
    gate = BlockGate(fitted.predictor, fitted.offset, fitted.skipped, np.zeros(HIDDEN, np.float32), FEED_FORWARD)
    assert gate.saliency(x) == pytest.approx(np.array(wanted), rel=0.3)


def test_the_most_salient_block_is_always_active():
    random = np.random.default_rng(0)
    skipped = random.standard_normal((3, HIDDEN), np.float32)
    gate = BlockGate(
        np.zeros((3, 2 * HIDDEN), np.float32), np.log([1, 3, 2]).astype(np.float32), skipped, skipped[0], 160
    )
    x = random.standard_normal((5, HIDDEN), np.float32)
    active, shift = gate.select(x, 10.0)
    assert active.tolist() == list(range(64, 128))
    assert shift == pytest.approx(skipped[0] + skipped[0] + skipped[2])
    active, _ = gate.select(x, 1.5)
    assert active.tolist() == list(range(64, 160))

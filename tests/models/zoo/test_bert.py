"""The encoder beside `transformers`, which is the oracle."""

import json
import os

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="the extra `text` is not installed")

from models import kernels
from models.model import GateContext
from models.zoo.bert import Bert
from models.zoo.text_family import MINILM_COMMAND, minilm_folder
from tests.models.zoo.random_bert import POSITIONS, write_random_bert


def oracle(folder, ids):
    """The last hidden states [n, hidden]."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model = transformers.BertModel.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.no_grad():
        return model(torch.from_numpy(ids)[None]).last_hidden_state[0].numpy()


def assert_close(states, wanted):
    assert states.shape == wanted.shape
    assert np.abs(states - wanted).max() <= 1e-3 * np.abs(wanted).max()
    assert np.linalg.norm(states - wanted) <= 1e-4 * np.linalg.norm(wanted)


@pytest.mark.parametrize("tokens", [1, 2, 7, POSITIONS])
def test_hidden_states_are_those_of_the_oracle(tmp_path, tokens):
    folder = write_random_bert(tmp_path)
    ids = np.random.default_rng(tokens).integers(0, 20, tokens)
    assert_close(Bert(folder)(ids, GateContext(0.0)).states, oracle(folder, ids))


def test_the_trained_encoder_is_the_oracles():
    folder = minilm_folder()
    if folder is None:
        pytest.skip(f"MiniLM's weights are not installed: {MINILM_COMMAND}")
    encoder = Bert(folder)
    for tokens in (3, 16, 128, 256):
        ids = np.random.default_rng(tokens).integers(1000, 30_000, tokens)
        assert_close(encoder(ids, GateContext(0.0)).states, oracle(folder, ids))


def test_a_checkpoint_with_a_head_has_its_tensors_under_a_prefix(tmp_path):
    ids = np.array([2, 5, 9, 3])
    plain, prefixed = (Bert(write_random_bert(tmp_path / name, name)) for name in ("", "bert."))
    assert np.array_equal(plain(ids, GateContext(0.0)).states, prefixed(ids, GateContext(0.0)).states)


def test_a_checkpoint_whose_tensors_lie_between_words_is_the_same(tmp_path):
    ids, folder = np.array([2, 5, 9, 3]), write_random_bert(tmp_path)
    states = Bert(folder)(ids, GateContext(0.0)).states
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    size = int.from_bytes(whole[:8], "little")
    path.write_bytes((size + 1).to_bytes(8, "little") + whole[8 : 8 + size] + b" " + whole[8 + size :])
    assert np.array_equal(Bert(folder)(ids, GateContext(0.0)).states, states)


def test_its_work_is_counted(tmp_path):
    encoder, context = Bert(write_random_bert(tmp_path)), GateContext(0.0)
    encoder(np.array([2, 5, 9, 3]), context)
    products, looked_up = 4 * (3 * 64 * 64 + 64 * 64 + 2 * 64 * 160), 4 * 3 * 64 * 64
    assert context.macs == encoder.shape.macs(4) == 2 * (products + 2 * 4 * 4 * 64) - looked_up
    assert context.macs_skipped == 0


@pytest.mark.parametrize("change", [{"model_type": "gpt2"}, {"hidden_act": "relu"}, {"num_hidden_layers": 3}])
def test_another_architecture_is_refused(tmp_path, change):
    folder = write_random_bert(tmp_path)
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(ValueError, match=r"model_type|hidden_act|no tensor"):
        Bert(folder)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="this process may use one processor")
def test_threads_make_the_same(tmp_path):
    encoder, ids = Bert(write_random_bert(tmp_path / "bert")), np.arange(POSITIONS) % 20
    alone = encoder(ids, GateContext(0.0)).states
    np.testing.assert_array_equal(encoder(ids, GateContext(0.0, threads=kernels.Threads(2))).states, alone)

"""The decoder beside `transformers`, which is the oracle."""

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="the extra `language` is not installed")

from models.zoo.folder import Tensors, read_json, weights_path
from models.zoo.llama import Llama
from models.zoo.llama_shape import read_shape
from tests.models.zoo.random_llama import FAMILIES, write_random_llama


def network(folder, datatype="fp32"):
    return Llama(read_shape(read_json(folder / "config.json")), Tensors(weights_path(folder)), datatype)


def oracle(folder):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    kind = {"attn_implementation": "eager", "dtype": torch.float32}
    return transformers.AutoModelForCausalLM.from_pretrained(folder, **kind).eval()


def wanted_logits(model, ids):
    """[n, vocabulary]"""
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].numpy()


def greedy(llama, ids, count):
    """The likeliest tokens, one after the other, and the logits of each."""
    cache, tokens, logits = llama.start(), list(ids), []
    pending = tokens
    for _ in range(count):
        logits.append(llama.logits(llama.advance(pending, cache)[-1:])[0])
        pending = [int(logits[-1].argmax())]
        tokens = [*tokens, *pending]
    return tokens, np.stack(logits)


def assert_close(logits, wanted, tolerance=1e-3):
    assert logits.shape == wanted.shape
    assert np.abs(logits - wanted).max() <= tolerance * np.abs(wanted).max()


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_greedy_tokens_are_those_of_the_oracle(tmp_path, family):
    folder = write_random_llama(tmp_path, family)
    llama, reference = network(folder), oracle(folder)
    ids = np.random.default_rng(1).integers(3, 250, 23).tolist()
    assert_close(llama.logits(llama.advance(ids, llama.start())), wanted_logits(reference, ids))
    tokens, logits = greedy(llama, ids, 12)
    wanted = wanted_logits(reference, tokens[:-1])[len(ids) - 1 :]
    assert_close(logits, wanted)
    assert tokens[len(ids) :] == wanted.argmax(1).tolist()


def test_a_prompt_in_chunks_is_the_prompt_at_once(tmp_path):
    for family in ("llama", "mistral"):
        llama = network(write_random_llama(tmp_path / family, family))
        ids, cache = np.random.default_rng(2).integers(3, 250, 60).tolist(), llama.start()
        parts = [llama.advance(ids[i : i + 17], cache) for i in range(0, 60, 17)]
        assert_close(np.concatenate(parts), llama.advance(ids, llama.start()), 1e-5)


@pytest.mark.parametrize(("datatype", "tolerance"), [("bf16", 0.05), ("int8", 0.15)])
def test_smaller_numbers_are_near(tmp_path, datatype, tolerance):
    folder = write_random_llama(tmp_path)
    ids = np.random.default_rng(3).integers(3, 250, 20).tolist()
    exact, llama = network(folder), network(folder, datatype)
    assert_close(
        llama.logits(llama.advance(ids, llama.start())), exact.logits(exact.advance(ids, exact.start())), tolerance
    )


def test_its_work_is_counted(tmp_path):
    shape = network(write_random_llama(tmp_path)).shape
    layer = 48 * (48 + 2 * 16) + 48 * 48 + 3 * 48 * 112
    assert shape.macs(0, 1, False) == 3 * (layer + 2 * 48)
    assert shape.macs(5, 8, True) == 3 * (3 * layer + 2 * 48 * (6 + 7 + 8)) + 48 * shape.vocabulary
    windowed = network(write_random_llama(tmp_path / "m", "mistral")).shape
    assert windowed.keys_seen(7, 12, 9) == 8 + 9 + 9 + 9 + 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bert"}, "model_type must be one of"),
        ({"hidden_act": "gelu"}, "hidden_act must be 'silu'"),
        ({"num_key_value_heads": 4}, "num_key_value_heads"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2}}, "rope_type must be"),
        ({"layer_types": ["full_attention"]}, "layer_types"),
        ({"hidden_size": None}, "hidden_size"),
    ],
)
def test_another_architecture_is_refused_by_the_name_of_the_field(tmp_path, change, message):
    config = read_json(write_random_llama(tmp_path) / "config.json") | change
    with pytest.raises(ValueError, match=message):
        read_shape({name: value for name, value in config.items() if value is not None})

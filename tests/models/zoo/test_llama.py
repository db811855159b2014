"""The decoder beside `transformers`, which is the oracle."""

import json

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
        ({"architectures": ["LlamaForSequenceClassification"]}, "architectures must have one that ends in ForCausalLM"),
        ({"architectures": "LlamaForCausalLM"}, "architectures"),
        ({"hidden_size": None}, "hidden_size must be a whole number of at least 1, got None"),
        ({"hidden_size": "48"}, "hidden_size must be a whole number of at least 1, got '48'"),
        ({"hidden_size": 47, "head_dim": None}, "hidden_size must be a multiple of num_attention_heads"),
        ({"num_attention_heads": 0}, "num_attention_heads"),
        ({"num_hidden_layers": True}, "num_hidden_layers"),
        ({"head_dim": 7}, "head_dim"),
        ({"rms_norm_eps": "1e-5"}, "rms_norm_eps must be a number above 0"),
        ({"rope_theta": -1}, "rope_theta"),
        ({"rope_scaling": "linear"}, "rope_scaling must be an object"),
        ({"rope_scaling": {"type": "linear"}}, "lacks 'factor'"),
        ({"rope_scaling": {"type": "longrope", "short_factor": [1], "long_factor": [2]}}, "short_factor"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings must be true or false"),
        ({"model_type": "mistral", "sliding_window": "9"}, "sliding_window"),
    ],
)
def test_another_architecture_is_refused_by_the_name_of_the_field(tmp_path, change, message):
    config = read_json(write_random_llama(tmp_path) / "config.json") | change
    with pytest.raises(ValueError, match=message):
        read_shape(config)


def test_a_field_that_is_not_there_is_named(tmp_path):
    config = read_json(write_random_llama(tmp_path) / "config.json")
    with pytest.raises(ValueError, match=r"config\.json lacks 'hidden_size'"):
        read_shape({name: value for name, value in config.items() if name != "hidden_size"})


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_what_a_configuration_does_not_say_is_as_the_oracle_has_it(family):
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 9, "hidden_size": 512, "intermediate_size": 7, "num_hidden_layers": 30}
    alike = {} if family == "mistral" else {"num_key_value_heads": None}
    for more in ({"num_attention_heads": 32}, {"num_attention_heads": 64, **alike}):
        for window in ({}, {"use_sliding_window": True}, {"sliding_window": 9}):
            given = {"model_type": family, **sizes, **more, **window}
            shape, wanted = read_shape(given), transformers.AutoConfig.for_model(**given)
            head_size = getattr(wanted, "head_dim", None) or wanted.hidden_size // wanted.num_attention_heads
            kinds = getattr(wanted, "layer_types", None) or ["sliding_attention"] * 30
            sliding = (getattr(wanted, "sliding_window", None) if family != "llama" else None) or 0
            assert shape.positions == wanted.max_position_embeddings
            assert (shape.key_heads, shape.head_size) == (wanted.num_key_value_heads, head_size)
            assert (shape.epsilon, shape.tied) == (wanted.rms_norm_eps, wanted.tie_word_embeddings)
            assert shape.windows == tuple(sliding if kind == "sliding_attention" else 0 for kind in kinds)


def test_a_head_that_is_missing_is_no_table(tmp_path):
    folder = write_random_llama(tmp_path, tie_word_embeddings=True)
    assert network(folder).head.outputs == network(folder).shape.vocabulary
    content = read_json(folder / "config.json")
    (folder / "config.json").write_text(json.dumps(content | {"tie_word_embeddings": False}))
    with pytest.raises(ValueError, match=r"tie_word_embeddings is not true, and the weights have no lm_head\.weight"):
        network(folder)

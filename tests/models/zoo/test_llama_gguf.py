"""A GGUF file becomes a folder whose model is the one that the file was made of."""

import numpy as np
import pytest

pytest.importorskip("gguf", reason="the extra `language` is not installed")
pytest.importorskip("tokenizers", reason="the extra `language` is not installed")

from models.zoo.folder import Tensors, read_json, weights_path
from models.zoo.language_text import ChatTemplate, Vocabulary
from models.zoo.llama_gguf import convert, hugging_face_name
from tests.models.zoo.random_llama import HEADS, KEY_HEADS, SPECIAL, byte_tokenizer, write_random_llama
from tests.models.zoo.test_llama import assert_close, network

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def neighbours(weight, heads):
    """Queries or keys as GGUF has them: what is turned together lies together."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(path, folder, architecture="llama"):
    import gguf

    config, checkpoint = read_json(folder / "config.json"), Tensors(weights_path(folder))
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(10_000.0)
    tokens = byte_tokenizer().get_vocab()
    ordered = sorted(tokens, key=tokens.__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(ordered)
    writer.add_token_types([3 if token in SPECIAL else 1 for token in ordered])
    writer.add_token_merges(["t h"])
    writer.add_eos_token_id(2)
    writer.add_chat_template("{{ messages[0]['content'] }}{{ eos_token }}")
    for name in checkpoint:
        weight, part = checkpoint[name], name.removesuffix(".weight")
        layer, _, inner = part.removeprefix("model.layers.").partition(".")
        target = f"blk.{layer}.{NAMES[inner]}" if part.startswith("model.layers.") else NAMES[part]
        for kind, heads in (("q_proj", HEADS), ("k_proj", KEY_HEADS)):
            if kind in name:
                weight = np.ascontiguousarray(neighbours(weight, heads))
        assert hugging_face_name(f"{target}.weight") == name
        writer.add_tensor(f"{target}.weight", weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_the_model_is_the_same(tmp_path):
    folder = write_random_llama(tmp_path / "source")
    shares: list[float] = []
    convert(write_gguf(tmp_path / "tiny.gguf", folder), tmp_path / "made", shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    ids = [5, 9, 77, 12]
    exact, made = network(folder), network(tmp_path / "made")
    assert_close(made.logits(made.advance(ids, made.start())), exact.logits(exact.advance(ids, exact.start())), 5e-3)
    vocabulary = Vocabulary(tmp_path / "made")
    assert vocabulary.encode("the sea 12") == Vocabulary(folder).encode("the sea 12")
    assert ChatTemplate(tmp_path / "made", vocabulary)([{"role": "user", "content": "Hi"}]) == "Hi<|im_end|>"


def test_another_architecture_is_refused(tmp_path):
    path = write_gguf(tmp_path / "other.gguf", write_random_llama(tmp_path / "source"), "gemma")
    with pytest.raises(ValueError, match="architecture must be one of llama, qwen2, qwen3, got 'gemma'"):
        convert(path, tmp_path / "made", lambda done: None)
    assert not (tmp_path / "made").exists()


def test_a_tensor_of_another_architecture_is_named():
    with pytest.raises(ValueError, match=r"blk\.0\.ssm_a\.weight"):
        hugging_face_name("blk.0.ssm_a.weight")

"""A GGUF file becomes a folder whose model is the one that the file was made of."""

import numpy as np
import pytest

pytest.importorskip("gguf", reason="the extra `language` is not installed")
pytest.importorskip("tokenizers", reason="the extra `language` is not installed")

from models.zoo.folder import Tensors, read_json, weights_path
from models.zoo.language_text import ChatTemplate, Vocabulary
from models.zoo.llama_gguf import convert, hugging_face_name
from tests.models.zoo.random_llama import HEADS, KEY_HEADS, SPECIAL, byte_tokenizer, write_random_llama
from tests.models.zoo.test_llama import assert_close, network, oracle, wanted_logits

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


def write_gguf(path, folder, architecture="llama", change=lambda writer: None, words="smollm", factors=None):
    """`change` adds fields to the writer."""
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
    writer.add_tokenizer_pre(words)
    writer.add_token_list(ordered)
    writer.add_token_types([3 if token in SPECIAL else 1 for token in ordered])
    writer.add_token_merges(["t h"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{{ messages[0]['content'] }}{{ eos_token }}")
    change(writer)
    if factors is not None:
        writer.add_tensor("rope_freqs.weight", np.array(factors, np.float32))
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


def made_of(tmp_path, **more):
    source = write_random_llama(tmp_path / "source", more.pop("family", "llama"))
    convert(write_gguf(tmp_path / "tiny.gguf", source, **more), tmp_path / "made", lambda done: None)
    return tmp_path / "made"


def test_factors_of_the_angles_are_those_of_the_oracle(tmp_path):
    made, ids = made_of(tmp_path, factors=[1.0, 1.5, 6.0, 8.0]), list(range(3, 60))
    plain = network(tmp_path / "source")
    assert network(made).shape.frequencies == pytest.approx(plain.shape.frequencies / [1.0, 1.5, 6.0, 8.0])
    llama = network(made)
    assert_close(llama.logits(llama.advance(ids, llama.start())), wanted_logits(oracle(made), ids))


def test_linear_stretching(tmp_path):
    from gguf.constants import RopeScalingType

    def change(writer):
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(4.0)

    made = made_of(tmp_path, change=change)
    assert network(made).shape.frequencies == pytest.approx(network(tmp_path / "source").shape.frequencies / 4)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda writer: writer.add_string("llama.rope.scaling.type", "yarn"), "scaling.type must be .*, got 'yarn'"),
        (lambda writer: writer.add_float32("llama.rope.scaling.attn_factor", 1.2), "attn_factor must be 1"),
        (lambda writer: writer.add_uint32("llama.rope.dimension_count", 4), "dimension_count must be .* 8, got 4"),
    ],
)
def test_another_stretching_is_refused(tmp_path, change, why):
    with pytest.raises(ValueError, match=rf"tiny\.gguf: llama\.rope\..*{why}"):
        made_of(tmp_path, change=change)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(("given", "begins"), [(None, True), (False, False)])
def test_a_text_of_llama_3_begins_unless_the_file_says_otherwise(tmp_path, given, begins):
    def change(writer):
        if given is not None:
            writer.add_add_bos_token(given)

    made = made_of(tmp_path, words="llama-bpe", change=change)
    assert (Vocabulary(made).encode("a")[0] == 1) == begins
    assert read_json(made / "tokenizer.json")["model"]["ignore_merges"]


@pytest.mark.parametrize("cut", [0, 3, 40, 2000, -100])
def test_a_torn_file_is_named(tmp_path, cut):
    path = write_gguf(tmp_path / "tiny.gguf", write_random_llama(tmp_path / "source"))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"tiny\.gguf is no GGUF file"):
        convert(path, tmp_path / "made", lambda done: None)


def test_a_pointer_of_git_lfs_is_told(tmp_path):
    path = tmp_path / "tiny.gguf"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ValueError, match="git-lfs pointer"):
        convert(path, tmp_path / "made", lambda done: None)


def test_another_architecture_is_refused(tmp_path):
    path = write_gguf(tmp_path / "other.gguf", write_random_llama(tmp_path / "source"), "gemma")
    with pytest.raises(ValueError, match="architecture must be one of llama, qwen2, qwen3, got 'gemma'"):
        convert(path, tmp_path / "made", lambda done: None)
    assert not (tmp_path / "made").exists()


def test_a_tensor_of_another_architecture_is_named():
    with pytest.raises(ValueError, match=r"blk\.0\.ssm_a\.weight"):
        hugging_face_name("blk.0.ssm_a.weight")

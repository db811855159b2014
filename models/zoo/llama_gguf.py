"""From a GGUF file to a Hugging Face folder: weights in float16, configuration, tokeniser and chat template.

The format is that of the GGUF specification (ggml project); the package gguf reads it and knows its quantised types.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

Array = NDArray[np.float32]
ARCHITECTURES = ("llama", "qwen2", "qwen3")

_OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_INNER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CONTROL = 3
"""The type of a token that is not text."""


def convert(source: Path, folder: Path, report: Callable[[float], None]) -> None:
    """Writes the folder, all of it or nothing; `report` is called with the share done, 0 to 1.

    Raises `ModuleNotFoundError` without the packages gguf and tokenizers, or `ValueError` for another architecture."""
    from gguf import GGUFReader
    from gguf.quants import dequantize

    reader = GGUFReader(source)
    fields = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    architecture = fields.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise ValueError(f"{source}: architecture must be one of {', '.join(ARCHITECTURES)}, got {architecture!r}")
    partial = folder.with_name(folder.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, NDArray[Any]] = {}
    for i, tensor in enumerate(reader.tensors):
        if tensor.name.startswith("rope_freqs"):  # they follow from the configuration
            continue
        name = hugging_face_name(tensor.name)
        weight = dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
        if architecture == "llama" and re.search(r"[qk]_proj", name):
            heads = fields["llama.attention.head_count" + ("_kv" if "k_proj" in name else "")]
            weight = halves_together(weight, heads)
        tensors[name] = weight.astype(np.float16) if weight.ndim == 2 else weight
        report(0.8 * (i + 1) / len(reader.tensors))
    save_file(tensors, partial / "model.safetensors")
    _write(partial / "config.json", configuration(fields, tied="lm_head.weight" not in tensors))
    _write(partial / "tokenizer_config.json", _tokenizer_settings(fields))
    tokenizer(fields).save(str(partial / "tokenizer.json"))
    partial.rename(folder)
    report(1.0)


def hugging_face_name(name: str) -> str:
    """The name that a Hugging Face checkpoint has for a tensor. Raises `ValueError` for one that it has not."""
    part, _, kind = name.rpartition(".")
    if part in _OUTER:
        return f"{_OUTER[part]}.{kind}"
    match = re.fullmatch(r"blk\.(\d+)\.(\w+)", part)
    if match is None or match[2] not in _INNER:
        raise ValueError(f"the tensor {name!r} belongs to another architecture")
    return f"model.layers.{match[1]}.{_INNER[match[2]]}.{kind}"


def halves_together(weight: Array, heads: int) -> Array:
    """Rows of queries or keys, in which a pair that is turned together are neighbours, with a head's first halves of
    pairs before the second ones."""
    pairs = weight.reshape(heads, -1, 2, *weight.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(weight.shape)


def configuration(fields: Mapping[str, Any], tied: bool) -> dict[str, Any]:
    """The `config.json`."""
    family = fields["general.architecture"]

    def get(name: str, default: Any = None) -> Any:
        return fields.get(f"{family}.{name}", default)

    config = {
        "model_type": family,
        "hidden_act": "silu",
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
        "max_position_embeddings": get("context_length"),
        "hidden_size": get("embedding_length"),
        "intermediate_size": get("feed_forward_length"),
        "num_hidden_layers": get("block_count"),
        "num_attention_heads": get("attention.head_count"),
        "num_key_value_heads": get("attention.head_count_kv", get("attention.head_count")),
        "rms_norm_eps": get("attention.layer_norm_rms_epsilon"),
        "rope_theta": get("rope.freq_base", 10_000.0),
        "tie_word_embeddings": tied,
        "bos_token_id": fields.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": fields.get("tokenizer.ggml.eos_token_id"),
    }
    if head_size := get("attention.key_length"):
        config["head_dim"] = head_size
    return config


def tokenizer(fields: Mapping[str, Any]) -> Any:
    """The byte-level tokeniser. Raises `ValueError` for one of another kind."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

    kind, words = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre", "default")
    if kind != "gpt2":
        raise ValueError(
            f"tokenizer.ggml.model must be 'gpt2', got {kind!r}: use the Hugging Face folder of this model"
        )
    split: list[Any]
    if words in ("smollm", "starcoder"):
        split = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    elif words in ("default", "gpt-2"):
        split = [pre_tokenizers.ByteLevel(add_prefix_space=False)]
    elif words in ("llama-bpe", "qwen2"):
        pattern = Regex(_WORDS.replace("DIGITS", "{1,3}" if words == "llama-bpe" else ""))
        by_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        split = [pre_tokenizers.Split(pattern, "isolated"), by_bytes]
    else:
        raise ValueError(f"tokenizer.ggml.pre is unknown, got {words!r}: use the Hugging Face folder of this model")
    tokens = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in fields["tokenizer.ggml.merges"]]
    made = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    made.pre_tokenizer = pre_tokenizers.Sequence(split)
    made.decoder = decoders.ByteLevel()
    kinds = fields["tokenizer.ggml.token_type"]
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL]
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    if fields.get("tokenizer.ggml.add_bos_token"):
        first = fields["tokenizer.ggml.bos_token_id"]
        made.post_processor = processors.TemplateProcessing(f"{tokens[first]} $A", None, [(tokens[first], first)])
    return made


def _tokenizer_settings(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The `tokenizer_config.json`, with the chat template."""
    tokens = fields["tokenizer.ggml.tokens"]
    settings = {"chat_template": fields.get("tokenizer.chat_template")}
    for name in ("bos", "eos", "unknown", "padding"):
        token = fields.get(f"tokenizer.ggml.{name}_token_id")
        short = {"unknown": "unk", "padding": "pad"}.get(name, name)
        if token is not None:
            settings[f"{short}_token"] = tokens[token]
    return settings


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}, indent=1) + "\n")

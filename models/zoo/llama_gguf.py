"""From a GGUF file to a Hugging Face folder: weights in float16, configuration, tokeniser and chat template.

The format is that of the GGUF specification (ggml project); the package gguf reads it and knows its quantised types.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from models.zoo.config_fields import whole_number
from models.zoo.folder import pointer_hint
from models.zoo.llama_shape import read_shape

Array = NDArray[np.float32]
ARCHITECTURES = ("llama", "qwen2", "qwen3")
FACTORS = "rope_freqs.weight"
"""The tensor of what each angle of the rotary embedding is divided by."""

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
_LLAMA3 = ("llama-bpe", "llama3", "llama-v3")
"""Names of one way to split words: a word that is a token is not made of merges, and a text has a beginning unless the
file says otherwise."""
_CONTROL = 3
"""The type of a token that is not text."""


def convert(source: Path, folder: Path, report: Callable[[float], None]) -> None:
    """Writes the folder, all of it or nothing; `report` is called with the share done, 0 to 1.

    Raises `ModuleNotFoundError` without the packages gguf and tokenizers, or `ValueError` for another architecture and
    for a file that is torn or no GGUF."""
    from gguf import GGUFReader

    try:
        reader = GGUFReader(source)
        fields = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    except Exception as error:  # the package raises nothing narrower
        raise ValueError(f"{source} is no GGUF file that can be read: {error}{pointer_hint(source)}") from None
    try:
        _convert(reader.tensors, fields, folder, report)
    except KeyError as missing:
        raise ValueError(f"{source} lacks {missing}") from None
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None


def _convert(tensors: Sequence[Any], fields: Mapping[str, Any], folder: Path, report: Callable[[float], None]) -> None:
    architecture = fields.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise ValueError(f"architecture must be one of {', '.join(ARCHITECTURES)}, got {architecture!r}")
    # Factors of the angles are in one architecture's files alone; in others' the tensor's name is unknown.
    factors = {tensor.name: tensor for tensor in tensors if architecture == "llama" and tensor.name == FACTORS}
    own = _values(factors[FACTORS]) if factors else None
    config = configuration(fields, own, tied=all(tensor.name != "output.weight" for tensor in tensors))
    settings, made = _tokenizer_settings(fields), tokenizer(fields)
    partial = folder.with_name(folder.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    weights: dict[str, NDArray[Any]] = {}
    for i, tensor in enumerate(tensors):
        if tensor.name in factors:
            continue
        name = hugging_face_name(tensor.name)
        weight = _values(tensor)
        if architecture == "llama" and re.search(r"[qk]_proj", name):
            heads = config["num_key_value_heads" if "k_proj" in name else "num_attention_heads"]
            weight = halves_together(weight, heads)
        weights[name] = weight.astype(np.float16) if weight.ndim == 2 else weight
        report(0.8 * (i + 1) / len(tensors))
    save_file(weights, partial / "model.safetensors")
    _write(partial / "config.json", config)
    _write(partial / "tokenizer_config.json", settings)
    made.save(str(partial / "tokenizer.json"))
    partial.rename(folder)
    report(1.0)


def _values(tensor: Any) -> Array:
    """In float32. Raises `ValueError` for a type that the package cannot read."""
    from gguf.quants import dequantize

    try:
        values: Array = dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
    except NotImplementedError:
        raise ValueError(
            f"the tensor {tensor.name!r} is of a type that cannot be read, {tensor.tensor_type!r}"
        ) from None
    return values


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


def configuration(fields: Mapping[str, Any], factors: Array | None, tied: bool) -> dict[str, Any]:
    """The `config.json`. `factors` are those that each angle of the rotary embedding is divided by, if the file has
    some."""
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
    # Qwen3's heads have a size of their own where a config.json does not say it.
    hidden, heads = whole_number(config, "hidden_size"), whole_number(config, "num_attention_heads")
    config["head_dim"] = get("attention.key_length") or hidden // heads
    config["rope_scaling"] = _scaling(fields, factors, config)
    read_shape(config)
    return config


def _scaling(fields: Mapping[str, Any], factors: Array | None, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """How the rotary embedding is stretched, as a `config.json` says it; None where it is not. A tensor of factors is
    all that a file of Llama 3 says of it."""
    prefix = f"{config['model_type']}.rope"
    turned = fields.get(f"{prefix}.dimension_count", config["head_dim"])
    if turned != config["head_dim"]:
        raise ValueError(f"{prefix}.dimension_count must be the size of a head, {config['head_dim']}, got {turned}")
    kind = fields.get(f"{prefix}.scaling.type", "linear")
    if kind not in ("none", "linear"):
        raise ValueError(f"{prefix}.scaling.type must be 'none' or 'linear', got {kind!r}")
    if (strength := fields.get(f"{prefix}.scaling.attn_factor", 1.0)) != 1:
        raise ValueError(f"{prefix}.scaling.attn_factor must be 1, got {strength}")
    factor = fields.get(f"{prefix}.scaling.factor") or fields.get(f"{prefix}.scale_linear") or 1.0
    if kind == "none":
        factor = 1.0
    if factors is None:
        return {"rope_type": "linear", "factor": factor} if factor != 1 else None
    each = (factor * factors).tolist()
    return {
        "rope_type": "longrope",
        "short_factor": each,
        "long_factor": each,
        "attention_factor": 1.0,
        "original_max_position_embeddings": config["max_position_embeddings"],
    }


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
    elif words in (*_LLAMA3, "qwen2"):
        pattern = Regex(_WORDS.replace("DIGITS", "" if words == "qwen2" else "{1,3}"))
        by_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        split = [pre_tokenizers.Split(pattern, "isolated"), by_bytes]
    else:
        raise ValueError(f"tokenizer.ggml.pre is unknown, got {words!r}: use the Hugging Face folder of this model")
    tokens = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in fields["tokenizer.ggml.merges"]]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    made = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=words in _LLAMA3))
    made.pre_tokenizer = pre_tokenizers.Sequence(split)
    made.decoder = decoders.ByteLevel()
    kinds = fields["tokenizer.ggml.token_type"]
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL]
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    first = fields.get("tokenizer.ggml.bos_token_id")
    if first is not None and fields.get("tokenizer.ggml.add_bos_token", words in _LLAMA3):
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
